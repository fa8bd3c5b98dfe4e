"""TinyVLA: a small vision-language model is run once, and its pooled features condition a diffusion U-Net.

The prompt is LLaVA's: a fixed text, the patches of both cameras, the instruction; the attention is causal. Weights are
named as in the authors' code. The host turns the six numbers of a rotation into angles, after ensembling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.resize import linear_matrix, resize
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.clip_vision import ClipVision
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STATE, STEP, TASK, TOKENS, frame, words
from vlacompile.zoo.blocks.language_model import causal
from vlacompile.zoo.blocks.neox import Neox, NeoxSizes
from vlacompile.zoo.blocks.noise_schedule import cosine_ddim
from vlacompile.zoo.blocks.unet1d import ConditionalUnet
from vlacompile.zoo.blocks.vision_tower import TowerSizes
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("image.base", "image.wrist")
HORIZON, ACTION, STATES, TEMPLATE, LENGTH = 16, 10, 7, 38, 32
TRAINED, STEPS, DECAY, CROP = 100, 10, 0.01, 0.95
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP = TowerSizes(1024, 24, 16, 4096, 14, 336)
PYTHIA = {"s": NeoxSizes(512, 6, 8), "b": NeoxSizes(1024, 24, 16), "h": NeoxSizes(2048, 16, 8)}


@dataclass(frozen=True)
class Sizes:
    language: NeoxSizes
    vision: TowerSizes = CLIP
    frame: tuple[int, int] = (240, 320)
    widths: tuple[int, ...] = (256, 512, 1024)
    step: int = 256


SMALL = {variant: Sizes(replace(language, width=32, depth=2, heads=2, vocabulary=100),
                        TowerSizes(32, 3, 2, 64, 14, 28), (18, 24), (16, 32, 64), 16)
         for variant, language in PYTHIA.items()}


class Body(Neox):
    """The language model with the vision tower and the projector between them, as the authors nest them."""

    def __init__(self, sizes: Sizes):
        super().__init__(sizes.language)
        width = sizes.language.width
        self.vision_tower = nn.ModuleDict({"vision_model": ClipVision(sizes.vision)})
        self.mm_projector = nn.Sequential(nn.Linear(sizes.vision.width, width), nn.GELU(), nn.Linear(width, width))

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.mm_projector(self.vision_tower["vision_model"](pixels))


class TinyVla(nn.Module):
    """Frames u8 [1,H,W,3] of two cameras, token ids i64 [1,32] of what follows the images with their mask, state f32
    [1,7], noise f32 [1,16,10] -> {"action": f32 [1,16,10]}: position, two columns of the rotation, gripper."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, self.sampler = sizes, cosine_ddim(TRAINED, STEPS, 1.0)
        self.gpt_neox = Body(sizes)
        self.embed_out = ConditionalUnet(ACTION, sizes.language.width, STATES, sizes.widths, sizes.step)
        self.register_buffer("template", torch.randint(1, sizes.language.vocabulary, (1, TEMPLATE)))
        for name, count in (("state_mean", STATES), ("action_min", ACTION)):
            self.register_buffer(name, torch.randn(count) * 0.1)
        for name, count in (("state_std", STATES), ("action_max", ACTION)):
            self.register_buffer(name, 1 + torch.rand(count))

    def pixels(self, image: torch.Tensor) -> torch.Tensor:
        """The middle 95 % of the frame at the frame's size, padded to a square with the mean colour, resized."""
        x = image.permute(0, 3, 1, 2).to(torch.float32)
        height, width = x.shape[-2:]
        (top, bottom), (left, right) = ((int(n * (1 - CROP) / 2), int(n * (1 + CROP) / 2)) for n in (height, width))
        x = x[..., top:bottom, left:right]
        x = linear_matrix(bottom - top, height) @ x @ linear_matrix(right - left, width).T
        side = max(height, width)
        grey = torch.tensor([int(255 * m) for m in MEAN], dtype=torch.float32).view(1, 3, 1, 1)
        above, before = (side - height) // 2, (side - width) // 2
        x = F.pad(x.floor() - grey, (before, side - width - before, above, side - height - above)) + grey
        x = resize(x, (self.sizes.vision.side,) * 2, "bicubic") / 255.0
        return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)

    def features(self, pixels: list[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor) \
            -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [1,n,d] of the whole prompt, and their padding mask bool [1,n]."""
        body = self.gpt_neox
        prompt = torch.cat([body.embed_in(self.template), *(body.see(p) for p in pixels), body.embed_in(tokens)], 1)
        before = torch.ones(1, prompt.shape[1] - tokens.shape[1], dtype=torch.bool)
        whole = torch.cat([before, mask], 1)
        return body(prompt, causal(whole)[0], torch.arange(whole.shape[1])[None]), whole

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden, whole = self.features([self.pixels(inputs[c]) for c in CAMERAS], inputs[TOKENS], inputs[MASK])
        state = (inputs[STATE] - self.state_mean) / self.state_std

        def predict(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            pooled = (hidden * whole[..., None]).sum(1) / whole.sum(1, keepdim=True)
            return self.embed_out(sample, timestep, pooled, state)

        action = self.sampler.denoise(predict, inputs[NOISE])
        return {"action": (action + 1) / 2 * (self.action_max - self.action_min) + self.action_min}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL[variant] if size == TINY else Sizes(PYTHIA[variant])
    tokens, mask = words(LENGTH, sizes.language.vocabulary, 11)
    example = {TOKENS: tokens, MASK: mask, **{c: frame(*sizes.frame) for c in CAMERAS}, STATE: torch.randn(1, STATES),
               NOISE: torch.randn(1, HORIZON, ACTION)}
    sources = {TOKENS: TASK, MASK: TASK, **dict.fromkeys(CAMERAS, FRAME), STATE: FRAME, NOISE: STEP}
    return Policy(f"tinyvla_{variant}", TinyVla(sizes).eval(), sources, example, ensemble=DECAY)


_PAPER = "arXiv 2409.12514"
SYSTEM = System(
    "TinyVLA", 2024, 12, f"{_PAPER}; liyaxuanliyaxuan/TinyVLA 94f4418", make,
    says=("S: 422 M parameters", "B: 740 M parameters", "H: 1300 M parameters"),
    code="MIT (text inherited from ACT)",
    variants=("s", "b", "h"), checkpoint=Checkpoint(statistics=("template", "state_*", "action_*")),
    published=(
        Published("parameters", 422, "M", "S", _PAPER),
        Published("parameters", 740, "M", "B", _PAPER),
        Published("parameters", 1300, "M", "H", _PAPER),
    ))
