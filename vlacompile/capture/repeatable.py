"""A call that is repeated must give the same: otherwise the function keeps something, or draws random numbers.

Finds the policy's line where what its modules hold changes. Must not know graphs.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from vlacompile.capture.export import capture
from vlacompile.lines import line_text
from vlacompile.capture.state import KEEP_NOTHING
from vlacompile.errors import CaptureError
from vlacompile.policy import Policy

_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")
LAST_BITS = 1e-5  # of the largest number
_MANY = 64  # elements of a container that are compared


def call(policy: Policy) -> dict[str, torch.Tensor]:
    """What the inference function returns for the example inputs, into which it may write."""
    with torch.no_grad():
        return policy.infer(**{n: t.detach().clone() for n, t in policy.example_inputs.items()})


def require_repeatable(policy: Policy, first: Mapping[str, torch.Tensor], modules: Mapping[str, nn.Module]) -> None:
    """first: what an earlier call gave. Raises CaptureError where another one gives something else."""
    again = call(policy)
    other = next((n for n in policy.outputs if not _same(again[n], first[n])), None)
    if other is None:
        return
    line = line_that_changes(policy, modules)
    if not line:
        capture(policy, whole=True)  # names the line that draws random numbers
    raise CaptureError(
        f'two calls with the same inputs give another "{other}"', where=f'Policy "{policy.name}"' + (f", {line}" if line else ""),
        why="that line changes what the policy's modules hold, which the next call reads" if line else
        "the function draws random numbers, or keeps something from one call to the next",
        fix=KEEP_NOTHING if line else "make the random numbers an input: vlacompile.Source(\"step\"), as the noise of a sampler")


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """But for the order in which several threads add."""
    if one.shape != other.shape or not one.is_floating_point():
        return torch.equal(one, other)
    a, b = one.double().nan_to_num(), other.double().nan_to_num()
    return bool((a - b).abs().max() <= LAST_BITS * a.abs().max()) if a.numel() else True


def line_that_changes(policy: Policy, modules: Mapping[str, nn.Module]) -> str:
    """The first line in a call that changes what a module holds beside its weights; "" where none does."""
    every = [m for top in modules.values() for m in top.modules()]
    before = [_contents(vars(m)) for m in every]
    call(policy)
    changing = [m for m, old in zip(every, before, strict=True) if _contents(vars(m)) != old]
    return _watched(policy, changing) if changing else ""


def _watched(policy: Policy, changing: list[nn.Module]) -> str:
    held = [_contents(vars(m)) for m in changing]
    last, found = ("", 0), ""

    def look(frame: FrameType, event: str, argument):
        nonlocal last, found
        if found or frame.f_code.co_filename.startswith(_LIBRARIES):
            return None  # of a library's code, the policy's line that called it counts
        if last[0] and [_contents(vars(m)) for m in changing] != held:
            found = line_text(*last, linecache.getline(*last))
            return None
        last = frame.f_code.co_filename, frame.f_lineno
        return look

    old = sys.gettrace()
    sys.settrace(look)
    try:
        call(policy)
    finally:
        sys.settrace(old)
    return found


def _contents(value, depth: int = 0):
    """What tells whether `value` was changed or written into."""
    if isinstance(value, torch.Tensor):
        return id(value), None if value.is_inference() else value._version
    if isinstance(value, (int, float, str, bool, type(None))):
        return value
    if isinstance(value, Mapping) and depth < 4:
        return tuple((str(k), _contents(v, depth + 1)) for k, v in list(value.items())[:_MANY] if k not in ("_modules", "_parameters"))
    if hasattr(value, "__len__") and hasattr(value, "__iter__") and depth < 4:
        return len(value), tuple(_contents(v, depth + 1) for v in list(value)[:_MANY])
    return id(value)
