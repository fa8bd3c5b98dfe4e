"""Checks that the result of a call does not depend on earlier calls.

Finds the line of the policy that changes its state. Must not know graphs.
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
LAST_BITS = 1e-5  # relative to the largest magnitude


def call(policy: Policy, inputs: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Calls the inference function on copies (it may write into its inputs); inputs: by default the example inputs."""
    with torch.no_grad():
        return policy.infer(**{n: t.detach().clone()
                               for n, t in (policy.example_inputs if inputs is None else inputs).items()})


def require_repeatable(policy: Policy, first: Mapping[str, torch.Tensor], held: Held) -> None:
    """first: the result of an earlier call. held: state saved before that call. Raises CaptureError if a second call,
    or a call after one with other inputs, returns something else."""
    left = held.changed()
    other = _differing_output(policy, call(policy), first)
    if other is not None:
        raise _differs(policy, other, held)
    if left and _depends_on_earlier_inputs(policy, first, held):
        held.restore()
        line = _line_that_changes(policy, held)
        raise CaptureError(
            "the inference function keeps what it computed from its inputs", where=_where(policy, line),
            why="a call returns something else after one with other inputs", fix=KEEP_NOTHING)


def _depends_on_earlier_inputs(policy: Policy, first: Mapping[str, torch.Tensor], held: Held) -> bool:
    """Whether the result of a call changes if the call before it had other inputs, starting from the saved state."""
    held.restore()
    try:
        call(policy,
             {n: t if policy.sources[n].update == "static" else _other(t) for n, t in policy.example_inputs.items()})
        found = _differing_output(policy, call(policy), first) is not None
    except Exception:  # noqa: BLE001  whatever the policy raises: it may accept no inputs but its example
        found = False
    held.restore()
    call(policy)
    return found


def _differing_output(policy: Policy, one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> str | None:
    return next((n for n in policy.outputs if not _same(one[n], other[n])), None)


def _other(example: torch.Tensor) -> torch.Tensor:
    if example.is_floating_point():
        return example * 0.5 + 0.25
    return example.reshape(-1).roll(1).reshape(example.shape)


def _differs(policy: Policy, output: str, held: Held) -> CaptureError:
    line = _line_that_changes(policy, held)
    if not line:
        capture(policy, whole=True)  # raises with the line that draws random numbers
    return CaptureError(
        f'two calls with the same inputs give another "{output}"', where=_where(policy, line),
        why="that line changes what the next call reads" if line else
        "the function draws random numbers outside PyTorch, or keeps state in a place that cannot be inspected",
        fix=KEEP_NOTHING if line
        else f'random numbers: make them an input, vlacompile.Source("step"). State: {KEEP_NOTHING}')


def _where(policy: Policy, line: str) -> str:
    return f'Policy "{policy.name}"' + (f", {line}" if line else "")


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to rounding: the order in which threads sum is not fixed."""
    if one.shape != other.shape or not one.is_floating_point():
        return torch.equal(one, other)
    a, b = one.double().nan_to_num(), other.double().nan_to_num()
    return bool((a - b).abs().max() <= LAST_BITS * a.abs().max()) if a.numel() else True


def _line_that_changes(policy: Policy, held: Held) -> str:
    """The first line in a call that changes the held state; "" if none does. Watches only the state that calls
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
            return None  # library code: the policy's line that called it is reported
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
