"""Masks that are known, where what they select from has no content: as places, whose number is then known too.

Weights without content give values without content. PyTorch reads how many elements a mask selects with the kind of
tensor that it selects from, and finds no number; the mask itself may be computed from sizes and tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

_INDEXED = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}


class KnownMasks(TorchFunctionMode):
    """Within this mode, indexing with a mask that has content is indexing with its places."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in _INDEXED and any(isinstance(a, FakeTensor) for a in args):
            args = (args[0], _places(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def _places(index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    if not any(map(_is_known_mask, parts)):
        return index
    return tuple(place for part in parts
                 for place in (part.nonzero(as_tuple=True) if _is_known_mask(part) else (part,)))


def _is_known_mask(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and not isinstance(part, FakeTensor) and part.dtype is torch.bool
