"""Makes traced nodes record their lines in the policy's code, whatever its functions are called."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch.fx import proxy
from torch.fx.experimental.proxy_tensor import PythonKeyTracer

_NOT_THE_POLICYS = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")


class _Stacks:
    """In place of torch's captured tracebacks, which name every frame of the tracer for every node. entry: file of the
    function that calls the policy."""

    def __init__(self, entry: str):
        self.entry = entry
        self.policys: dict[CodeType, bool] = {}
        self.texts: dict[tuple, list[str]] = {}  # one per line of the policy, and path to it

    def extract(self) -> _Stacks:
        return self

    def summary(self) -> _Stacks:
        return self

    def format(self) -> list[str]:
        """The frames of the policy at this moment, the outermost first."""
        frame: FrameType | None = sys._getframe(1)
        lines: list[tuple[CodeType, int]] = []
        while frame is not None and not (frame.f_code.co_filename == self.entry and frame.f_code.co_name == "forward"):
            code = frame.f_code
            if code not in self.policys:
                self.policys[code] = not code.co_filename.startswith(_NOT_THE_POLICYS)
            if self.policys[code]:
                lines.append((code, frame.f_lineno))
            frame = frame.f_back
        if frame is None:  # not within the policy
            return []
        key = tuple(reversed(lines))
        if key not in self.texts:
            self.texts[key] = traceback.StackSummary.from_list(
                [traceback.FrameSummary(code.co_filename, number, code.co_name) for code, number in key]).format()
        return self.texts[key]


@contextlib.contextmanager
def lines_of_all_functions(entry: str) -> Iterator[None]:
    """Within this context, traced nodes keep every stack frame of the policy. entry: file of the function that calls
    the policy.

    torch 2.13 keeps only frames of functions named `forward`, hence none of a policy whose loop is in `sample_actions`.
    The tracer's filter is overridden in its class because the exporter accepts no tracer."""
    assert "_filter_traceback_frames" not in vars(PythonKeyTracer), "it is inherited"
    captured, stacks = proxy.CapturedTraceback, _Stacks(entry)
    PythonKeyTracer._filter_traceback_frames = lambda self, stack: stack
    proxy.CapturedTraceback = stacks
    try:
        yield
    finally:
        proxy.CapturedTraceback = captured
        del PythonKeyTracer._filter_traceback_frames
