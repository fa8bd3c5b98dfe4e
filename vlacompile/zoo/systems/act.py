"""ACT: chunks of joint positions from four cameras and the arms' state, without language. Weights are named as in the
authors' `policy_best.ckpt`, without its prefix `model.`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.inputs import FRAME, IMAGENET, STATE, frame, unit
from vlacompile.zoo.blocks.resnet import ResNet
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = tuple(f"image.cam_{name}" for name in ("high", "low", "left_wrist", "right_wrist"))
HORIZON, ACTION, STATES, LATENT = 100, 14, 14, 32
DECAY = 0.01  # of temporal ensembling


@dataclass(frozen=True)
class Sizes:
    height: int = 480
    breadth: int = 640
    vision: int = 64
    width: int = 512
    heads: int = 8
    hidden: int = 3200
    encoder: int = 4
    decoder: int = 7


SMALL = Sizes(96, 128, 8, 32, 4, 64, encoder=2, decoder=2)


def places(height: int, breadth: int, width: int) -> torch.Tensor:
    """Sines and cosines of rows, then of columns (Carion et al. 2020, arXiv 2005.12872): [1,width,height,breadth]."""
    axes, half = [], width // 2
    for count in (height, breadth):
        angle = torch.arange(1, count + 1, dtype=torch.float32) / (count + 1e-6) * 2 * math.pi
        period = 10000 ** (2 * (torch.arange(half) // 2) / half)
        angles = angle[:, None] / period
        axes.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], -1).flatten(1))
    rows, columns = axes
    grid = [rows[:, None].expand(-1, breadth, -1), columns[None].expand(height, -1, -1)]
    return torch.cat(grid, -1).permute(2, 0, 1)[None]


class EncoderLayer(nn.Module):
    """Norms follow their residuals; places are added to queries and keys only."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.width
        self.self_attn = nn.MultiheadAttention(width, sizes.heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, sizes.hidden), nn.Linear(sizes.hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.self_attn(x + at, x + at, x, need_weights=False)[0])
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DecoderLayer(EncoderLayer):
    def __init__(self, sizes: Sizes):
        super().__init__(sizes)
        self.multihead_attn = nn.MultiheadAttention(sizes.width, sizes.heads, batch_first=True)
        self.norm3 = nn.LayerNorm(sizes.width)

    def forward(self, x: torch.Tensor, at: torch.Tensor, memory: torch.Tensor, memory_at: torch.Tensor) \
            -> torch.Tensor:
        x = self.norm1(x + self.self_attn(x + at, x + at, x, need_weights=False)[0])
        x = self.norm2(x + self.multihead_attn(x + at, memory + memory_at, memory, need_weights=False)[0])
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class Stack(nn.Module):
    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Transformer(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.encoder = Stack([EncoderLayer(sizes) for _ in range(sizes.encoder)])
        self.decoder = Stack([DecoderLayer(sizes) for _ in range(sizes.decoder)])
        self.decoder.norm = nn.LayerNorm(sizes.width)

    def forward(self, x: torch.Tensor, at: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """x, at [1,n,width] -> [layers,1,H,width], of every decoder layer."""
        for layer in self.encoder.layers:
            x = layer(x, at)
        made, out = torch.zeros_like(queries), []
        for layer in self.decoder.layers:
            made = layer(made, queries, x, at)
            out.append(self.decoder.norm(made))
        return torch.stack(out)


class Act(nn.Module):
    """Frames u8 [1,H,W,3] of four cameras and the state f32 [1,14] -> the chunk {"action": f32 [1,100,14]}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.width
        vision = ResNet(18, sizes.vision)
        self.backbones = nn.ModuleList([nn.ModuleList([nn.ModuleDict({"body": vision})])])
        self.input_proj = nn.Conv2d(vision.channels, width, 1)
        self.input_proj_robot_state = nn.Linear(STATES, width)
        self.latent_out_proj = nn.Linear(LATENT, width)
        self.additional_pos_embed = nn.Embedding(2, width)  # of the latent and of the state
        self.query_embed = nn.Embedding(HORIZON, width)
        self.transformer = Transformer(sizes)
        self.action_head, self.is_pad_head = nn.Linear(width, ACTION), nn.Linear(width, 1)
        # the posterior of the CVAE, which only training asks
        self.encoder = Stack([EncoderLayer(sizes) for _ in range(sizes.encoder)])
        self.cls_embed, self.latent_proj = nn.Embedding(1, width), nn.Linear(width, 2 * LATENT)
        self.encoder_action_proj, self.encoder_joint_proj = nn.Linear(ACTION, width), nn.Linear(STATES, width)
        grid = places(sizes.height // 32, sizes.breadth // 32, width)
        self.register_buffer("grid", grid, persistent=False)
        # dataset_stats.pkl; the authors clip deviations to 0.01 at least
        for name, count in (("qpos", STATES), ("action", ACTION)):
            self.register_buffer(f"{name}_mean", torch.linspace(-0.4, 0.6, count), persistent=False)
            self.register_buffer(f"{name}_std", torch.linspace(0.01, 1.2, count), persistent=False)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        body = self.backbones[0][0]["body"]
        seen = torch.cat([self.input_proj(body(unit(inputs[c], *IMAGENET))) for c in CAMERAS], 3)  # side by side
        at = torch.cat([self.grid] * len(CAMERAS), 3)
        latent = self.latent_out_proj(torch.zeros(1, LATENT))  # the prior's mean
        state = self.input_proj_robot_state((inputs[STATE] - self.qpos_mean) / self.qpos_std)
        x = torch.cat([latent[:, None], state[:, None], seen.flatten(2).transpose(1, 2)], 1)
        at = torch.cat([self.additional_pos_embed.weight[None], at.flatten(2).transpose(1, 2)], 1)
        # The authors index the layers where they mean the batch: only the first decoder layer is heard.
        heard = self.transformer(x, at, self.query_embed.weight[None])[0]
        self.is_pad_head(heard)
        return {"action": self.action_head(heard) * self.action_std + self.action_mean}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    example = {**{c: frame(sizes.height, sizes.breadth) for c in CAMERAS}, STATE: torch.randn(1, STATES)}
    return Policy("act", Act(sizes).eval(), dict.fromkeys(example, FRAME), example, ensemble=DECAY)


_PAPER = "arXiv 2304.13705"
SYSTEM = System(
    "ACT", 2023, 7, f"{_PAPER}, github.com/tonyzhaozh/act 742c753", make,
    says=("joint positions of two arms in chunks of 100, from four cameras, without language",),
    code="MIT",
    checkpoint=Checkpoint({"": "model."}, unread=("model.pos_table",),
                          statistics=("qpos_*", "action_mean", "action_std")),
    published=(
        Published("parameters", 80, "M", "with the encoder that only training needs", _PAPER),
        Published("rate", 50, "actions/s", "two arms, 14 joints", _PAPER),
    ))
