"""Lines of the policy's own code, as errors and build logs show them."""

from __future__ import annotations

import re
from pathlib import Path

_FRAME = re.compile(r'File "([^"]*)", line (\d+), in [^\n]*\n([^\n]*)')
_TRACING = "vlacompile/capture/export.py"


def source_line(trace: str) -> str:
    """Of a stack trace, the innermost line that is the policy's own, as "package/file.py:12: x = f(y)": of the path no
    more than names the file. "" where there is none."""
    found = [(path, line, code.strip()) for path, line, code in _FRAME.findall(trace)
             if "/torch/" not in path and not path.endswith(_TRACING)]
    path, line, code = found[-1] if found else ("", "", "")
    return f"{'/'.join(Path(path).parts[-2:])}:{line}: {code}" if found else ""
