"""examples/first_hour.ipynb with what its cells give: `python -m docs.notebook` runs it here and writes the outputs
into it. `cells` and `executed` are all that a notebook of text and drawings needs; no kernel is started."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.figures import ROOT
from vlart.files.atomic import write_file

NOTEBOOK = ROOT / "examples" / "first_hour.ipynb"


def cells(notebook: dict) -> list[str]:
    """Its programs, in their order."""
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def executed(sources: list[str], folder: Path) -> Iterator[list[dict]]:
    """The outputs of each cell, run one after the other in `folder`."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        for number, source in enumerate(sources, 1):
            yield _outputs(source, number, names)


def _outputs(source: str, number: int, names: dict[str, Any]) -> list[dict]:
    tree, printed, value = ast.parse(source), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    found: list[dict] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if value is not None:
        drawn = getattr(value, "_repr_html_", None)
        data = {"text/plain": _lines(type(value).__name__ if drawn else repr(value))}
        if drawn is not None:
            data["text/html"] = _lines(drawn())
        found.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return found


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    programs = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    with tempfile.TemporaryDirectory() as folder:
        given = executed(cells(notebook), Path(folder))
        for number, (cell, outputs) in enumerate(zip(programs, given, strict=True), 1):
            cell["outputs"], cell["execution_count"] = outputs, number
    write_file(NOTEBOOK, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
