"""Checks that the result of a call does not depend on earlier calls.

Finds the line of the policy that changes its state. Must not know graphs.
"""

from __future__ import annotations

import datetime as dt
import linecache
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from vlacompile.compiler.capture.buffer_state import KEEP_NOTHING
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.held_state import Held
from vlacompile.policy.policy import Policy
from vlacompile.policy.source_lines import call_line, is_pythons
from vlart.errors import CaptureError

_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), "<")
_CLOCKS = (dt.datetime, dt.date)
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
    return next((n for n in policy.returned if not _same(one[n], other[n])), None)


def _other(example: torch.Tensor) -> torch.Tensor:
    if example.is_floating_point():
        return example * 0.5 + 0.25
    return example.reshape(-1).roll(1).reshape(example.shape)


def _differs(policy: Policy, output: str, held: Held) -> CaptureError:
    line = _line_that_changes(policy, held)
    why, fix = "that line changes what the next call reads", KEEP_NOTHING
    if not line:
        capture(policy, whole=True)  # raises with the line that draws random numbers
        line, why, fix = _line_outside(policy)
    return CaptureError(f'two calls with the same inputs give another "{output}"', where=_where(policy, line), why=why,
                        fix=fix)


def _line_outside(policy: Policy) -> tuple[str, str, str]:
    """(Line, why, fix) of what the function takes from outside of PyTorch that differs in every call."""
    before = _generators()
    line = _line_after_which(policy, lambda: _generators() != before)
    fix = 'make what it gives an input, vlacompile.Source("step"), which the robot\'s program sends'
    if line:
        return line, "that line draws random numbers outside PyTorch", fix
    if lines := _lines_that_ask_a_clock(policy):
        return " and ".join(lines[:3]), "a clock is asked there", fix
    return "", ("the function draws random numbers outside PyTorch, or keeps state in a place that cannot be inspected"
                ), f'random numbers: make them an input, vlacompile.Source("step"). State: {KEEP_NOTHING}'


def _generators() -> tuple:
    """State of the generators that Python and NumPy share."""
    _, words, place, *normal = np.random.get_state()  # noqa: NPY002  the one that np.random.rand() draws from
    return random.getstate(), words.tobytes(), place, *normal


def _lines_that_ask_a_clock(policy: Policy) -> list[str]:
    """Some of them may only measure how long something takes."""
    found: dict[str, None] = {}

    def look(frame: FrameType | None, event: str, asked) -> None:
        clock = getattr(asked, "__module__", "") == "time" or getattr(asked, "__self__", None) in _CLOCKS
        if event != "c_call" or not clock:
            return
        while frame is not None and _is_no_policys(frame):
            frame = frame.f_back
        if frame is not None:
            found[_line_at(frame, frame.f_lineno)] = None

    old = sys.getprofile()
    sys.setprofile(look)
    try:
        call(policy)
    finally:
        sys.setprofile(old)
    return list(found)


def _is_no_policys(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith(_LIBRARIES) or is_pythons(file)


def _line_at(frame: FrameType, number: int) -> str:
    """A line of the frame, and the one of the policy's own file that led to it, within the call of the policy."""
    frames, inner = [(frame.f_code.co_filename, number)], frame.f_back
    while inner is not None and inner.f_code is not call.__code__:
        if not _is_no_policys(inner):
            frames.append((inner.f_code.co_filename, inner.f_lineno))
        inner = inner.f_back
    return call_line([(*place, linecache.getline(*place)) for place in reversed(frames)])


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
    return _line_after_which(policy, held.changed)


def _line_after_which(policy: Policy, changed: Callable[[], bool]) -> str:
    """The first line in a call after which something is changed; "" if none is."""
    last, found = None, ""

    def look(frame: FrameType, event: str, argument):
        nonlocal last, found
        if found or _is_no_policys(frame):
            return None  # library code: the policy's line that called it is reported
        if last is not None and changed():
            found = _line_at(*last)
            return None
        last = frame, frame.f_lineno
        return look

    old = sys.gettrace()
    sys.settrace(look)
    try:
        call(policy)
    finally:
        sys.settrace(old)
    return found
