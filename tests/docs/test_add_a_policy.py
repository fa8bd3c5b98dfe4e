"""docs/add-a-policy.md does what it says: in a copy of the repository, whose package gets the page's files."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, RUNNABLE, blocks
from tests.docs.test_blocks import ADDS, inside, run_commands, write_file

COPIED, LINKED = ("vlacompile", "tests", "recipes", "targets"), ("build", "profiles")
MOST_LINES = 150


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_the_page_adds_a_system(repository):
    written = 0
    with inside(repository):
        for block in blocks(ADDS):
            if "file" in block.marks:
                assert not Path(block.marks["file"]).exists(), "a system is added, nothing is changed"
                write_file(block)
                written += block.body.count("\n")
            elif block.language in RUNNABLE:
                assert block.language == "console" and "not run" not in block.marks, f"{block} is not run"
                run_commands(block, inside_process=False)
    assert 0 < written < MOST_LINES
