"""A week of ticks at 20 Hz on a clock that is set, beside the reference: chunks that come late or not at all, other
instructions, cancels of every kind, episodes, deadlines that are missed, chunks that are stale, and times of the clock
that go past their end.

    python -m tests.runtime.test_accelerated_week [--ticks N] [--record]     (profiles/host/week.json)
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vlacompile as vc
from tests.runtime.episode_reference import AsyncReference
from tests.runtime.test_episodes import BACKBONES, CONSUMED, MOST, RULES, drawn, policy, predict, told
from vlacompile.profile import machine
from vlart.errors import RuntimeFailure
from vlart.files.atomic import write_whole

HZ, TICK_US = 20, 50_000
WEEK = 7 * 24 * 3600 * HZ
RECORD = Path("profiles/host/week.json")
CASES = [(kind, rule, expire, hold) for kind in RULES for rule in ("", "clip", "refuse")
         for expire, hold in (("time", False), ("execution", True))]
OFTEN = {"episode": 1 / 1200, "drop": 1 / 900, "keep": 1 / 900, "tokens": 1 / 400, "select": 1 / 1500,
         "unasked": 1 / 60}
STATUSES = ("OK", "DEADLINE_MISSED", "SAFE_ACTION", "QUEUE_EMPTY")
TICKS = [{"lead": 1, "stale": stale, "deadline": deadline} for stale, deadline in ((0, 1), (0, 2), (3, 1), (0, 0))]


def build(folder: Path, kind: str, rule: str) -> Path:
    limits = f'max_step = [{MOST}, {MOST}]\nrate_rule = "{rule}"\n' if rule else ""
    recipe, out = folder / f"{kind}{rule}.toml", folder / f"{kind}{rule}.vlab"
    recipe.write_text(f'name = "r"\ndescription = "r"\n[action]\nconsume = "{kind}"\n{CONSUMED[kind]}\n{limits}')
    if not out.is_dir():
        vc.build(policy(kind), recipe=str(recipe), out=out)
    return out


class Robot:
    """The session and the reference, which are told the same."""

    def __init__(self, path: Path, kind: str, rule: str, expire: str, hold: bool, ticks: dict, rng: random.Random):
        rules = replace(RULES[kind], most=MOST if rule else None, refuse=rule == "refuse")
        self.session = vc.AsyncSession(path, safe="hold" if hold else "zero", expire=expire,
                                       **{f"{name}_ticks": n for name, n in ticks.items()})
        self.reference = AsyncReference(rules, predict, expire, None if hold else np.zeros(RULES[kind].dim), **ticks)
        self.several, self.rng, self.seen = kind != "realtime", rng, Counter()
        self.late = 0  # ticks until the chunk that was asked for comes
        self.now_us = 2**64 - 1_000_000  # goes past its end after a second
        self.begin()

    def both(self, call: str, *arguments) -> None:
        getattr(self.session, call)(*arguments)
        getattr(self.reference, call)(*arguments)

    def write(self, name: str) -> None:
        self.both("write", name, drawn(self.rng, name))

    def begin(self) -> None:
        self.both("cancel", "episode")
        self.write("tokens")
        self.write("state")

    def tick(self) -> None:
        self.now_us = (self.now_us + TICK_US) % 2**64
        draw = self.rng.random()
        for word, share in OFTEN.items():
            draw -= share
            if draw < 0:
                self.seen[word] += 1
                self.happens(word)
                break
        info, wanted = self.session.info(), self.reference.info()
        assert told(info) == wanted
        if info.due and not info.busy:
            self.session.time(self.now_us)
            self.write("state")
            self.both("request")
            self.begins()
        elif info.busy and self.late:
            self.late -= 1
        if self.late == 0:
            self.ends()
            if self.reference.waiting is not None:
                self.begins()
        self.pop()

    def begins(self) -> None:
        """The worker, with the newest observation; or it begins later, with one that replaced it."""
        self.late = self.rng.choice((0, 0, 1, 1, 2, 3, 9))
        if self.late == 0 or self.rng.random() < 0.7:
            self.both("compute")
        if self.late == 0:
            self.ends()

    def ends(self) -> None:
        if self.reference.made is None:
            self.both("compute")
        self.both("deliver")

    def happens(self, word: str) -> None:
        if word == "episode":
            self.begin()
        elif word in ("keep", "drop"):
            self.both("cancel", word)
        elif word == "tokens":
            self.write("tokens")
        elif word == "select":
            if self.several:
                chosen = self.rng.randrange(2)
                self.session.select(BACKBONES[chosen])
                self.reference.select(chosen)
        else:  # an observation that replaces what waits
            self.write("state")
            self.both("request")

    def pop(self) -> None:
        status, wanted = self.reference.pop()
        self.seen[status] += 1
        if wanted is None:
            with pytest.raises(RuntimeFailure, match="no action"):
                self.session.pop()
            return
        got = self.session.pop()
        assert got.status == status, (got, status, wanted)
        assert abs(got.action - wanted).max() < 2e-3, (got, wanted)


def play(folder: Path, ticks: int, progress=lambda case, seen: None) -> Counter:
    """`ticks` in all, over every case. Returns what happened."""
    total: Counter = Counter()
    for number, case in enumerate(CASES):
        rng = random.Random(number)
        robot = Robot(build(folder, *case[:2]), *case, TICKS[number % len(TICKS)], rng)
        for _ in range(ticks // len(CASES)):
            robot.tick()
        assert robot.session.info().tick == ticks // len(CASES)
        robot.session.close()
        progress(case, robot.seen)
        total += robot.seen
    return total


def happened(seen: Counter, ticks: int) -> None:
    assert all(seen[word] > 0 for word in (*OFTEN, *STATUSES)), seen
    assert seen["OK"] + seen["DEADLINE_MISSED"] > ticks / 3


def test_some_minutes(tmp_path):
    happened(play(tmp_path, 20_000), 20_000)


@pytest.mark.full
def test_a_week(tmp_path):
    happened(play(tmp_path, WEEK), WEEK - WEEK % len(CASES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=WEEK)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD}")
    arguments, began = parser.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seen = play(Path(folder), arguments.ticks, lambda case, found: print(case, dict(found), flush=True))
    played = sum(seen[s] for s in STATUSES)
    print(f"{played} ticks, {played / HZ / 86400:.2f} days, in {time.monotonic() - began:.0f} s")
    if arguments.record:
        document = {"hz": HZ, "ticks": played, "cases": len(CASES), "happened": dict(seen),
                    "seconds": time.monotonic() - began, "machine": machine.describe()}
        write_whole(RECORD, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
