"""Source lines of the policy's own code, as shown in errors and build logs."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from torch.fx import Node

_FRAME = re.compile(r'File "([^"]*)", line (\d+), in [^\n]*\n([^\n]*)')
# Where packages are installed, and this one: code that a policy's own calls.
_PYTHONS = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib"))
_LIBRARIES = (*_PYTHONS, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(__file__).parents[1]))
_TRACING = ("vlacompile/compiler/capture/export.py", "vlacompile/policy/drawn_from.py")


def source_line(trace: str) -> str:
    """The innermost frame of a stack trace that is the policy's own code, as "package/file.py:12: x = f(y)", with the
    path shortened to folder and file. "" if there is none."""
    found = _policys_frames(trace)
    return line_text(*found[-1]) if found else ""


def _policys_frames(trace: str) -> list[tuple[str, str, str]]:
    return [(path, line, code.strip()) for path, line, code in _FRAME.findall(trace)
            if "/torch/" not in path and not path.endswith(_TRACING)]


def line_text(path: str, number: int | str, code: str) -> str:
    return f"{'/'.join(Path(path).parts[-2:])}:{number}: {code.strip()}"


def call_line(frames: Sequence[tuple[str, int | str, str]]) -> str:
    """The innermost of (path, number, code), and in front of it, where that is a library's, the line of the policy's
    own file that called it. frames: outermost first."""
    if not frames:
        return ""
    own = next((f for f in reversed(frames) if not _is_librarys(f[0])), None)
    inner = line_text(*frames[-1])
    return inner if own is None or own is frames[-1] else f"{line_text(*own)} (in {inner})"


def is_pythons(path: str) -> bool:
    """Whether the file is of Python's own library."""
    return path.startswith(_PYTHONS) and "/site-packages/" not in path and "/dist-packages/" not in path


def _is_librarys(path: str) -> bool:
    return path.startswith(_LIBRARIES) or "/site-packages/" in path or "/dist-packages/" in path


def line_of(node: Node) -> str:
    """The policy's source line of a traced node, and the library's that it called; the node's name if that is not
    known."""
    return lines_of_trace(node.meta.get("stack_trace") or "") or node.name


def lines_of_trace(trace: str) -> str:
    """As `call_line`, of a stack trace; "" if no frame is the policy's."""
    return call_line(_policys_frames(trace))
