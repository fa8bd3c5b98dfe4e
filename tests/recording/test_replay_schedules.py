"""Every schedule of asynchronous control that is recorded is followed by its replay, to the bit: requests that overlap,
cancelled and replaced ones, late chunks, cut steps, other instructions, other episodes."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import vlacompile as vc
from tests.recording import schedules
from tests.samples import recorded_robot as robot
from vlart.recording.log import Event, Log
from vlart.recording.replayed import replay

CONSUME = ("queue", "realtime", "ensemble")
SCHEDULES, TICKS = 15, 60


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """{consume: bundle}, and one whose camera is weighed by a ten-thousandth more."""
    folder = tmp_path_factory.mktemp("schedules")
    built = {c: robot.built(folder, c) for c in CONSUME}
    return built | {"other": robot.built(folder, gain=1.0001)}


def recorded(bundle, path, seed: int) -> Log:
    session, rng = schedules.opened(bundle, path, seed)
    try:
        schedules.interleaved(session, rng, TICKS)
    finally:
        session.close()
    return Log(path)


def overlaps(log: Log) -> int:
    """Requests that were made while another was being computed or waited to be seen."""
    seen, waiting = 0, 0
    for event in log:
        if event.role == "control" and event.kind in ("request", "result"):
            seen += event.kind == "request" and waiting > 0
            waiting = waiting + 1 if event.kind == "request" else 0
    return seen


@pytest.mark.parametrize("consume", CONSUME)
def test_every_schedule_to_the_bit(bundles, tmp_path, consume):
    kinds, statuses, overlapping, compared = Counter(), Counter(), 0, 0
    for seed in range(SCHEDULES):
        log = recorded(bundles[consume], tmp_path / f"{seed}.vlog", seed)
        found = replay(log, bundles[consume])
        assert found.parted is None and not found.skipped, (seed, found)
        kinds.update(e.kind for e in log)
        statuses.update((e.kind, e.fields["status"]) for e in log if e.kind in ("step", "pop", "result"))
        overlapping, compared = overlapping + (overlaps(log) > 0), compared + found.chunks + found.actions
    assert overlapping > SCHEDULES // 2 and compared > SCHEDULES * TICKS // 3
    assert {"request", "take", "result", "cancel", "reset", "source", "step", "pop"} <= set(kinds)
    missed, cancelled = schedules.DEADLINE_MISSED, schedules.CANCELLED
    assert {("step", missed), ("step", cancelled), ("pop", missed), ("result", missed)} <= set(statuses)


@pytest.mark.parametrize("consume", CONSUME)
def test_threads_that_overlap_to_the_bit(bundles, tmp_path, consume):
    """The worker is a thread that sleeps for as long as is drawn, before it computes and before it hands over."""
    overlapping = 0
    for seed in range(4):
        session, rng = schedules.opened(bundles[consume], tmp_path / f"{seed}.vlog", seed)
        ended, sleeps = threading.Event(), random.Random(-1 - seed)

        def work(session=session, ended=ended, sleeps=sleeps) -> None:
            while not ended.is_set():
                time.sleep(sleeps.uniform(0, 2e-3))
                session.compute()
                time.sleep(sleeps.uniform(0, 2e-3))
                session.deliver()

        worker, seen = threading.Thread(target=work), np.random.default_rng(seed)
        worker.start()
        try:
            session.write(robot.TOKENS, robot.tokens(0))
            for _ in range(100):
                schedules.command(session, rng, seen)
                time.sleep(rng.uniform(0, 2e-3))
        finally:
            ended.set()
            worker.join()
            session.close()
        log = Log(tmp_path / f"{seed}.vlog")
        found = replay(log, bundles[consume])
        assert found.parted is None and not found.skipped and found.actions, (seed, found)
        overlapping += overlaps(log)
    assert overlapping > 10


@pytest.mark.parametrize("consume", CONSUME)
def test_what_a_ring_kept_to_the_bit(bundles, tmp_path, consume):
    """The oldest is overwritten: whole episodes of the rest are followed."""
    compared = 0
    for seed in range(6):
        with vc.Recorder(tmp_path / f"{seed}.vlog", mib=1 / 16) as recorder:
            session, rng = schedules.opened(bundles[consume], recorder, seed)
            schedules.interleaved(session, rng, 300)
            session.close()
        assert recorder.info().laps >= 1
        found = replay(Log(tmp_path / f"{seed}.vlog"), bundles[consume])
        assert found.parted is None and found.skipped, (seed, found)
        compared += found.actions
    assert compared > 300


def test_a_cut_at_any_byte_is_followed_up_to_it(bundles, tmp_path):
    """Of either track the end may be missing, and the blocks of the middle. How much is left depends on where blocks
    ended, which time decides."""
    recorded(bundles["queue"], tmp_path / "a.vlog", 3)
    data, rng, compared = (tmp_path / "a.vlog").read_bytes(), np.random.default_rng(0), 0
    used = len(data.rstrip(b"\0"))
    whole = replay(Log(tmp_path / "a.vlog"), bundles["queue"])
    head = int(Log(tmp_path / "a.vlog").info.plan_bytes) // 4096 * 4096 + 4096
    for number in range(60):
        left, at = bytearray(data), int(rng.integers(head, used))
        left[at: used if number % 3 else at // 4096 * 4096 + 4096] = b""
        left.extend(bytes(len(data) - len(left)))
        if number % 3 == 0:
            left = bytearray(data)
            left[at: at // 4096 * 4096 + 4096] = bytes(at // 4096 * 4096 + 4096 - at)
        (tmp_path / "cut.vlog").write_bytes(left)
        found = replay(Log(tmp_path / "cut.vlog"), bundles["queue"])
        assert found.parted is None, (number, at, found)
        compared += found.chunks + found.actions
    assert compared > 60 * 0.08 * (whole.chunks + whole.actions) > 0


# Negative controls

def test_a_changed_weight_is_named(bundles, tmp_path):
    log = recorded(bundles["queue"], tmp_path / "a.vlog", 5)
    found = replay(log, bundles["other"], other_bundle=True)
    assert found.parted is not None and found.parted.what == "the chunk" and found.parted.want != found.parted.got
    aside = replay(log, bundles["other"], other_bundle=True, against=bundles["queue"])
    assert aside.parted.of_values and aside.parted.what == '"vision.wrist.0" of stage "vision.wrist"'
    assert replay(log, bundles["queue"], against=bundles["queue"]).equal


class Altered(Log):
    """A recording with these events."""

    def __init__(self, path, events):
        super().__init__(path)
        self.given = events

    def __iter__(self):
        return iter(self.given)


def without(events: list[Event], drop: int) -> list[Event]:
    track = events[drop].track
    return [replace(e, sequence=e.sequence - 1) if i > drop and e.track == track else e
            for i, e in enumerate(events) if i != drop]


@pytest.mark.parametrize("kind", ["result", "request", "pop", "cancel", "source", "take"])
def test_an_event_that_is_left_out_is_found(bundles, tmp_path, kind):
    """As if it had not been: the numbers of those behind it are moved up, so that nothing seems to be missing."""
    parted = 0
    for seed in range(4):
        log = recorded(bundles["queue"], tmp_path / f"{seed}.vlog", seed)
        assert replay(log, bundles["queue"]).equal
        events = list(log.events)
        at = [i for i, e in enumerate(events) if e.kind == kind and (kind != "pop" or e.fields["status"] == 0)]
        for drop in at[1: 6]:
            found = replay(Altered(log.path, without(events, drop)), bundles["queue"])
            parted += found.parted is not None or found.skipped > 0
    assert parted >= {"result": 5, "take": 5}.get(kind, 1)  # a request that is replaced has no effect, for one
