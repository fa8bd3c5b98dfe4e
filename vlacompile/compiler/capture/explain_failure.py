"""Translates a failure of the exporter into the policy's terms: where it happened, why, and what to write instead.

Must not know graphs.
"""

from __future__ import annotations

import contextlib
import inspect
import linecache
import logging
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.export import _trace

from vlacompile.compiler.capture.buffer_state import KEEP_NOTHING
from vlacompile.compiler.capture.functionalise import ViewOfWhatChanges
from vlacompile.compiler.capture.gradients import WITHIN_VMAP
from vlacompile.compiler.capture.packed_sequences import RowsOfInputs
from vlacompile.policy.function_call import why_and_fix
from vlacompile.policy.source_lines import call_line, line_text
from vlart.errors import CaptureError

_NOT_THE_POLICYS = (str(Path(inspect.getsourcefile(torch)).parent), str(Path(__file__).parents[2]), "<")
_BY_DATA = ("data-dependent", "DataDependent", "unbacked", "_local_scalar_dense", "Could not guard",
            "Could not extract specialized")
DECIDED_BY_DATA = "the value of an input decides what is computed"
# What to write instead, by what the line has: the first that fits.
_WAYS_OUT = (
    (r": assert\b",
     "leave the assertion out, or write torch._assert(condition, message), which a bundle does not check and names in "
     "its notes"),
    (r"\b(float|complex|round)\(|\bmath\.\w+\(",
     "keep it a tensor: x.item() or x instead of float(x), torch.sin(x) instead of math.sin(x), torch.stack instead of "
     "torch.tensor of numbers"),
    (r"\blen\(", "write x.shape[0] instead of len(x), which Python makes a number of; it may be computed with, not "
                  "decide anything"),
    ("",
     "compute every case and choose with torch.where, keep shapes fixed with masks, index with tensors, end a loop by "
     'vlacompile.iterate(until=...), or declare an input that never changes as Source("static")'))
_STATE = ("is mutated in the forward method", "were assigned during export", "missing nn_module_stack", "leaked")


def explain(policy: str, module: torch.nn.Module, error: Exception) -> CaptureError:
    """The CaptureError for what the exporter raised. module: the module that was exported."""
    names = {id(m): name for name, m in module.named_modules()}
    where, line = f'Policy "{policy}"', policys_line(error)
    line = f", {line}" if line else ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if names.get(id(owner)):
            where = f'Policy "{policy}", module {names[id(owner)]} ({type(owner).__name__})'
    if isinstance(error, RowsOfInputs):
        return CaptureError("the rows of a packed sequence are read", where=where + line,
                            why="lengths decide how many there are, and stages have fixed shapes", fix=error.fix)
    if isinstance(error, ViewOfWhatChanges):
        where += f", {error.line}" if error.line else ""
        return CaptureError(
            "a view is read after another write into its memory", where=where,
            why="which place it shows is known only on the robot", fix="take a copy there: x[i].clone()")
    text = f"{type(error).__name__}: {error}"
    if any(mark in text for mark in _BY_DATA):
        return CaptureError(
            DECIDED_BY_DATA, where=where + line,
            why="control flow, a shape or a Python number comes from a tensor that is known only on the robot",
            fix=next(fix for pattern, fix in _WAYS_OUT if re.search(pattern, line)))
    if any(mark in text for mark in _STATE):
        return CaptureError(
            "the inference function keeps state", where=where + (line or _of_assignment(module)),
            why="it writes into attributes or buffers of its modules, which the next call would read", fix=KEEP_NOTHING)
    if "functorch" in text or WITHIN_VMAP in text or _is_forward_mode(error):
        return CaptureError(
            "a transform of torch.func cannot be traced", where=where + line,
            why="the tracer follows neither forward-mode derivatives (jvp, jacfwd) nor derivatives within torch.vmap",
            fix="use torch.func.vjp, grad or jacrev, or torch.autograd.grad, of the whole batch")
    return CaptureError("the inference function cannot be traced", where=where + line, **why_and_fix(error))


def _is_forward_mode(error: Exception) -> bool:
    return any(f.f_code.co_name == "_jvp_with_argnums" for f, _ in traceback.walk_tb(error.__traceback__))


def policys_line(error: Exception) -> str:
    """The innermost line in the error's traceback that is not PyTorch's, and the one of the policy's own file that led
    to it; "" if there is none."""
    places = [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    frames = [(*place, linecache.getline(*place)) for place in places if not place[0].startswith(_NOT_THE_POLICYS)]
    return call_line(frames)


def _of_assignment(module: torch.nn.Module) -> str:
    """The line that assigns to a buffer by name; the exporter reports only that one was assigned."""
    for owner in module.modules():
        for name in owner._buffers:
            try:
                lines, first = inspect.getsourcelines(type(owner).forward)
            except (OSError, TypeError):
                continue
            for i, text in enumerate(lines):
                if text.strip().startswith(f"self.{name} ="):
                    return f", {line_text(inspect.getsourcefile(type(owner)), first + i, text)}"
    return ""


@contextlib.contextmanager
def without_dumps() -> Iterator[None]:
    """Suppresses the dump of the whole graph, which the exporter logs and torch 2.13 prints before it raises: the error
    has the relevant line. What the policy itself prints is shown."""
    kept = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    assert "print" not in vars(_trace), "it is the builtin"
    _trace.print = lambda *words, **how: None
    try:
        yield
    finally:
        del _trace.print
        logging.disable(kept)
