"""The notebook of the first hour runs, and shows what it gives."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET

from docs.notebook import NOTEBOOK, cells, executed


def drawing(output: dict) -> ET.Element:
    html = "".join(output["data"]["text/html"])
    return ET.fromstring(base64.b64decode(re.search(r"base64,([^\"]+)", html)[1]))


def shapes(outputs: list[dict]) -> list[tuple]:
    """What a cell gives, without the numbers in it."""
    return [(o["output_type"], *sorted(o.get("data", {})), "text/html" in o.get("data", {}) and sorted(
        {e.text for e in drawing(o).iter() if "name" in e.get("class", "")})) for o in outputs]


def test_the_notebook_gives_what_it_shows(tmp_path):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    stored = [c["outputs"] for c in notebook["cells"] if c["cell_type"] == "code"]
    found = list(executed(cells(notebook), tmp_path))
    assert [shapes(o) for o in found] == [shapes(o) for o in stored]
    drawn = [o for outputs in found for o in outputs if "text/html" in o.get("data", {})]
    assert len(drawn) == 3
    for output in drawn:
        assert {e.text for e in drawing(output).iter() if e.tag.endswith("text")} & {"language", "fusion"}
    assert (tmp_path / "small.vlab" / "plan.bin").is_file()
