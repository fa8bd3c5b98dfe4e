"""Rendered parts of the pages are current, and no figure is typed beside them."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ET

import pytest

from docs import picture, reference, render
from tests.docs.pages import DOCS, ROOT, blocks, name_of, pages
from tests.house.layers import LAYERS
from vlacompile.phases.phase import Phase
from vlacompile.recipe import recipe as recipes

RENDERED = pytest.mark.parametrize("page", render.PAGES, ids=name_of)


def test_rendered_parts_are_current():
    assert not render.stale(), "run `make docs` and commit what it wrote"


@RENDERED
def test_every_block_has_a_renderer_and_an_end(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"<!-- render:([\w-]+) -->", text)
    assert set(named) <= set(render.BLOCKS)
    assert text.count("<!-- end -->") == len(named) == len(render.BLOCK.findall(text))


def test_every_renderer_is_used():
    text = "".join(page.read_text(encoding="utf-8") for page in render.PAGES)
    assert set(render.BLOCKS) == set(re.findall(r"<!-- render:([\w-]+) -->", text))


@RENDERED
def test_no_number_is_typed_into_prose(page):
    """Measured quantities appear only in rendered blocks and in the output of commands."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", render.BLOCK.sub("", page.read_text(encoding="utf-8")), flags=re.DOTALL)
    if page != ROOT / "examples/libero_goal/README.md":
        assert not re.findall(r"\d+(?:\.\d+)?\s?(?:ms|us|µs|s|min|MB|GB|GFLOP|%|x)(?![\w-])", prose)


def test_the_demo_is_drawn_from_its_figures_alone():
    from examples.demo import text

    path = ROOT / "profiles" / "host" / "demo.json"
    for figures in json.loads(path.read_text(encoding="utf-8")).values():
        drawn = text(figures)
        assert max(map(len, drawn.splitlines())) <= 80
        assert f"{figures['parity']['max_abs']:.1e}" in drawn


def test_the_picture_shows_every_stage_with_its_time():
    figures = json.loads((ROOT / "profiles" / "host" / "demo.json").read_text(encoding="utf-8"))["heavy"]
    shown = [e.text for e in ET.fromstring(picture.svg()).iter() if e.tag.endswith("text")]
    for stage in figures["stages"]:
        assert stage["stage"] in shown
        assert f"ran {stage['runs']} of {figures['observations']}, {stage['median_ms']:.2f} ms" in shown


def keys(of: type, prefix: str = "") -> set[str]:
    """The keys of a recipe's sections, as a page writes them."""
    found = set()
    for field in dataclasses.fields(of):
        section = field.default_factory if dataclasses.is_dataclass(field.default_factory) else None
        found |= keys(section, f"{field.name}.") if section else {prefix + field.name}
    return found


def test_every_key_of_a_recipe_is_explained():
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert {k for row in rows for k in re.findall(r"`([\w.]+)`", row)} == keys(recipes.Recipe) - {"name", "description"}


def test_simple_defaults_of_a_recipe_are_those_of_the_code():
    found = {}
    for line in (DOCS / "recipes.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `") and len(cells := [c.strip() for c in line.split("|")]) > 3:
            names, values = re.findall(r"`([\w.]+)`", cells[1]), re.findall(r"`([^`]+)`", cells[2])
            found |= dict(zip(names, values, strict=True)) if len(names) == len(values) else {}
    default = recipes.Recipe("page", "")
    for key, value in found.items():
        section, _, name = key.rpartition(".")
        real = getattr(getattr(default, section) if section else default, name)
        shown = json.loads(value) if not isinstance(real, tuple) else tuple(json.loads(value))
        assert shown == real or real is None, f"{key} is {real!r}"
    assert len(found) > 20


def sources_text() -> str:
    return "".join(path.read_text(encoding="utf-8") for sources in ("vlart/**/*.py", "vlacompile/**/*.py",
                                                                    "runtime_c/src/*/*.c", "runtime_c/tools/*.c")
                   for path in sorted(ROOT.glob(sources)))


def test_messages_of_the_errors_page_are_in_the_code():
    page, code = DOCS / "errors.md", re.sub(r'"\s*\n\s*f?"', "", sources_text())
    text = render.BLOCK.sub("", page.read_text(encoding="utf-8"))
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for message in (re.match(r"\| `([^`]+)`", row)[1] for row in rows):
        for piece in re.split(r"…|\.\.\.", message):
            words = piece.strip(' ":,;.')
            assert len(words) < 5 or words in code, f"{message}: nothing says {words!r}"


def test_every_status_of_the_header_is_explained():
    header = reference.HEADER.read_text(encoding="utf-8").partition("VLART_STATUS_LIST(X)")[2]
    names = re.findall(r"\bX\((\w+)", header.partition("typedef enum")[0])
    rows = re.findall(r"^\| \d+ \| `([A-Z_]+)`", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == names and "STALE_INPUT" in rows


def test_json_keys_of_the_stability_page_are_those_of_the_verbs(cli, late_fusion_bundle):
    text = (DOCS / "stability.md").read_text(encoding="utf-8")
    for verb in ("inspect", "verify", "run"):
        row = re.search(rf"^\| `{verb}` \| (.*) \|$", text, re.MULTILINE)[1]
        code, out, _ = cli(verb, late_fusion_bundle.path, "--json")
        assert code == 0 and set(json.loads(out)) == set(re.findall(r"`(\w+)`", row)), verb


def test_the_table_of_layers_is_that_of_the_layer_test():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## Layers")[2].partition("##")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    paths = [p.removeprefix("vlacompile/") for row in rows
             for p in re.findall(r"`((?:vlart|vlacompile)/[\w./]+)`", row)]
    named = [p.rstrip("/").removesuffix(".py") for p in paths]
    first = {layer: [i for i, n in enumerate(named) if f"{layer}/".startswith(f"{n}/")][:1] for layer in LAYERS}
    covered = {layer: found[0] if found else None for layer, found in first.items()}
    assert None not in covered.values(), covered
    assert list(covered.values()) == sorted(covered.values()), covered


def test_phases_are_named_as_they_are():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## Eight phases")[2].partition("##")[0]
    assert re.findall(r"^\| `([\w-]+)`", text, re.MULTILINE) == [phase.value for phase in Phase]


def test_blocks_are_found():
    """The parser of pages sees what a person sees: as many blocks as pairs of fences."""
    for page in pages():
        fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(blocks(page)) * 2 == len(fences), name_of(page)
