"""Checks of a frame's range by a policy's own code, answered without reading the frame.

Processor steps and models ask whether a frame is in [0, 1] or in [0, 255] by its smallest and largest value, and branch
on the answer. A compiled policy's frames are bytes divided by 255, so that the answer is known: 0 and 1 stand for the
two values. `bounds_suffice` compares this with what the code does for frames that are black, white and neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_TENSOR = torch.Tensor
_SMALLEST = {torch.min, _TENSOR.min, torch.amin, _TENSOR.amin}
_LARGEST = {torch.max, _TENSOR.max, torch.amax, _TENSOR.amax}
# What these return holds the same values, or some of them, or copies.
_KEEPING = {_TENSOR.float, _TENSOR.to, _TENSOR.clone, _TENSOR.contiguous, _TENSOR.unsqueeze, _TENSOR.squeeze,
            _TENSOR.reshape, _TENSOR.view, _TENSOR.flatten, _TENSOR.permute, _TENSOR.movedim, _TENSOR.detach,
            torch.flip, _TENSOR.flip, _TENSOR.type, _TENSOR.cpu, _TENSOR.__getitem__, torch.unsqueeze, torch.as_tensor}


class KnownRange(TorchFunctionMode):
    """Within this mode, min() and max() over all elements of a frame are 0 and 1."""

    def __init__(self, frames: Iterable[torch.Tensor]):
        super().__init__()
        self.frames = {id(frame): frame for frame in frames}  # kept, so that an id stays one tensor's

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        known = bool(args) and id(args[0]) in self.frames
        if known and len(args) == 1 and not kwargs and func in _SMALLEST | _LARGEST:
            return torch.tensor(0.0 if func in _SMALLEST else 1.0)
        result = func(*args, **(kwargs or {}))
        if known and func in _KEEPING and isinstance(result, torch.Tensor) and result.is_floating_point():
            self.frames[id(result)] = result
        return result


def bounds_suffice(run: Callable[[dict[str, torch.Tensor]], dict], frame: dict[str, torch.Tensor],
                   images: frozenset[str]) -> bool:
    """run: frame -> what the preprocessor makes of it."""
    pictures = {n: frame[n] for n in images}
    for fill in (None, 0.0, 1.0, 0.4):
        given = frame | {n: x if fill is None else torch.full_like(x, fill) for n, x in pictures.items()}
        read = run(given)
        with KnownRange(given[n] for n in images):
            known = run(given)
        if any(isinstance(x, torch.Tensor) and not torch.equal(x, known[n]) for n, x in read.items()):
            return False
    return True
