"""Makes traced nodes record their lines in the policy's code, whatever its functions are called."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.fx.experimental.proxy_tensor import PythonKeyTracer

_TORCH = str(Path(torch.__file__).parent)


@contextlib.contextmanager
def lines_of_all_functions(entry: str) -> Iterator[None]:
    """Within this context, traced nodes keep every stack frame of the policy. entry: file of the function that calls
    the policy.

    torch 2.13 keeps only frames of functions named `forward`, hence none of a policy whose loop is in `sample_actions`.
    The tracer's filter is overridden in its class because the exporter accepts no tracer."""
    def policys(self, frames: traceback.StackSummary) -> traceback.StackSummary:
        first = next((i for i, f in enumerate(frames) if f.filename == entry and f.name == "forward"), len(frames)) + 1
        return traceback.StackSummary.from_list([f for f in frames[first:] if not f.filename.startswith((_TORCH, "<"))])

    assert "_filter_traceback_frames" not in vars(PythonKeyTracer), "it is inherited"
    PythonKeyTracer._filter_traceback_frames = policys
    try:
        yield
    finally:
        del PythonKeyTracer._filter_traceback_frames
