"""Nodes that remember where in the policy's code they come from, whatever its functions are called."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import PythonKeyTracer

_TORCH = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "([^"]*)", line (\d+), in [^\n]*\n([^\n]*)')
_TRACING = "vlacompile/capture/export.py"


def source_line(trace: str) -> str:
    """Of a stack trace, the innermost line that is the policy's own, as "package/file.py:12: x = f(y)": of the path no
    more than names the file. "" where there is none."""
    found = [(path, line, code.strip()) for path, line, code in _FRAME.findall(trace)
             if "/torch/" not in path and not path.endswith(_TRACING)]
    path, line, code = found[-1] if found else ("", "", "")
    return line_text(path, line, code) if found else ""


def line_text(path: str, number: int | str, code: str) -> str:
    return f"{'/'.join(Path(path).parts[-2:])}:{number}: {code.strip()}"


def line_of(node: Node) -> str:
    """The policy's line that a traced node comes from; the node's name where that is not known."""
    return source_line(node.meta.get("stack_trace") or "") or node.name


@contextlib.contextmanager
def lines_of_all_functions(entry: str) -> Iterator[None]:
    """Inside, what is traced has every frame of the policy's. entry: the file of the function that calls it.

    torch 2.13 keeps frames of functions named `forward` alone, and of a policy whose loop is in `sample_actions` none; its
    tracer's filter is there to be overridden, and its exporter takes no tracer."""
    def policys(self, frames: traceback.StackSummary) -> traceback.StackSummary:
        first = next((i for i, f in enumerate(frames) if f.filename == entry and f.name == "forward"), len(frames)) + 1
        return traceback.StackSummary.from_list([f for f in frames[first:] if not f.filename.startswith((_TORCH, "<"))])

    assert "_filter_traceback_frames" not in vars(PythonKeyTracer), "it is inherited"
    PythonKeyTracer._filter_traceback_frames = policys
    try:
        yield
    finally:
        del PythonKeyTracer._filter_traceback_frames
