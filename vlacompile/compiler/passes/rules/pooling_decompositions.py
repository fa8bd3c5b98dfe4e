"""Adaptive pooling, written with moves and reductions: windows whose number is given, and which overlap where the size
does not divide. The functions hold no tensors of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_POOLS = {1: _ATEN.max_pool2d_with_indices.default, 2: _ATEN.max_pool2d_with_indices.default,
          3: _ATEN.max_pool3d_with_indices.default}


def _places(size: int, out: int) -> Tensor:
    """i64[out,widest]: the positions of each window; the last one again where a window is narrower."""
    number = torch.arange(out)
    begin = torch.div(number * size, out, rounding_mode="trunc")
    end = torch.div((number + 1) * size + out - 1, out, rounding_mode="trunc")
    widest = max(-(-(i + 1) * size // out) - i * size // out for i in range(out))
    return torch.minimum(begin.unsqueeze(1) + torch.arange(widest), end.unsqueeze(1) - 1)


def _windows(x: Tensor, sizes: list[int]) -> Tensor:
    """[..., out per axis, elements of a window], in the order in which PyTorch looks at them."""
    dims, lead = len(sizes), x.dim() - len(sizes)
    for k, out in enumerate(sizes):
        axis = lead + 2 * k
        places = _places(x.shape[axis], out)
        x = x.index_select(axis, places.reshape(-1)).unflatten(axis, places.shape)
    order = [*range(lead), *(lead + 2 * k for k in range(dims)), *(lead + 2 * k + 1 for k in range(dims))]
    return x.permute(order).flatten(lead + dims)


def _adaptive_max(dims: int) -> Callable:
    def pool(x: Tensor, output_size: list[int]) -> tuple[Tensor, Tensor]:
        sizes = [n if s is None else s for s, n in zip(output_size, x.shape[-dims:], strict=True)]
        if dims > 1 and all(n % s == 0 for s, n in zip(sizes, x.shape[-dims:], strict=True)):
            kernel = [n // s for s, n in zip(sizes, x.shape[-dims:], strict=True)]
            return _POOLS[dims](x, kernel, kernel)
        windows = _windows(x, sizes)
        which = windows.argmax(-1, keepdim=True)
        places = torch.arange(x.shape[-dims:].numel()).reshape(x.shape[-dims:])
        places = _windows(places, sizes).expand(windows.shape)
        return windows.amax(-1), places.gather(-1, which).squeeze(-1)

    return pool


def _adaptive_avg(dims: int) -> Callable:
    def pool(x: Tensor, output_size: list[int]) -> Tensor:
        """Columns first; a mean of means, as windows are boxes."""
        for axis in range(-1, -dims - 1, -1):
            out = output_size[axis]
            if out is None or out == x.shape[axis]:
                continue
            places = _places(x.shape[axis], out)
            size = places.shape[1]
            at = x.dim() + axis
            # A position that only fills up a window counts nothing.
            own = torch.ones_like(places[:, :1])
            new = torch.cat([own, (places[:, 1:] != places[:, :-1]).long()], 1) if size > 1 else own
            weights = (new / new.sum(1, keepdim=True)).to(x.dtype)
            picked = x.index_select(at, places.reshape(-1)).unflatten(at, places.shape)
            x = (picked * weights.reshape(*weights.shape, *(1,) * (-axis - 1))).sum(at + 1)
        return x

    return pool


POOLING = {
    _ATEN.adaptive_max_pool1d.default: _adaptive_max(1),
    _ATEN.adaptive_max_pool2d.default: _adaptive_max(2),
    _ATEN.adaptive_max_pool3d.default: _adaptive_max(3),
    _ATEN._adaptive_avg_pool3d.default: _adaptive_avg(3),
    _ATEN.adaptive_avg_pool3d.default: _adaptive_avg(3),
}
