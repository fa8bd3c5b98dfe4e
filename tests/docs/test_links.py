"""What the pages point to exists: links with their anchors, and the paths and names in code spans."""

from __future__ import annotations

import re
import tomllib

import pytest

import vlacompile as vc
from tests.docs.pages import DOCS, ROOT, anchors, links, name_of, pages

PAGES = pytest.mark.parametrize("page", pages(), ids=name_of)
# Paths that a page names as the place of something that is written there, not as a file of the repository.
WRITTEN = re.compile(r"^(build|\.venv)/|[*{}<>A-Z]{2,}|\.\.\.|…")
PREFIXES = ("vlacompile/", "runtime_c/", "docs/", "recipes/", "targets/", "tests/", "profiles/", "examples/",
            "benchmarks/", "src/", "include/", "backends/", "tools/")


@PAGES
def test_links_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(file), link


@PAGES
def test_links_of_the_site_stay_inside_it(page):
    """mkdocs serves docs/ alone: what lies outside of it is named, not linked."""
    if page.is_relative_to(DOCS):
        for link in links(page):
            assert (page.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS), link


@PAGES
def test_files_that_a_page_names_exist(page):
    for name in re.findall(r"`([\w./-]+(?:\*[\w./]*)?)`", page.read_text(encoding="utf-8")):
        if name.startswith(PREFIXES) and not WRITTEN.search(name):
            assert any(list(folder.glob(name)) for folder in (ROOT, page.parent)), name


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"([\w/-]+\.md)\b", text.partition("\nnav:")[2]))
    assert named == {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")}


def test_every_public_name_has_an_entry_among_the_api_pages():
    text = "".join(p.read_text(encoding="utf-8") for p in sorted((DOCS / "api").glob("*.md")))
    named = {line.split(".")[-1] for line in re.findall(r"^::: ((?:vlacompile|vlart)[\w.]*)", text, re.MULTILINE)}
    assert set(vc.__all__) <= named, set(vc.__all__) - named


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_changelog_begins_with_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first and first[1] == project["version"]
