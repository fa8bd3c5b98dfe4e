"""A product of fp16 matrices whose sums are f32, as a Triton kernel (the tutorial's scheme, one tile per program)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

TILE, DEPTH = 64, 64


@triton.jit
def _tile(a, b, out, wide, deep, TILE: tl.constexpr, DEPTH: tl.constexpr):  # noqa: N803
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    at = tl.arange(0, DEPTH)
    total = tl.zeros((TILE, TILE), dtype=tl.float32)
    for k in range(0, deep, DEPTH):
        total += tl.dot(tl.load(a + row[:, None] * deep + (k + at)[None, :]),
                        tl.load(b + (k + at)[:, None] * wide + column[None, :]))
    tl.store(out + row[:, None] * wide + column[None, :], total.to(tl.float16))


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """[rows, deep] x [deep, wide], fp16, contiguous, multiples of 64 -> [rows, wide], fp16."""
    (rows, deep), wide = a.shape, b.shape[1]
    assert not (rows % TILE or wide % TILE or deep % DEPTH)
    out = torch.empty(rows, wide, device=a.device, dtype=torch.float16)
    _tile[rows // TILE, wide // TILE](a, b, out, wide, deep, TILE=TILE, DEPTH=DEPTH)
    return out
