"""The READMEs: their measured parts are current, and what they name exists."""

from __future__ import annotations

import json
import re

import pytest

from docs import render

TEXT = render.READMES[0].read_text(encoding="utf-8")


def test_rendered_parts_are_current():
    assert not render.stale(), "run `python -m docs.render` (or `make docs`) and commit the README"


@pytest.mark.parametrize("path", render.READMES, ids=lambda p: str(p.relative_to(render.ROOT)))
def test_every_block_has_a_renderer_and_an_end(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"<!-- render:([\w-]+) -->", text)
    assert set(named) <= set(render.BLOCKS) and text.count("<!-- end -->") == len(named) == len(render.BLOCK.findall(text))


def test_files_that_it_names_exist():
    for name in re.findall(r"`((?:vlacompile|runtime_c|docs|recipes|targets)/[\w./]*)`", TEXT):
        assert (render.ROOT / name).exists(), name


def test_the_python_in_it_compiles():
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        compile(block, "README.md", "exec")


def test_no_number_is_typed_into_prose():
    """Measured quantities appear only in rendered blocks."""
    prose = re.sub(r"```.*?```", "", render.BLOCK.sub("", TEXT), flags=re.DOTALL)
    assert not re.findall(r"\d+(?:\.\d+)?\s?(?:ms|us|s|min|MB|GB|GFLOP|%|x)\b", prose)


def test_the_demo_is_drawn_from_its_figures_alone():
    path = render.ROOT / "profiles" / "host" / "demo.json"
    from examples.demo import text

    for figures in json.loads(path.read_text(encoding="utf-8")).values():
        drawn = text(figures)
        assert max(map(len, drawn.splitlines())) <= 80
        assert f"{figures['parity']['max_abs']:.1e}" in drawn
