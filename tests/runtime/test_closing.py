"""What is closed while others use it: a camera's thread is told so, and a bundle stays open for those that share it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import vlacompile as vc
from tests.samples import policies
from vlart.errors import ConfigError, RuntimeFailure

ROUNDS, CAMERAS = 40, 3
LANED = policies.EVERY_STAGE + '[[lane]]\nname = "slow"\nsources = ["tokens", "wide"]\n'


@pytest.fixture(scope="module")
def laned(tmp_path_factory) -> vc.Bundle:
    folder = tmp_path_factory.mktemp("laned")
    (folder / "lanes.toml").write_text(LANED)
    return vc.build(policies.dual_rate(), recipe=str(folder / "lanes.toml"), out=folder / "laned.vlab")


@pytest.mark.parametrize("kind", [vc.Session, vc.AsyncSession])
def test_a_camera_that_goes_on_after_close(late_fusion_bundle, kind):
    """`write_all` is for any thread, also for one that does not know that the control loop has ended."""
    arrays, told = policies.late_fusion().example_inputs, []

    def camera(session, writing: threading.Event) -> None:
        try:
            while True:
                session.write_all(arrays)
                writing.set()
        except RuntimeFailure as failure:
            told.append(failure.what)

    for _ in range(ROUNDS):
        session, writing = kind(late_fusion_bundle.path), threading.Event()
        cameras = [threading.Thread(target=camera, args=(session, writing)) for _ in range(CAMERAS)]
        for thread in cameras:
            thread.start()
        assert writing.wait(30)
        session.close()
        for thread in cameras:
            thread.join(30)
    assert told == ["the session is closed"] * ROUNDS * CAMERAS


def uses(session: vc.Session | vc.AsyncSession, arrays, draw: np.random.Generator) -> None:
    """Everything that a control loop does, in any order, until it is told that the session is closed."""
    if isinstance(session, vc.AsyncSession):
        calls = [session.request, session.pop, session.info, session.cancel, lambda: session.cancel("episode")]
    else:
        calls = [session.step, session.pop, session.reset, session.queue, session.stats, session.invalidate,
                 lambda: session.select(None), lambda: session.read("observation.state"), lambda: session.pop_rows(2)]
    calls += [lambda: session.write_all(arrays), lambda: session.time(1),
              *(lambda n=n, a=a: session.write(n, a) for n, a in arrays.items())]
    while True:
        try:
            calls[draw.integers(len(calls))]()
        except RuntimeFailure as failure:
            if failure.what == "the session is closed":
                return


@pytest.mark.parametrize(("kind", "inner"), [(vc.Session, False), (vc.AsyncSession, False), (vc.AsyncSession, True)])
def test_a_control_loop_that_goes_on_after_close(late_fusion_bundle, kind, inner):
    """Another thread ends the program: what the loop is in ends first, whichever call that is."""
    arrays, draw = policies.late_fusion().example_inputs, np.random.default_rng(0)
    for seed in range(ROUNDS):
        session = kind(late_fusion_bundle.path, threads=1)
        if kind is vc.AsyncSession:
            session.start()
            session.begin(arrays)
        loops = [threading.Thread(target=uses, args=(session, arrays, np.random.default_rng(seed + i)))
                 for i in (0, 1000)]
        for thread in loops:
            thread.start()
        time.sleep(draw.random() * 0.01)
        (session.session if inner else session).close()
        session.close()
        for thread in loops:
            thread.join(30)
            assert not thread.is_alive()


def test_a_camera_waits_for_no_call_of_the_control_loop(late_fusion_bundle):
    """A step takes as long as it takes: `turn` is what the loop has meanwhile."""
    with vc.Session(late_fusion_bundle.path, threads=1) as session:
        camera = threading.Thread(target=session.write_all, args=(policies.late_fusion().example_inputs,))
        other = threading.Thread(target=session.queue)
        with session.turn:
            camera.start()
            other.start()
            camera.join(10)
            assert not camera.is_alive() and other.is_alive()
        other.join(10)
        assert not other.is_alive()
        session.step()


def test_rows_are_counted_and_popped_in_one_turn(late_fusion_bundle, monkeypatch):
    """A step between the two would bring more rows than there is room for."""
    with vc.Session(late_fusion_bundle.path, threads=1) as session:
        session.write_all(policies.late_fusion().example_inputs)
        queue, steps = session.queue, threading.Thread(target=session.step)

        def counted():
            found = queue()
            steps.start()
            steps.join(0.3)
            return found

        monkeypatch.setattr(session, "queue", counted)
        with pytest.raises(RuntimeFailure) as empty:
            session.pop_rows(2)
        assert empty.value.status == "QUEUE_EMPTY"
        steps.join(30)
        assert queue().remaining > 0


def test_lanes_are_closed_while_their_owners_step_them(laned):
    given, draw = policies.dual_rate().example_inputs, np.random.default_rng(0)

    def steps(lanes: vc.Lanes, lane: str) -> None:
        arrays = {n: given[n].numpy() for n in (("tokens", "wide") if lane else ("touch", "state"))}
        session, step = (lanes[lane].session, lanes[lane].step) if lane else (lanes.control, lanes.control.step)
        while True:
            try:
                for name, array in arrays.items():
                    session.write(name, array[:, -1] if name == "wide" and array.ndim == 5 else array)
                step()
                lanes.followed("slow")
                lanes["slow"].interrupt()
            except RuntimeFailure as failure:
                if failure.what == "the session is closed":
                    return

    for _ in range(ROUNDS // 2):
        lanes = vc.Lanes(laned.path, threads=1)
        loops = [threading.Thread(target=steps, args=(lanes, name)) for name in ("slow", "")]
        for thread in loops:
            thread.start()
        time.sleep(draw.random() * 0.01)
        lanes.close()
        for thread in loops:
            thread.join(30)
            assert not thread.is_alive()


def test_a_session_outlives_the_one_that_opened_its_bundle(late_fusion_bundle):
    first = vc.Session(late_fusion_bundle.path)
    second = vc.Session(late_fusion_bundle.path, beside=first)
    first.close()
    second.write_all(policies.late_fusion().example_inputs)
    second.step()
    action = second.pop()
    with vc.Session(late_fusion_bundle.path) as alone:
        alone.write_all(policies.late_fusion().example_inputs)
        alone.step()
        assert (alone.pop() == action).all()
    second.close()
    with pytest.raises(vc.VlaError, match="no open session"):
        vc.Session(late_fusion_bundle.path, beside=first)


def test_a_lane_after_close(laned):
    lanes = vc.Lanes(laned.path)
    lane = lanes["slow"]
    lanes.close()
    for call in (lane.step, lambda: lane.start(print), lambda: lane.write("tokens", [[1] * 6]), lanes.reset):
        with pytest.raises(RuntimeFailure, match="the session is closed"):
            call()


def test_a_lane_has_one_thread(laned):
    """Two would step one session at a time."""
    with vc.Lanes(laned.path) as lanes:
        waits = threading.Event()
        lanes["slow"].start(lambda lane: waits.wait(), hz=100)
        with pytest.raises(ConfigError, match="has a thread"):
            lanes["slow"].start(lambda lane: None)
        waits.set()


@pytest.mark.parametrize("options", [{"hz": -1}, {"hz": float("nan")}, {"hz": "8"}, {"observe": None},
                                     {"runs": 5}], ids=str)
def test_a_lane_that_cannot_be_started(laned, options):
    with vc.Lanes(laned.path) as lanes, pytest.raises(ConfigError, match=next(iter(options))):
        lanes["slow"].start(**{"observe": print} | options)
