"""A file can be read in one sitting, a function in one look."""

from __future__ import annotations

import ast
import subprocess

from tests.house.layers import ROOT
from vlart.bundle.format.generate import FILES

FILE_LINES, FUNCTION_LINES = 450, 80
SOURCES = (".py", ".c", ".h", ".cc", ".hpp", ".sh")
GENERATED = {f"runtime_c/{name}" for name in FILES}


def sources() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout.split("\n")
    return [name for name in listed if name.endswith(SOURCES) and name not in GENERATED and (ROOT / name).is_file()]


def test_files_are_short():
    found = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in sources()}
    assert len(found) > 400
    assert not (long := {n: lines for n, lines in found.items() if lines > FILE_LINES}), long


def test_functions_are_short():
    long = {}
    for name in (n for n in sources() if n.endswith(".py")):
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{name}:{node.lineno} {node.name}"] = lines
    assert not long, long
