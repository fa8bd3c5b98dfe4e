"""Closed loop in which a replan takes a given number of control ticks, with four ways of handling the delay.

    python -m examples.libero_goal.delays --member light --bundle light.vlab \
        [--states 0-6] [--delays 0,2,5,10] [--record]

waits    the robot stands still until the chunk is there
newest   the old chunk continues; the new one is executed from its beginning, however late it arrives
aligned  libvlart's asynchronous control: the new one is executed from the action for the current tick
ahead    the same, with the request sent that many ticks earlier (lead_ticks)

Success and jerk (motion.py) on the same initial states. Writes one line
per episode to build/libero_goal/results/ (--record: also beside this file) and is resumable.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

import vlacompile as vc
from examples.libero_goal import closed_loop
from examples.libero_goal.encoders import tokenize
from examples.libero_goal.engines import EXECUTE, BundleEngine, command
from examples.libero_goal.evaluate import RESULTS, RUNS, STEP_LIMIT, TASKS, parse_states
from examples.libero_goal.motion import jerk_of
from examples.libero_goal.policy import IMAGES, MASK, STATE, TOKENS
from examples.libero_goal.scene import GoalScene
from vlacompile import workers


@dataclass(frozen=True)
class Episode:
    way: str
    delay: int
    task: int
    state: int
    success: bool
    steps: int
    jerk: float


class Way(Protocol):
    def begin(self, text: str) -> None:
        """A new episode with this instruction."""

    def tick(self, scene: GoalScene) -> np.ndarray | None:
        """The predicted action [7] of this tick; None: stand still."""


class Waits:
    def __init__(self, member: str, bundle: Path, delay: int):
        self.engine, self.delay = BundleEngine(member, bundle), delay

    def begin(self, text: str) -> None:
        self.engine.reset(text)
        self.queue: list[np.ndarray] = []
        self.wait = 0

    def tick(self, scene: GoalScene) -> np.ndarray | None:
        if not self.queue:
            self.queue, self.wait = list(self.engine.act(scene.images(), scene.state)[:EXECUTE]), self.delay
        if self.wait:
            self.wait -= 1
            return None
        return self.queue.pop(0)


class Newest:
    def __init__(self, member: str, bundle: Path, delay: int):
        self.engine, self.delay = BundleEngine(member, bundle), delay

    def begin(self, text: str) -> None:
        self.engine.reset(text)
        self.chunk, self.at, self.coming, self.wait = None, 0, None, 0

    def tick(self, scene: GoalScene) -> np.ndarray | None:
        if self.coming is None and (self.chunk is None or self.at >= EXECUTE):
            self.coming, self.wait = self.engine.act(scene.images(), scene.state), self.delay
        if self.coming is not None and self.wait == 0:
            self.chunk, self.at, self.coming = self.coming, 0, None
        self.wait -= self.coming is not None
        if self.chunk is None or self.at >= len(self.chunk):
            return None
        self.at += 1
        return self.chunk[self.at - 1]


class Aligned:
    def __init__(self, member: str, bundle: Path, delay: int, lead: int = 0):
        self.member, self.delay = member, delay
        self.session = vc.AsyncSession(bundle, threads=1, lead_ticks=lead)

    def begin(self, text: str) -> None:
        self.session.cancel("episode")
        ids, mask = tokenize(self.member, text)
        self.session.write(TOKENS, ids)
        self.session.write(MASK, mask)
        self.asked, self.fresh = None, True

    def tick(self, scene: GoalScene) -> np.ndarray | None:
        now = self.session.info()
        if self.asked is None and now.due:
            for camera, image in scene.images().items():
                self.session.write(IMAGES[camera], image[None])
            self.session.write(STATE, scene.state[None])
            self.session.request()
            self.asked = now.tick
        if self.asked is not None and now.tick - self.asked >= self.delay:
            self.session.answer()
            self.asked, self.fresh = None, False
        try:
            action = self.session.pop().action
        except vc.VlaError:  # the first tick of the first episode: nothing to hold
            return None
        return None if self.fresh else action


class Ahead(Aligned):
    def __init__(self, member: str, bundle: Path, delay: int):
        super().__init__(member, bundle, delay, lead=delay)


WAYS = {"waits": Waits, "newest": Newest, "aligned": Aligned, "ahead": Ahead}


def play(scene: GoalScene, way: Way, name: str, delay: int, task: int, state: int) -> Episode:
    scene.reset_official(task, state)
    way.begin(scene.instructions[task])
    hand, grip, solved = [scene.state[:3].copy()], command(np.zeros(7))[6], False
    for step in range(STEP_LIMIT):  # noqa: B007
        action = way.tick(scene)
        sent = np.array([0, 0, 0, 0, 0, 0, grip], float) if action is None else command(action)
        grip = sent[6]
        scene.step(sent)
        hand.append(scene.state[:3].copy())
        if scene.success():
            solved = True
            break
    return Episode(name, delay, task, state, solved, step + 1, jerk_of(hand))


@dataclass(frozen=True)
class Job:
    """One episode."""

    member: str
    bundle: Path
    way: str
    delay: int
    task: int
    state: int

    def play(self) -> Episode:
        return play(closed_loop.scene(), _way(self.way, self.member, self.bundle, self.delay), self.way, self.delay,
                    self.task, self.state)


@functools.lru_cache(maxsize=1)
def _way(name: str, member: str, bundle: Path, delay: int) -> Way:
    return WAYS[name](member, bundle, delay)


def load(path: Path) -> list[Episode]:
    return [Episode(**json.loads(line))
            for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", choices=["light", "heavy"], required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--states", default="0-6")
    parser.add_argument("--delays", default="0,2,5,10")
    parser.add_argument("--record", action="store_true")
    workers.add_options(parser)
    arguments = parser.parse_args()
    path = RUNS / f"{arguments.member}-delays-{vc.load(arguments.bundle).hash[:12]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {(e.way, e.delay, e.task, e.state) for e in load(path)}
    jobs = [Job(arguments.member, arguments.bundle, name, delay, t, s)
            for delay in map(int, arguments.delays.split(",")) for name in (WAYS if delay else ("aligned",))
            for s in parse_states(arguments.states, False) for t in TASKS if (name, delay, t, s) not in done]
    closed_loop.append(path, Job.play, jobs, workers.chosen(arguments), path.stem)
    groups: dict[tuple[int, str], list[Episode]] = defaultdict(list)
    for e in load(path):
        groups[e.delay, e.way].append(e)
    for (delay, name), rows in sorted(groups.items()):
        print(f"{delay:3} ticks  {name:8} {sum(e.success for e in rows):3}/{len(rows):<3}  jerk "
              f"{np.mean([e.jerk for e in rows]):7.1f} m/s^3  "
              f"{np.mean([e.steps for e in rows if e.success] or [0]):5.0f} steps when solved")
    if arguments.record:
        (RESULTS / "delays").mkdir(exist_ok=True)
        shutil.copyfile(path, RESULTS / "delays" / f"{arguments.member}.jsonl")


if __name__ == "__main__":
    importlib.import_module(__spec__.name).main()  # under the name by which workers find its tasks
