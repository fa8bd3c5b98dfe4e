"""RoboTron-Mani (RoboMM): pillars over the table read a fixed camera through its calibration, a resampler reads the
hand's, and a language model with gated cross-attention gives an action for the last of twelve steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.clip import ClipImage, ImageSizes
from vlacompile.zoo.blocks.deformable import CosineAttention, DeformableAttention
from vlacompile.zoo.blocks.inputs import FRAME, MASK, PRESENT, TASK, TOKENS, frame, places, words
from vlacompile.zoo.blocks.mpt import MptLayer, alibi
from vlacompile.zoo.blocks.perceiver import Perceiver, attend, feed_forward
from vlacompile.zoo.system import TINY, Published, System

BASE, HAND = "image.base", "image.hand"
BASE_CALIBRATION, HAND_CALIBRATION = "calibration.base", "calibration.hand"
WINDOW, TEXT, ACTION, HEIGHTS, POINTS, DEPTHS, FOCAL = 12, 32, 7, 5, 4, 4, 1.0
SPECIAL = 2  # <image> and <action> of every step
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LARGE = ImageSizes()


@dataclass(frozen=True)
class Sizes:
    """pillars: along each side of the table. cross: heads and their width, of cross-attention and the resampler."""

    vision: ImageSizes = LARGE
    pillars: int = 20
    layers: int = 2
    heads: int = 8
    latents: int = 64
    resampler: int = 6
    cross: tuple[int, int] = (8, 64)
    width: int = 2048
    depth: int = 24
    language_heads: int = 16
    vocabulary: int = 50432
    head: int = 1024


SMALL = Sizes(ImageSizes(32, 2, 2, 14, 28), 4, 2, 2, 4, 2, (2, 8), 32, 2, 4, 100, 16)


class PillarLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.self_attn = CosineAttention(width, heads)
        self.cross_attn = DeformableAttention(width, heads, HEIGHTS, POINTS)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: torch.Tensor, at: torch.Tensor, reference: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        x = self.norm2(x + self.self_attn(x + at, x))
        x = self.norm1(x + self.cross_attn(x + at, reference, source))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class CrossLayer(nn.Module):
    """Flamingo's gated cross-attention, before a layer of the language model."""

    def __init__(self, width: int, media: int, heads: int, head_dim: int):
        super().__init__()
        self.heads, inner = heads, heads * head_dim
        self.norm, self.ff = nn.LayerNorm(width), feed_forward(width)
        self.to_q, self.to_kv = nn.Linear(width, inner, bias=False), nn.Linear(media, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.attn_gate, self.ff_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, media: torch.Tensor) -> torch.Tensor:
        """x [steps,tokens,width] sees the media [steps,m,media] of its step."""
        k, v = self.to_kv(media).chunk(2, -1)
        x = x + self.to_out(attend(self.to_q(self.norm(x)), k, v, self.heads)) * self.attn_gate.tanh()
        return x + self.ff(x) * self.ff_gate.tanh()


