"""GR-1: a causal transformer over ten steps of language, state and the latents of two cameras, with queries for the
action and for future frames. Weights are named as in the authors' checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.vision_transformer import VisionSizes
from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks import mae
from vlacompile.zoo.blocks.clip import ClipText, TextSizes
from vlacompile.zoo.blocks.gpt2 import Gpt2
from vlacompile.zoo.blocks.inputs import FRAME, IMAGENET, PRESENT, STATE, TASK, TOKENS, frame, places
from vlacompile.zoo.blocks.perceiver import Perceiver
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.system import TINY, Published, System

BASE, HAND = "image.base", "image.hand"
WINDOW, ACTION, STATES, ARM, LATENTS = 10, 7, 7, 6, 9
PREDICTED = LATENTS + 1  # queries for a future frame
CONTENT = 2 + 2 * PREDICTED  # language, state, and of each camera its latents and its class token
TEXT = TextSizes()
STEP = CONTENT + 1 + 2 * PREDICTED  # the action's query comes behind the content


@dataclass(frozen=True)
class Sizes:
    """frames: sides of the cameras' frames, which are resized to that of `mae`. resampler: depth, heads, head_dim."""

    frames: dict[str, int] = field(default_factory=lambda: {BASE: 200, HAND: 84})
    width: int = 384
    depth: int = 12
    heads: int = 12
    text: TextSizes = TEXT
    mae: VisionSizes = mae.BASE
    resampler: tuple[int, int, int] = (3, 4, 128)


SMALL = Sizes({BASE: 28, HAND: 12}, 48, 2, 4, TextSizes(32, 2, 2, 77, 100, 24),
              replace(mae.BASE, width=32, depth=2, heads=2, hidden=128, side=32), (3, 2, 8))


