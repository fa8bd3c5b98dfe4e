"""A call must give the same whatever calls were made before it.

Finds the policy's line where what it holds changes. Must not know graphs.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import torch

from vlacompile.compiler.capture.buffer_state import KEEP_NOTHING
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.held_state import Held
from vlacompile.errors import CaptureError
from vlacompile.policy.policy import Policy
from vlacompile.policy.source_lines import line_text

_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), "<")
LAST_BITS = 1e-5  # of the largest number


def call(policy: Policy, inputs: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """What the inference function returns, for the example inputs where none are given; it may write into them."""
    with torch.no_grad():
        return policy.infer(**{n: t.detach().clone()
                               for n, t in (policy.example_inputs if inputs is None else inputs).items()})


def require_repeatable(policy: Policy, first: Mapping[str, torch.Tensor], held: Held) -> None:
    """first: what an earlier call gave. held: saved before it. Raises CaptureError where another call gives something
    else, or does so after a call with else after a call with other inputs."""
    left = held.changed()
    other = _that_differs(policy, call(policy), first)
    if other is not None:
        raise _differs(policy, other, held)
    if left and _hears_of_others(policy, first, held):
        held.restore()
        line = _line_that_changes(policy, held)
        raise CaptureError(
            "the inference function keeps what it computed from its inputs", where=_where(policy, line),
            why="a call gives something else after one with other inputs", fix=KEEP_NOTHING)


def _hears_of_others(policy: Policy, first: Mapping[str, torch.Tensor], held: Held) -> bool:
    """Whether a call gives something else where the one before it was with other inputs, from the beginning."""
    held.restore()
    try:
        call(policy,
             {n: t if policy.sources[n].update == "static" else _other(t) for n, t in policy.example_inputs.items()})
        found = _that_differs(policy, call(policy), first) is not None
    except Exception:  # noqa: BLE001  whatever the policy raises: other inputs than its example may be none
        found = False
    held.restore()
    call(policy)
    return found


def _that_differs(policy: Policy, one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> str | None:
    return next((n for n in policy.outputs if not _same(one[n], other[n])), None)


def _other(example: torch.Tensor) -> torch.Tensor:
    if example.is_floating_point():
        return example * 0.5 + 0.25
    return example.reshape(-1).roll(1).reshape(example.shape)


def _differs(policy: Policy, output: str, held: Held) -> CaptureError:
    line = _line_that_changes(policy, held)
    if not line:
        capture(policy, whole=True)  # names the line that draws random numbers
    return CaptureError(
        f'two calls with the same inputs give another "{output}"', where=_where(policy, line),
        why="that line changes what the next call reads" if line else
        "the function draws random numbers outside PyTorch, or keeps something where only it knows",
        fix=KEEP_NOTHING if line
        else f'random numbers: make them an input, vlacompile.Source("step"). State: {KEEP_NOTHING}')


def _where(policy: Policy, line: str) -> str:
    return f'Policy "{policy.name}"' + (f", {line}" if line else "")


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """But for the order in which several threads add."""
    if one.shape != other.shape or not one.is_floating_point():
        return torch.equal(one, other)
    a, b = one.double().nan_to_num(), other.double().nan_to_num()
    return bool((a - b).abs().max() <= LAST_BITS * a.abs().max()) if a.numel() else True


def _line_that_changes(policy: Policy, held: Held) -> str:
    """The first line in a call that changes what is held; "" where none does. Looks at no more than what calls
    change."""
    held.save()
    call(policy)
    held.narrow()
    if not held.places:
        return ""
    held.restore()
    held.save()
    last, found = ("", 0), ""

    def look(frame: FrameType, event: str, argument):
        nonlocal last, found
        if found or frame.f_code.co_filename.startswith(_LIBRARIES):
            return None  # of a library's code, the policy's line that called it counts
        if last[0] and held.changed():
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
