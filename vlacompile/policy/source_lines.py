"""Source lines of the policy's own code, as shown in errors and build logs."""

from __future__ import annotations

import re
from pathlib import Path

from torch.fx import Node

_FRAME = re.compile(r'File "([^"]*)", line (\d+), in [^\n]*\n([^\n]*)')
_TRACING = "vlacompile/compiler/capture/export.py"


def source_line(trace: str) -> str:
    """The innermost frame of a stack trace that is the policy's own code, as "package/file.py:12: x = f(y)", with the
    path shortened to folder and file. "" if there is none."""
    found = [(path, line, code.strip()) for path, line, code in _FRAME.findall(trace)
             if "/torch/" not in path and not path.endswith(_TRACING)]
    return line_text(*found[-1]) if found else ""


def line_text(path: str, number: int | str, code: str) -> str:
    return f"{'/'.join(Path(path).parts[-2:])}:{number}: {code.strip()}"


def line_of(node: Node) -> str:
    """The policy's source line of a traced node; the node's name if that is not known."""
    return source_line(node.meta.get("stack_trace") or "") or node.name
