"""Random schedules of asynchronous control and of its worker, without a clock: whoever is next is drawn, so that every
order of their steps comes about that two threads can bring about."""

from __future__ import annotations

import random

import numpy as np

import vlacompile as vc
from tests.samples import recorded_robot as robot
from vlart.errors import RuntimeFailure

DEADLINE_MISSED, CANCELLED = 17, 24  # of vlart_status_t


def options(rng: random.Random) -> dict:
    return {"deadline_ticks": rng.choice([0, 1, 3]), "stale_ticks": rng.choice([0, 1]),
            "lead_ticks": rng.choice([0, 2]), "expire": rng.choice(["time", "execution"]),
            "safe": rng.choice(["hold", "zero"])}


def opened(bundle, path, seed: int, **more) -> tuple[vc.AsyncSession, random.Random]:
    rng = random.Random(seed)
    return vc.AsyncSession(bundle, record=path, **options(rng), **more), rng


def command(session: vc.AsyncSession, rng: random.Random, seen: np.random.Generator) -> None:
    """One tick of the control thread: perhaps another episode or instruction, an observation, a request; an action."""
    drawn = rng.random()
    if drawn < 0.03:
        session.cancel("episode")
    elif drawn < 0.1:
        session.cancel(rng.choice(["keep", "drop"]))
    if rng.random() < 0.08:
        session.write(robot.TOKENS, robot.tokens(rng.randrange(8)))
    if rng.random() < 0.4:
        for name, array in robot.observation(seen).items():
            if rng.random() < 0.8:
                session.write(name, array)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):  # two: the second takes the place of one that nobody began
        session.request()
    if rng.random() < 0.1:
        session.info()
    try:
        session.pop()
    except RuntimeFailure as failure:
        assert failure.status == "QUEUE_EMPTY", failure


def interleaved(session: vc.AsyncSession, rng: random.Random, ticks: int) -> None:
    """The worker takes an observation, cuts its step short at times, and hands the chunk over ticks later, or never."""
    seen, computed = np.random.default_rng(rng.randrange(1 << 30)), False
    session.write(robot.TOKENS, robot.tokens(0))
    for _ in range(ticks):
        command(session, rng, seen)
        if not computed and rng.random() < 0.4:
            if rng.random() < 0.15:  # as a deadline or a cancellation ends it
                stage, status = rng.randrange(len(session.plan.stages)), rng.choice([DEADLINE_MISSED, CANCELLED])
                session.session.stop_before(stage, status)
            session.compute()
            computed = True
        if computed and rng.random() < 0.4:
            session.deliver()
            computed = False
