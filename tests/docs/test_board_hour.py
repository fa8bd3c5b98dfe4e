"""The hour with a board in docs/boards.md, rehearsed again: every command works, and its record is a double's."""

from __future__ import annotations

import json

import pytest

from docs import board_hour
from docs.figures import figures_of
from tests.deploy import sshd
from vlacompile.profile.board_record import KINDS


@pytest.mark.full
@pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.MISSING)
def test_the_hour_works(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    found = board_hour.run(folder)
    assert [(r["name"], r["status"]) for r in found] == [(s.name, 0) for s in board_hour.STEPS], found
    assert json.loads((folder / "nano.json").read_text())["kind"] == "double"


def test_what_the_page_shows_says_what_it_is():
    recorded = figures_of(board_hour.FIGURES)
    assert recorded["label"] == KINDS["double"]
    shown = "\n".join(line for r in recorded["steps"] for line in r["output"])
    assert shown.count(KINDS["double"]) == 2 and "does not count" in shown
    assert [r["command"] for r in recorded["steps"]] == [s.command for s in board_hour.STEPS]
    assert all("/tmp" not in line and "/dev/shm" not in line for line in shown.splitlines())
