"""InternVLA-M1: Qwen2.5-VL and DINOv2 see the cameras, learned queries read both, and a diffusion transformer acts on
them with classifier-free guidance, both halves in one batch. Weights are named as in InternRobotics/InternVLA-M1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.frontends.vision_transformer import VisionSizes, VisionTransformer
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.dit import EPS, DitSizes, PlainBlock, TimestepEmbedder
from vlacompile.zoo.blocks.inputs import FRAME, IMAGENET, MASK, NOISE, STEP, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.language_model import LanguageSizes
from vlacompile.zoo.blocks.noise_schedule import cosine_ddim
from vlacompile.zoo.blocks.qformer import LayerwiseQFormer
from vlacompile.zoo.blocks.qwen_vl import QWEN25_3B, QwenVisionSizes, QwenVl, windowed
from vlacompile.zoo.checkpoint import Checkpoint, Places, tensor_files
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("image.base", "image.wrist")
HORIZON, ACTION, QUERIES, TEMPLATE, LENGTH = 16, 7, 64, 15, 96
TRAINED, STEPS, GUIDANCE = 100, 10, 1.5
OFFSET = 0.1  # rows that DINOv2's code adds to a grid that it interpolates to


@dataclass(frozen=True)
class Sizes:
    """sections: frequencies of a head for time, row and column."""

    vision: QwenVisionSizes
    dino: VisionSizes
    expert: DitSizes
    language: LanguageSizes = QWEN25_3B
    sections: tuple[int, int, int] = (16, 24, 24)
    side: int = 224
    sines: int = 256


LARGE = Sizes(windowed((16, 16), QWEN25_3B.width),
              VisionSizes(384, 12, 6, 1536, 14, 224, prefix=1, scaled=True, final=True), DitSizes(768, 12, 12))
SMALL = Sizes(QwenVisionSizes((4, 4), 32, 32, 3, 2, 48, window=2, whole=(1,), gated=True),
              VisionSizes(24, 2, 2, 48, 14, 56, prefix=1, scaled=True, final=True), DitSizes(32, 2, 2),
              replace(QWEN25_3B, width=32, depth=2, heads=2, kv_heads=1, hidden=64, vocabulary=100), (2, 3, 3), 56, 32)


class _Named(nn.Module):
    """A Linear under the name `linear`."""

    def __init__(self, given: int, width: int):
        super().__init__()
        self.linear = nn.Linear(given, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class GuidedDit(nn.Module):
    def __init__(self, sizes: DitSizes, sines: int):
        super().__init__()
        width = sizes.width
        self.x_embedder, self.t_embedder = _Named(ACTION, width), TimestepEmbedder(width, sines)
        self.z_embedder = _Named(width, width)
        self.z_embedder.uncondition = nn.Parameter(torch.randn(QUERIES, width))
        self.positional_embedding = nn.Parameter(torch.randn(QUERIES + HORIZON, width) * width**-0.5)
        self.blocks = nn.ModuleList(PlainBlock(sizes) for _ in range(sizes.depth))
        self.final_layer = _Named(width, ACTION)
        self.norm_final = nn.LayerNorm(width, EPS, elementwise_affine=False)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """sample [1,H,D], timestep [], condition [1,64,width] -> the guided noise [1,H,D]"""
        z = self.z_embedder(torch.cat([condition, self.z_embedder.uncondition[None]], 0))
        x = self.x_embedder(torch.cat([sample, sample], 0))
        x = torch.cat([self.t_embedder(timestep)[:, None] + z, x], 1) + self.positional_embedding
        for block in self.blocks:
            x = block(x)
        seen, unseen = self.final_layer(self.norm_final(x))[:, QUERIES:].chunk(2, 0)
        return unseen + GUIDANCE * (seen - unseen)


class InternVla(nn.Module):
    """Frames u8 [1,side,side,3] of two cameras, token ids i64 [1,96] of what follows them with their mask, noise f32
    [1,16,7] -> {"action": f32 [1,16,7]}, the gripper 0 or 1."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sampler, width = cosine_ddim(TRAINED, STEPS, None), sizes.language.width
        self.qwen_vl_interface = nn.ModuleDict(
            {"model": QwenVl(sizes.vision, sizes.language, sizes.sections, TEMPLATE)})
        self.dino_encoder = nn.ModuleDict({"body": VisionTransformer(sizes.dino)})
        self.dino_pro = nn.Linear(sizes.dino.width, width)
        self.layer_qformer = LayerwiseQFormer(width, sizes.expert.width, QUERIES)
        self.action_model = nn.ModuleDict({"net": GuidedDit(sizes.expert, sizes.sines)})
        self.register_buffer("q01", torch.randn(ACTION) * 0.1 - 1)
        self.register_buffer("q99", 1 + torch.rand(ACTION))
        self.register_buffer("is_gripper", torch.arange(ACTION) == ACTION - 1, persistent=False)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = [inputs[c] for c in CAMERAS]
        hidden, whole = self.qwen_vl_interface["model"].read(frames, inputs[TOKENS], inputs[MASK])
        seen = torch.cat([self.dino_pro(self.dino_encoder["body"](unit(f, *IMAGENET))) for f in frames], 1)
        keep = torch.cat([whole, torch.ones(1, seen.shape[1], dtype=torch.bool)], 1)
        condition = self.layer_qformer([torch.cat([hidden, seen], 1)], keep)
        predict = self.action_model["net"]
        action = self.sampler.denoise(lambda x, t: predict(x, t, condition), inputs[NOISE]).clamp(-1, 1)
        moved = 0.5 * (action + 1) * (self.q99 - self.q01) + self.q01
        return {"action": torch.where(self.is_gripper, (action >= 0.5).float(), moved)}


