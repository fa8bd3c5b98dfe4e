"""Ops that put elements where others say, written with ops that all engines have. The functions hold no tensors of
their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_SUM, _MEAN, _MAX = range(3)


def masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The n-th position of the mask takes the n-th element: a choice, as the mask says which n it is."""
    mask = mask.expand(x.shape)
    number = mask.reshape(-1).to(torch.int64).cumsum(0) - 1
    taken = source.reshape(-1).index_select(0, number.clamp(0, source.numel() - 1)).reshape(x.shape)
    return torch.where(mask, taken, x)


def put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Elements of the flattened tensor, counted from the back where an index is negative."""
    index = index.reshape(-1)
    index = torch.where(index < 0, index + x.numel(), index)
    return x.reshape(-1).index_put([index], source.reshape(-1), accumulate).reshape(x.shape)


def diagonal_scatter(x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A choice between x and the elements of the diagonal, each spread over its row, or its column."""
    moved = x.movedim((dim1, dim2), (-2, -1))
    rows, columns = moved.shape[-2:]
    mask = torch.arange(rows).unsqueeze(1) + offset == torch.arange(columns)
    left = (rows if offset >= 0 else columns) - source.shape[-1]
    spread = torch.nn.functional.pad(source, (0, left)).unsqueeze(-1 if offset >= 0 else -2)
    return torch.where(mask, spread, moved).movedim((-2, -1), (dim1, dim2))


def embedding_bag(weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool = False, mode: int = _SUM,
                  sparse: bool = False, per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By which bag each index is in; bags may be empty. Of the four results only the first is the policy's."""
    bags = offsets.shape[0] - int(include_last_offset)
    place = torch.arange(indices.shape[0]).to(offsets.dtype)
    last = offsets.unsqueeze(1) <= place  # [bags,indices]: not before the bag
    if include_last_offset:
        inside = last[:-1] & last[1:].logical_not()
    else:
        after = torch.cat([last[1:], torch.zeros_like(last[:1])])
        inside = last & after.logical_not()
    if padding_idx is not None and padding_idx >= 0:
        inside = inside & (indices != padding_idx)
    rows = weight.index_select(0, indices)
    if mode == _MAX:
        held = torch.where(inside.unsqueeze(-1), rows, -math.inf).amax(1)
        found = torch.where(inside.any(1, keepdim=True), held, 0.0)
    else:
        rows = rows if per_sample_weights is None else rows * per_sample_weights.unsqueeze(1)
        found = torch.matmul(inside.to(rows.dtype), rows)
        if mode == _MEAN:
            found = found / inside.sum(1, keepdim=True).clamp(min=1)
    nothing = torch.zeros(bags, dtype=torch.int64)
    return found, nothing, nothing, nothing


def col2im(x: Tensor, output_size: list[int], kernel_size: list[int], dilation: list[int], padding: list[int],
           stride: list[int]) -> Tensor:
    """A sum of the blocks, each position of the kernel for all blocks at once."""
    batched = x if x.dim() == 3 else x.unsqueeze(0)
    (height, width), (kh, kw) = output_size, kernel_size
    padded = height + 2 * padding[0], width + 2 * padding[1]
    rows, columns = ((n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(padded, dilation, kernel_size, stride,
                                                                         strict=True))
    blocks = batched.reshape(batched.shape[0], -1, kh, kw, rows, columns)
    found = torch.zeros((*blocks.shape[:2], *padded), dtype=x.dtype)
    for i in range(kh):
        for j in range(kw):
            spread = _spread(_spread(blocks[:, :, i, j], 2, stride[0], i * dilation[0], padded[0]), 3, stride[1],
                             j * dilation[1], padded[1])
            found = found + spread
    found = found[:, :, padding[0]:padded[0] - padding[0], padding[1]:padded[1] - padding[1]]
    return found if x.dim() == 3 else found.squeeze(0)


def _spread(x: Tensor, dim: int, step: int, begin: int, size: int) -> Tensor:
    """x at begin, begin + step, ... of an axis of zeros."""
    count = x.shape[dim]
    if step > 1:
        gaps = torch.zeros((*x.shape[:dim + 1], step - 1, *x.shape[dim + 1:]), dtype=x.dtype)
        x = torch.cat([x.unsqueeze(dim + 1), gaps], dim + 1).flatten(dim, dim + 1)
        x = x.narrow(dim, 0, (count - 1) * step + 1)
    behind = size - begin - x.shape[dim]
    pad = [0, 0] * (x.dim() - dim - 1) + [begin, behind]
    return torch.nn.functional.pad(x, pad)


SCATTERS = {
    _ATEN.diagonal_scatter.default: diagonal_scatter,
    _ATEN.masked_scatter.default: masked_scatter,
    _ATEN.put.default: put,
    _ATEN.embedding_bag.default: embedding_bag,
    _ATEN.embedding_bag.padding_idx: embedding_bag,
    _ATEN._embedding_bag.default: embedding_bag,
    _ATEN._embedding_bag_forward_only.default: embedding_bag,
    _ATEN.col2im.default: col2im,
}