class RoboTron(nn.Module):
    """Frames u8 [1,12,side,side,3] of two cameras; of the fixed one the projection f32 [1,12,3,4] from the table to its
    picture, of the hand's the pose f32 [1,12,3,4]; which of these steps there are since the episode began, bool [1,12];
    token ids i64 [1,32] and their mask -> {"action": f32 [1,1,7]}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, seen, width = sizes, sizes.vision.width, sizes.width
        self.vision_encoder = ClipImage(sizes.vision)
        self.query_embed = nn.Embedding(sizes.pillars**2, 2 * seen)
        self.pillars = nn.ModuleList(PillarLayer(seen, sizes.heads) for _ in range(sizes.layers))
        self.align = nn.Linear(seen, seen)
        self.position = nn.Sequential(nn.Linear(3 * DEPTHS, seen), nn.ReLU(), nn.Linear(seen, seen))
        self.perceiver = Perceiver(seen, sizes.resampler, *sizes.cross, sizes.latents)
        self.wte, self.special = nn.Embedding(sizes.vocabulary, width), nn.Embedding(SPECIAL, width)
        self.blocks = nn.ModuleList(MptLayer(width, sizes.language_heads) for _ in range(sizes.depth))
        self.cross = nn.ModuleList(CrossLayer(width, seen, *sizes.cross) for _ in range(sizes.depth))
        self.norm_f = nn.LayerNorm(width, bias=False)
        self.hidden = nn.Linear(width, sizes.head)
        self.arm, self.gripper = nn.Linear(sizes.head, ACTION - 1), nn.Linear(sizes.head, 1)
        side = torch.linspace(-0.5, 0.5, sizes.pillars)
        grid = torch.stack(torch.meshgrid(side, side, torch.linspace(-0.1, 1.1, HEIGHTS), indexing="ij"), -1)
        self.register_buffer("table", grid.view(-1, HEIGHTS, 3), persistent=False)

    def _patches(self, frames: torch.Tensor) -> torch.Tensor:
        """-> [12,tokens,width]"""
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
        return self.vision_encoder((frames[0].permute(0, 3, 1, 2) / 255.0 - mean) / std)[:, 1:]

    def _fixed(self, frames: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
        """-> [12,pillars,width]"""
        patches = self._patches(frames)
        side = self.sizes.vision.side // self.sizes.vision.patch
        source = patches.transpose(1, 2).reshape(len(patches), -1, side, side)
        in_picture = self.table @ projection[:, None, :, :3].transpose(2, 3) + projection[:, None, None, :, 3]
        depth = in_picture[..., 2:]
        # behind the camera: outside of the picture
        reference = torch.where(depth > 1e-3, in_picture[..., :2] / depth.clamp(min=1e-3), -1.0)
        at, x = self.query_embed.weight[None].chunk(2, -1)
        for layer in self.pillars:
            x = layer(x, at, reference, source)
        return self.align(x)

    def _hand(self, frames: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        """-> [12,latents,width]: every patch knows where its ray is on the table's axes."""
        patches = self._patches(frames)
        n = self.sizes.vision.side // self.sizes.vision.patch
        at = (torch.arange(n) + 0.5) / n - 0.5
        ray = torch.stack(torch.meshgrid(at / FOCAL, at / FOCAL, torch.ones(1), indexing="ij"), -1).view(-1, 1, 3)
        points = ray * torch.linspace(0.1, 1.0, DEPTHS)[:, None]  # [tokens,DEPTHS,3]
        points = points @ pose[:, None, :, :3].transpose(2, 3) + pose[:, None, None, :, 3]
        return self.perceiver(patches + self.position(points.flatten(2)))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        media = torch.cat([self._fixed(inputs[BASE], inputs[BASE_CALIBRATION][0]),
                           self._hand(inputs[HAND], inputs[HAND_CALIBRATION][0])], 1)
        steps = self.special.weight[None].expand(WINDOW, -1, -1).reshape(1, WINDOW * SPECIAL, -1)
        x = torch.cat([self.wte(inputs[TOKENS]), steps], 1)
        n, present = x.shape[1], inputs[PRESENT]
        shown = torch.cat([inputs[MASK], present.repeat_interleave(SPECIAL, 1)], 1)
        earlier = torch.ones(n, n, dtype=torch.bool).tril() & shown[:, None] | torch.eye(n, dtype=torch.bool)
        behind = TEXT + (places(present)[:, None] * SPECIAL + torch.arange(SPECIAL)).flatten()  # the words
        bias = alibi(earlier, torch.cat([torch.arange(TEXT), behind]), self.sizes.language_heads)
        for cross, block in zip(self.cross, self.blocks, strict=True):
            after = cross(x[:, TEXT:].reshape(WINDOW, SPECIAL, -1), media)  # no picture comes before the words
            x = block(torch.cat([x[:, :TEXT], after.reshape(1, WINDOW * SPECIAL, -1)], 1), bias)
        made = F.relu(self.hidden(self.norm_f(x)[:, -1:]))
        gripper = torch.sigmoid(self.gripper(made)) > 0.5
        return {"action": torch.cat([torch.tanh(self.arm(made)), gripper.float() * 2 - 1], -1)}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    tokens, mask = words(TEXT, sizes.vocabulary, 9)
    look = torch.tensor([[0.6, 0.0, 0.5, 0.6], [0.0, 0.6, 0.5, 0.6], [0.0, 0.0, 1.0, 1.2]])
    pose = torch.cat([torch.linalg.qr(torch.randn(3, 3))[0], torch.randn(3, 1) * 0.3], 1)
    example = {TOKENS: tokens, MASK: mask, PRESENT: torch.ones(1, WINDOW, dtype=torch.bool),
               BASE_CALIBRATION: look.expand(1, WINDOW, -1, -1).clone(),
               HAND_CALIBRATION: pose.expand(1, WINDOW, -1, -1).clone(), **{
                   c: torch.stack([frame(sizes.vision.side) for _ in range(WINDOW)], 1) for c in (BASE, HAND)}}
    window = Source("observation", history=WINDOW)
    fixed = Source("static") if variant == "fixed" else Source("task", history=WINDOW)
    return Policy("robotron_mani", RoboTron(sizes).eval(), {
        TOKENS: TASK, MASK: TASK, PRESENT: FRAME, BASE: window, HAND: window, BASE_CALIBRATION: fixed,
        HAND_CALIBRATION: window}, example)


_PAPER = "arXiv 2412.07215"
SYSTEM = System(
    "RoboTron-Mani", 2024, 29, f"{_PAPER}, github.com/RoboUniview/RoboMM b9259bb", make,
    says=("the calibration of the fixed camera is constant", "the calibration of the fixed camera is an input"),
    variants=("fixed", "calibrated"),
    assumptions=(
        "the authors' code has no licence and many options: one camera on pillars and one on the hand, 20 x 20 pillars "
        "with 5 heights, features of CLIP's last layer alone",
        "the instruction comes first, then <image> and <action> of every step, which see their own pictures alone; an "
        "episode begins with one step, as the authors' evaluation does",
        "positions in the hand's pictures: a ray's points at 4 depths through two linear layers, after PETR",
        "lenses without distortion; 32 tokens of text",
    ),
    published=(Published("success", 3.3, "tasks in a row", "CALVIN, mean of chains of five", _PAPER),))
