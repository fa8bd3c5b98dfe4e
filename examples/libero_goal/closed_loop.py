"""Episodes as independent tasks of several processes: each has one simulator and one engine, and keeps them."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing import util
from pathlib import Path

from tqdm import tqdm

from examples.libero_goal.engines import Engine, open_engine
from examples.libero_goal.scene import GoalScene
from vlacompile.workers import Workers


@functools.cache
def scene() -> GoalScene:
    """This process's simulator; building one takes some ten seconds."""
    return GoalScene()


@functools.lru_cache(maxsize=1)
def engine(member: str, name: str) -> Engine:
    """This process's engine, closed when the process ends. name: as open_engine takes it."""
    opened = contextlib.ExitStack()
    util.Finalize(None, opened.close, exitpriority=10)
    return opened.enter_context(open_engine(member, name))


def append(path: Path, play: Callable, jobs: Sequence, workers: Workers, title: str) -> None:
    """play: of a job, gives an episode, a dataclass with `success`; its line is appended to `path` when it ends, so
    that a run that was stopped goes on where it was. Episodes stand in the order in which they ended."""
    with tqdm(total=len(jobs), desc=title, mininterval=5) as bar, path.open("a", encoding="utf-8") as file:
        solved = 0

        def ended(index: int, episode) -> None:
            nonlocal solved
            file.write(json.dumps(asdict(episode)) + "\n")
            file.flush()
            solved += episode.success
            bar.update()
            bar.set_postfix(solved=f"{solved}/{bar.n}")

        workers.run(play, jobs, done=ended, told=bar.write)
