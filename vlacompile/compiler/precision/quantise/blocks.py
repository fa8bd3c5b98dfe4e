"""4-bit weights with one scale per block of elements along K: rounding, and the search for scales.

Stored values are -8..7: kernels of TensorRT and ONNX Runtime use all sixteen. Scales are positive, so a block whose
largest magnitude is negative gets a finer one. Works on matrices; must not know graphs.
"""

from __future__ import annotations

import torch

LOWEST, HIGHEST = -8, 7
SHRINKS = tuple(1 - 0.04 * i for i in range(13))  # factors of a block's scale that the search tries: 1 .. 0.52
_SMALLEST = torch.finfo(torch.float32).tiny * 16  # division by it stays finite in fp32


def block_scales(weight: torch.Tensor, block: int) -> torch.Tensor:
    """The smallest scale without clipping: f32[N,K] -> f32[N,ceil(K/block)]; the last block may be shorter. A block of
    zeros has the smallest there is: an engine that takes the offset of the digits off a sum of products afterwards is
    off by 1e-7 of the scale times that sum."""
    blocks = _blocks(weight, block)
    scale = torch.maximum(blocks.amax(-1) / HIGHEST, blocks.amin(-1) / LOWEST)
    return scale.clamp(min=_SMALLEST)


def round_blocks(weight: torch.Tensor, scale: torch.Tensor, block: int) -> torch.Tensor:
    """int8[N,K] in -8..7, rounded to nearest."""
    wide = scale.repeat_interleave(block, 1)[:, : weight.shape[1]]
    return (weight / wide).round_().clamp_(LOWEST, HIGHEST).to(torch.int8)


def searched_scales(weight: torch.Tensor, block: int, importance: torch.Tensor) -> torch.Tensor:
    """Per block the shrunken scale with the least square error, columns weighted by `importance` f32[K] (the mean
    square of their inputs). Clips a block's outliers where that reduces the error (as the clipping of AWQ, Lin et al.
    2023, section 4, with the block's own error instead of the layer's output)."""
    widest = block_scales(weight, block)
    blocks, weigh = _blocks(weight, block), _blocks(importance[None], block)
    best, found = torch.full_like(widest, torch.inf), widest
    for shrink in SHRINKS:
        scale = (widest * shrink).clamp(min=_SMALLEST)
        rounded = (blocks / scale[..., None]).round_().clamp_(LOWEST, HIGHEST).mul_(scale[..., None])
        error = ((rounded - blocks).square_() * weigh).sum(-1)
        better = error < best
        best, found = torch.where(better, error, best), torch.where(better, scale, found)
    return found


def _blocks(weight: torch.Tensor, block: int) -> torch.Tensor:
    """[N,K] -> [N,ceil(K/block),block], padded with zeros, which change neither scales nor errors."""
    short = -weight.shape[1] % block
    return torch.nn.functional.pad(weight, (0, short)).unflatten(1, (-1, block))
