"""What the tests give to workers: functions of a module that a worker can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from vlart.errors import BudgetError


def drawn(seed: int) -> list[float]:
    """A sum whose rounding depends on how many threads add it."""
    values = torch.randn(400_000, generator=torch.Generator().manual_seed(seed))
    return [float(values.sum()), float(values.exp().sum()), torch.get_num_threads()]


def process(task: tuple[Path, int]) -> int:
    """Waits until so many processes have one: a quick one would do all that others were started for."""
    folder, wanted = task
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while len(list(folder.iterdir())) < wanted and time.monotonic() < until:
        time.sleep(0.01)
    return os.getpid()


def lost_once(task: tuple[Path, int]) -> int:
    """The second task takes its process with it the first time, and leaves a mark."""
    folder, i = task
    (folder / f"{i}.{os.getpid()}").touch()
    if i == 1 and not (folder / "lost").exists():
        (folder / "lost").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return i * i


def always_lost(i: int) -> int:
    if i == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def refused(i: int) -> int:
    if i == 2:
        raise BudgetError("what", where="where", why="why", fix="fix", reachable={"max_weight_mb": 1.5})
    return i


def forever(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)
