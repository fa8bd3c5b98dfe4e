"""Policies whose weights are many and whose work is little: for the memory of a build."""

from __future__ import annotations

import torch
from torch import nn

import vlacompile as vc

WIDTH, HIDDEN, WORDS, STEPS = 1024, 4096, 8192, 3


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Sized(nn.Module):
    """Words, a frame and noise -> actions [1,8,7] by a short loop; depth: blocks of 8.4 M weights in each of the three
    parts."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.words, self.patches = nn.Embedding(WORDS, WIDTH), nn.Linear(768, WIDTH)
        self.language, self.vision, self.expert = (nn.Sequential(*(_Block() for _ in range(depth))) for _ in range(3))
        self.enter, self.leave = nn.Linear(7, WIDTH), nn.Linear(WIDTH, 7)

    def forward(self, instruction: torch.Tensor, image: torch.Tensor, noise: torch.Tensor) -> dict:
        said = self.language(self.words(instruction)).mean(1, keepdim=True)
        frame = image.float().unfold(1, 16, 16).unfold(2, 16, 16).reshape(1, 4, 768) / 255.0 - 0.5
        frame, noise = (x.to(self.leave.weight.dtype) for x in (frame, noise))
        seen = self.vision(self.patches(frame)).mean(1, keepdim=True)
        x = noise
        for _ in vc.iterations(STEPS):
            x = x + self.leave(self.expert(self.enter(x) + said + seen)) / STEPS
        return {"action": x.float()}


def sized(depth: int, dtype: torch.dtype = torch.float32) -> vc.Policy:
    torch.manual_seed(0)
    model = Sized(depth).eval().requires_grad_(False).to(dtype)
    example = {"instruction": torch.randint(0, WORDS, (1, 8)),
               "image": torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8), "noise": torch.randn(1, 8, 7)}
    sources = {"instruction": vc.Source("task"), "image": vc.Source("observation"), "noise": vc.Source("step")}
    return vc.Policy(f"sized-{depth}", model, sources, example)


def sixty_million() -> vc.Policy:
    return sized(2)


def sixty_million_in_bf16() -> vc.Policy:
    return sized(2, torch.bfloat16)


def small() -> vc.Policy:
    return sized(1)
