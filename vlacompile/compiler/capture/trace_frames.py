"""Nodes that remember where in the policy's code they come from, whatever its functions are called."""

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
    """Inside, what is traced has every frame of the policy's. entry: the file of the function that calls it.

    torch 2.13 keeps frames of functions named `forward` alone, and of a policy whose loop is in `sample_actions` none;
    its tracer's filter is there to be overridden, and its exporter takes no tracer."""
    def policys(self, frames: traceback.StackSummary) -> traceback.StackSummary:
        first = next((i for i, f in enumerate(frames) if f.filename == entry and f.name == "forward"), len(frames)) + 1
        return traceback.StackSummary.from_list([f for f in frames[first:] if not f.filename.startswith((_TORCH, "<"))])

    assert "_filter_traceback_frames" not in vars(PythonKeyTracer), "it is inherited"
    PythonKeyTracer._filter_traceback_frames = policys
    try:
        yield
    finally:
        del PythonKeyTracer._filter_traceback_frames