class Gr1(nn.Module):
    """Ten frames u8 [1,10,H,W,3] of each of two cameras, ten states f32 [1,10,7] (pose of the arm, gripper -1 or 1),
    which of these steps there are since the episode began, bool [1,10], and token ids i64 [1,77] -> {"action": f32
    [1,1,7]}: change of the pose, gripper -1 or 1."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, width, seen = sizes, sizes.width, sizes.mae.width
        self.model_clip, self.model_mae = ClipText(sizes.text), mae.Mae(sizes.mae)
        self.perceiver_resampler = Perceiver(seen, *sizes.resampler, LATENTS)
        self.perceiver_resampler.media_pos_emb = nn.Parameter(torch.randn(1, 1, seen))
        self.transformer = Gpt2(width, sizes.depth, sizes.heads, F.relu)
        self.embed_arm_state, self.embed_gripper_state = nn.Linear(ARM, width), nn.Linear(2, width)
        self.embed_state, self.embed_lang = nn.Linear(2 * width, width), nn.Linear(sizes.text.out, width)
        self.embed_timestep = nn.Embedding(WINDOW, width)
        self.embed_img, self.embed_patch = nn.Linear(seen, width), nn.Linear(seen, width)
        self.embed_hand_img, self.embed_hand_patch = nn.Linear(seen, width), nn.Linear(seen, width)
        self.embed_ln = nn.LayerNorm(width)
        self.action_queries = nn.Embedding(1, width)
        self.obs_queries, self.obs_hand_queries = nn.Embedding(PREDICTED, width), nn.Embedding(PREDICTED, width)
        self.pred_act_mlps = nn.ModuleList([nn.Linear(width, width // 2), nn.Linear(width // 2, width // 2)])
        self.pred_arm_act, self.pred_gripper_act = nn.Linear(width // 2, ARM), nn.Linear(width // 2, 1)

    def _camera(self, frames: torch.Tensor, whole: nn.Linear, patch: nn.Linear) -> torch.Tensor:
        """-> [1,10,PREDICTED,width]"""
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in IMAGENET)
        side = self.sizes.mae.side
        pixels = F.interpolate(frames[0].permute(0, 3, 1, 2) / 255.0, (side, side), mode="bicubic")
        seen, patches = self.model_mae((pixels - mean) / std)
        latents = self.perceiver_resampler(patches + self.perceiver_resampler.media_pos_emb[0])
        return torch.cat([patch(latents), whole(seen)[:, None]], 1)[None]

    def _content(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """-> [1,10,CONTENT,width]"""
        text = self.model_clip(inputs[TOKENS])
        text = self.embed_lang(text / (text.norm(dim=1, keepdim=True) + 1e-6))
        state = inputs[STATE]
        open_or_closed = ((state[..., ARM] + 1.0) / 2).long()[..., None] == torch.arange(2)
        arm, gripper = self.embed_arm_state(state[..., :ARM]), self.embed_gripper_state(open_or_closed.float())
        tokens = [text.view(1, 1, 1, -1).expand(-1, WINDOW, -1, -1),
                  self.embed_state(torch.cat([arm, gripper], 2))[:, :, None],
                  self._camera(inputs[BASE], self.embed_img, self.embed_patch),
                  self._camera(inputs[HAND], self.embed_hand_img, self.embed_hand_patch)]
        return torch.cat(tokens, 2) + self.embed_timestep(places(inputs[PRESENT]))[None, :, None]

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        queries = [q.weight.view(1, 1, -1, self.sizes.width).expand(-1, WINDOW, -1, -1)
                   for q in (self.action_queries, self.obs_queries, self.obs_hand_queries)]
        x = torch.cat([self._content(inputs), *queries], 2).view(1, WINDOW * STEP, -1)
        seen = (torch.arange(STEP) < CONTENT).repeat(WINDOW)  # queries are seen by nobody
        earlier = torch.ones(WINDOW * STEP, WINDOW * STEP, dtype=torch.bool).tril()
        there = inputs[PRESENT][0, :, None].expand(-1, STEP).flatten()
        keep = earlier & seen & (there | ~there[:, None])  # what is not there sees others, and nobody sees it
        x = self.transformer(self.embed_ln(x), keep).view(1, WINDOW, STEP, -1)[:, :, CONTENT]
        for layer in self.pred_act_mlps:
            x = layer(x)
        arm, gripper = self.pred_arm_act(x), torch.sigmoid(self.pred_gripper_act(x)) > 0.5
        return {"action": torch.cat([arm, gripper.float() * 2.0 - 1.0], 2)[:, -1:]}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    words = torch.randint(1, sizes.text.vocabulary - 1, (1, 77)) * (torch.arange(77) < 9)
    words[:, 9] = sizes.text.vocabulary - 1  # the end
    gripper = torch.where(torch.arange(WINDOW) < 4, 1.0, -1.0)[None, :, None]
    example = {TOKENS: words, STATE: torch.cat([torch.randn(1, WINDOW, ARM), gripper], 2),
               PRESENT: torch.ones(1, WINDOW, dtype=torch.bool), **{
        camera: torch.stack([frame(side) for _ in range(WINDOW)], 1) for camera, side in sizes.frames.items()}}
    window = Source("observation", history=WINDOW)
    sources = {TOKENS: TASK, STATE: window, PRESENT: FRAME, BASE: window, HAND: window}
    return Policy("gr_1", Gr1(sizes).eval(), sources, example)


_PAPER = "arXiv 2312.13139"
SYSTEM = System(
    "GR-1", 2023, 5, f"{_PAPER}, github.com/bytedance/GR-1 4a2e956", make,
    says=("a causal transformer over ten steps of words, state and two cameras",),
    code="Apache-2.0", weights="Apache-2.0",
    checkpoint=Checkpoint(unread=(
        "mask_token", "decoder_*", "transformer.wte.weight", "transformer.h.*.attn.bias",  # masks, and future frames
        "transformer.h.*.attn.masked_bias", "model_clip.logit_scale", "model_clip.visual.*")),
    published=(
        Published("parameters", 195, "M", "of which 46 are trained", _PAPER),
        Published("success", 94.9, "% of first tasks", "CALVIN ABCD->D", _PAPER),
    ))
