"""The pages of docs/first-hour/ show what docs/first_hours.py runs, and a new user can type it."""

from __future__ import annotations

import json
import shutil

import pytest

from docs import first_hours, newcomer
from docs.installed_wheels import wheels
from docs.recorded_steps import Step
from tests.docs.pages import DOCS, ROOT, blocks, commands

NEEDS = {"own-policy": ("cmake", "apt-get install cmake")}
PAGES = {name: person.steps for name, person in first_hours.PEOPLE.items()} | {
    "lerobot": tuple(s for s in newcomer.STEPS if s.name in first_hours.LEROBOT)}


def typed(steps: tuple[Step, ...]) -> list[str]:
    return [" ".join(line.split()) for s in steps for line in s.command.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_commands_that_are_run_in_their_order(name):
    shown = [" ".join(c.text.split()) for b in blocks(DOCS / "first-hour" / f"{name}.md")
             if b.marks.get("not run", "").startswith("recorded by") for c in commands(b)]
    assert shown == typed(PAGES[name])


def test_everybody_got_there_in_time():
    recorded = json.loads((ROOT / first_hours.FIGURES).read_text(encoding="utf-8"))
    assert set(recorded) == set(first_hours.PEOPLE)
    for name, person in first_hours.PEOPLE.items():
        steps = recorded[name]["steps"]
        assert [(s["name"], s["command"]) for s in steps] == [(s.name, s.command) for s in person.steps]
        assert all(s["status"] == 0 for s in steps) and sum(s["seconds"] for s in steps) < 60 * first_hours.MINUTES
    printed = {s["name"]: s["output"] for s in recorded["own-policy"]["steps"]}
    assert len(printed["run"]) == 4 and all(len(line.split()) == 7 for line in printed["run"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return wheels(tmp_path_factory.mktemp("clone") / "clone")


@pytest.mark.full
@pytest.mark.parametrize("name", first_hours.PEOPLE)
def test_a_new_user_types_it(name, built, tmp_path):
    """With what is installed here in place of downloads. docs/newcomer.py's test types LeRobot's page."""
    program, advice = NEEDS.get(name, ("bash", ""))
    if shutil.which(program) is None:
        pytest.skip(advice)
    if name == "ros2":
        pytest.importorskip("rosbags", reason="pip install 'vlacompile[oracles]'")
    if name == "openpi":
        pytest.importorskip("openpi_client", reason="pip install --no-deps openpi-client==0.1.2")
    found = first_hours.run(name, tmp_path, built)
    assert [(r["name"], r["status"]) for r in found] == [(s.name, 0) for s in first_hours.PEOPLE[name].steps], found
    recorded = json.loads((ROOT / first_hours.FIGURES).read_text(encoding="utf-8"))[name]["steps"]
    for row, before in zip(found, recorded, strict=True):
        assert len(row["output"]) == len(before["output"]), (row, before)