_QWEN, _DINO = "qwen_vl_interface.model.", "dino_encoder.body."


def places(module: nn.Module, files: TensorFiles) -> Places:
    def named(name: str) -> str:
        if name.startswith(_QWEN):
            return name.replace(f"{_QWEN}model.", f"{_QWEN}model.language_model.").replace(
                f"{_QWEN}visual.", f"{_QWEN}model.visual.")
        return name.replace(".scale_factor", ".gamma") if name.startswith(_DINO) else name

    return {n: (named(n),) for n in module.state_dict()}


def at_places(files: TensorFiles, rows: int) -> TensorFiles:
    """DINOv2's positions for rows x rows patches, between those of its own grid as its code interpolates; the class
    token has its own already."""
    name, token = f"{_DINO}pos_embed", f"{_DINO}cls_token"
    _, count, width = files.shapes[name]
    side = math.isqrt(count - 1)

    def positions() -> torch.Tensor:
        grid = files.read(name).float()[:, 1:].view(1, side, side, width).permute(0, 3, 1, 2)
        if side != rows:
            grid = F.interpolate(grid, scale_factor=(rows + OFFSET) / side, mode="bicubic")
        return grid.flatten(2).transpose(1, 2)

    made = {name: positions, token: lambda: files.read(token).float() + files.read(name).float()[:, :1]}
    shapes = {name: (1, rows**2, width), token: (1, 1, width)}
    return files.instead(TensorFiles(files.where, made, shapes), name)


def files_of(path: Path, module: InternVla) -> TensorFiles:
    return at_places(tensor_files(path), math.isqrt(module.dino_encoder["body"].tokens))


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else LARGE
    tokens, mask = words(LENGTH, sizes.language.vocabulary, 40)
    example = {TOKENS: tokens, MASK: mask, **{c: frame(sizes.side) for c in CAMERAS},
               NOISE: torch.randn(1, HORIZON, ACTION)}
    sources = {TOKENS: TASK, MASK: TASK, **dict.fromkeys(CAMERAS, FRAME), NOISE: STEP}
    return Policy("internvla_m1", InternVla(sizes).eval(), sources, example)


_PAPER = "arXiv 2510.13778"
SYSTEM = System(
    "InternVLA-M1", 2025, 26, f"{_PAPER}; InternRobotics/InternVLA-M1 949223b", make,
    says=("Qwen2.5-VL and DINOv2, learned queries, a diffusion transformer with guidance",),
    code="MIT", weights="MIT",
    checkpoint=Checkpoint(
        places=places, files=files_of, statistics=("q01", "q99", "*.before", "*.between"), unread=(
            f"{_QWEN}lm_head.weight", f"{_DINO}mask_token", "action_model.net.history_embedder.*")),
    published=(
        Published("parameters", 86.5, "M", "the diffusion transformer DiT-B, its configuration", "its code"),
        Published("memory", 12, "GB", "RTX 4090", "README of InternRobotics/InternVLA-M1"),
        Published("rate", 10, "replans/s, about", "RTX 4090, FlashAttention", "README of InternRobotics/InternVLA-M1"),
    ))
