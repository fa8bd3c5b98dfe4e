"""The thread of a lane: what ends it, what it outlives, and that its owner can stop it and start it again."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import vlacompile as vc
from tests.samples import policies
from vlart.errors import ConfigError, RuntimeFailure

LANED = policies.EVERY_STAGE + '[[lane]]\nname = "slow"\nsources = ["tokens", "wide"]\nmax_age_ms = 60000\n'
GOOD = {"tokens": np.full((1, 6), 5), "wide": np.zeros((1, 32, 32, 3), np.uint8)}
OUTSIDE = {**GOOD, "tokens": np.full((1, 6), 1_000_000)}
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def laned(tmp_path_factory) -> vc.Bundle:
    folder = tmp_path_factory.mktemp("laned")
    (folder / "lanes.toml").write_text(LANED)
    return vc.build(policies.dual_rate(), recipe=str(folder / "lanes.toml"), out=folder / "laned.vlab")


@pytest.fixture
def lanes(laned):
    with vc.Lanes(laned.path, threads=1) as opened:
        yield opened


def becomes(condition) -> bool:
    end = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def writes(lane, arrays) -> None:
    for name, array in arrays.items():
        lane.write(name, array)


def acts(lanes) -> int:
    """A step of the control loop. Returns the sequence number of the lane's set that it was computed with."""
    lanes.control.write("touch", np.zeros((1, 16), np.float32))
    lanes.control.write("state", np.zeros((1, 9), np.float32))
    lanes.control.step()
    return lanes.followed("slow").sequence


def test_one_bad_answer_costs_one_step(lanes):
    slow, seen = lanes["slow"], []

    def observe(lane):
        seen.append(len(seen) + 1)
        writes(lane, OUTSIDE if seen[-1] == 3 else GOOD)

    slow.start(observe, hz=200)
    assert becomes(lambda: len(seen) > 10)
    assert slow.running and slow.failures == {"INPUT_OUT_OF_RANGE": 1}
    assert isinstance(slow.failure, RuntimeFailure) and slow.failure.status == "INPUT_OUT_OF_RANGE"
    assert slow.stop() and not slow.running
    assert acts(lanes) == len(seen) - 1, "every other observation was handed over"


def test_a_planner_that_is_always_wrong_hands_nothing_over(lanes):
    """The control that must fail: going on is not the same as handing over."""
    slow = lanes["slow"].start(lambda lane: writes(lane, OUTSIDE), hz=200)
    assert becomes(lambda: slow.failures.get("INPUT_OUT_OF_RANGE", 0) > 3) and slow.running
    with pytest.raises(RuntimeFailure) as error:
        acts(lanes)
    assert error.value.status == "SOURCE_UNSET"


def test_a_cancelled_step_is_counted_and_is_no_failure(lanes):
    slow = lanes["slow"]
    writes(slow, GOOD)
    slow.step()
    acts(lanes)
    lanes.reset()
    slow.start(lambda lane: writes(lane, GOOD), hz=200)
    assert becomes(lambda: slow.session.stats().steps > 3)
    assert slow.failures == {"CANCELLED": 1} and slow.failure is None and slow.running


def test_an_exception_of_the_observer_ends_the_thread_which_can_be_started_again(lanes):
    slow = lanes["slow"]

    def unplugged(lane):
        raise OSError("the camera is unplugged")

    slow.start(unplugged, hz=200)
    assert becomes(lambda: not slow.running)
    assert isinstance(slow.failure, OSError) and slow.failures == {}
    assert slow.stop(), "it has ended"
    slow.start(lambda lane: writes(lane, GOOD), hz=200)
    assert becomes(lambda: slow.session.stats().steps > 2)
    assert slow.failure is None and slow.running and acts(lanes) > 0


def test_it_runs_again_after_it_was_stopped_and_waits_for_an_event_if_it_is_told_to(lanes):
    slow, seen = lanes["slow"], []

    def observe(lane):
        seen.append(1)
        writes(lane, GOOD)

    slow.start(observe, hz=200)
    assert becomes(lambda: seen) and slow.stop()
    seen.clear()
    slow.start(observe, hz=None)
    time.sleep(0.05)
    assert not seen, "that it was stopped is no event"
    slow.interrupt()
    assert becomes(lambda: seen)


def test_an_observer_that_hangs_holds_neither_stop_nor_close(laned):
    hangs, inside = threading.Event(), threading.Event()

    def observe(lane):
        inside.set()
        hangs.wait(PATIENCE_S)
        writes(lane, GOOD)

    lanes = vc.Lanes(laned.path, threads=1)
    slow = lanes["slow"].start(observe)
    assert inside.wait(PATIENCE_S)
    begin = time.monotonic()
    assert slow.stop(0.05) is False and slow.running
    assert time.monotonic() - begin < PATIENCE_S / 2
    with pytest.raises(ConfigError, match="has a thread") as error:
        slow.start(observe)
    assert "has not returned" in error.value.why
    lanes.close()
    assert time.monotonic() - begin < PATIENCE_S and slow.running
    slow.session.require_open()  # what the thread is about to write into
    hangs.set()
    assert becomes(lambda: not slow.running) and slow.failure is None
    with pytest.raises(RuntimeFailure, match="closed"):
        slow.session.require_open()


def test_an_observer_stops_its_own_lane(lanes):
    slow = lanes["slow"]
    slow.start(lambda lane: lane.stop(), hz=200)
    assert becomes(lambda: not slow.running) and slow.failure is None
    assert slow.session.stats().steps == 0


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()], ids=repr)
def test_whatever_observe_raises_is_told(lanes, end):
    """Python's thread would end for `sys.exit` without a word. The lane can be started again."""
    slow = lanes["slow"]

    def observe(lane):
        writes(lane, GOOD)
        lane.step()
        raise end

    for _ in range(2):
        slow.start(observe, hz=200)
        assert becomes(lambda: not slow.running)
        assert slow.failure is end and slow.failures == {} and slow.stop()
    acts(lanes)
    slow.start(lambda lane: writes(lane, GOOD))
    assert becomes(lambda: acts(lanes) > 3) and slow.failure is None
