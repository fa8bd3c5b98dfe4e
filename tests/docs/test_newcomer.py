"""docs/lerobot.md shows the commands that docs/newcomer.py runs, and they end well."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from docs import newcomer, recorded_steps
from tests.docs.pages import DOCS, ROOT, blocks, commands

LEROBOT = Path(sys.prefix) / "environments" / "lerobot-own"  # LeRobot 0.6.1 as it installs itself, on Python 3.12


def test_the_page_shows_the_commands_that_are_run_in_their_order():
    shown = [c.text for b in blocks(DOCS / "lerobot.md") if "docs/newcomer.py" in b.marks.get("not run", "")
             for c in commands(b)]
    steps = (newcomer.INSTALL, *newcomer.STEPS)
    typed = [line for s in steps for line in s.command.replace("\\\n  ", "").split("\n")]
    assert [" ".join(text.split()) for text in shown] == [" ".join(line.split()) for line in typed]


def test_the_record_is_of_commands_that_ended_well():
    recorded = json.loads((ROOT / newcomer.FIGURES).read_text(encoding="utf-8"))["steps"]
    assert all(r["status"] == 0 for r in recorded)
    by_name = {r["name"]: r for r in recorded}
    assert int(by_name["sent"]["output"][0]) > 20 and int(by_name["rolled"]["output"][0]) > 20


def test_an_output_is_read_from_the_marks_of_its_step(tmp_path):
    printed = (f"@@ begin a 0 10.5 0\n{tmp_path}/x\rnothing\r{tmp_path}/y\n"
               "INFO 2026-01-02 03:04:05 file.py:6 ready\n"
               "@@ end a 0 12.0 2048\n@@ begin b 0 12.0 2048\n@@ end b 3 12.5 2048\n")
    one, other = recorded_steps.rows(printed, (newcomer.Step("a", "one"), newcomer.Step("b", "other")), tmp_path)
    assert one == {"name": "a", "command": "one", "status": 0, "seconds": 1.5, "megabytes": 2.0,
                   "output": ["./y", "INFO ready"]}
    assert other["status"] == 3 and not other["output"]


def test_nothing_waits_for_a_step_that_failed(tmp_path):
    steps = (newcomer.Step("serve", "sleep 600 & false"),
             newcomer.Step("wait", "until test -e served; do sleep 1; done"))
    began = time.monotonic()
    (row,) = recorded_steps.run(steps, tmp_path, recorded_steps.clean_environment())
    assert row["name"] == "serve" and row["status"] == 1 and time.monotonic() - began < 60
    steps = [newcomer.Step(str(n), f"(exit {n})", ends=124) for n in (124, 0)]
    assert [r["status"] for r in recorded_steps.run(steps, tmp_path, recorded_steps.clean_environment())] == [0, 1]


@pytest.mark.full
@pytest.mark.skipif(not LEROBOT.is_dir(), reason="needs LeRobot 0.6.1 in .venv/environments/lerobot-own")
def test_a_user_of_lerobot_gets_from_a_training_to_the_robot(tmp_path):
    rows = newcomer.run(tmp_path, LEROBOT)
    assert [r["name"] for r in rows if r["status"] == 0] == [s.name for s in newcomer.STEPS], rows
    sent = [json.loads(line) for line in (tmp_path / "sent.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(sent) > 20 and np.isfinite([action for _, action in sent]).all()
