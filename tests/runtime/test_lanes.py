"""Stages of different clocks: what a lane hands over is whole, of one step, and what the policy makes of it."""

from __future__ import annotations

import contextlib
import gc
import math
import subprocess
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from vlacompile.cli.main import main
from vlacompile.recipe.recipe import load_recipe
from vlart.bundle.directory import with_files, write_bundle
from vlart.bundle.plan.binary import plan_bytes, read_plan
from vlart.bundle.plan.text import parse_plan, plan_text
from vlart.errors import ConfigError, RuntimeFailure
from vlart.runtime.library import libvlart_path

SLOW, FAST = ("tokens", "wide"), ("touch", "state")


def recipe(folder: Path, lanes: str) -> str:
    path = folder / "lanes.toml"
    path.write_text(policies.EVERY_STAGE + lanes, encoding="utf-8")
    return str(path)


TWO = '[[lane]]\nname = "slow"\nsources = ["tokens", "wide"]\nclock_hz = 8\nmax_age_ms = 60000\n'
THREE = TWO + '[[lane]]\nname = "touch"\nsources = ["touch"]\nclock_hz = 50\n'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lanes")
    return vc.build(policies.dual_rate(), recipe=recipe(folder, TWO), out=folder / "two.vlab")


def drawn(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"tokens": rng.integers(0, 50, (1, 6)), "wide": rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8),
            "touch": rng.standard_normal((1, 16), np.float32), "state": rng.standard_normal((1, 9), np.float32)}


def original(slow: dict, fast: dict) -> np.ndarray:
    inputs = {n: slow[n] for n in SLOW} | {n: fast[n] for n in FAST}
    with torch.no_grad():
        return policies.dual_rate().infer(**{n: torch.from_numpy(a) for n, a in inputs.items()})["action"].numpy()


def act(session: vc.Session, given: dict, names=FAST) -> np.ndarray:
    for name in names:
        session.write(name, given[name])
    session.step()
    return session.read("action")


def think(lane, given: dict) -> None:
    for name in SLOW:
        lane.write(name, given[name])
    lane.step()


def test_an_action_is_of_the_last_set_and_of_the_present(bundle):
    with vc.Lanes(bundle.path, threads=1) as lanes:
        slow = lanes["slow"]
        for s in range(3):
            think(slow, drawn(s))
            for f in range(10, 13):
                got = act(lanes.control, drawn(f))
                np.testing.assert_allclose(got, original(drawn(s), drawn(f)), atol=1e-5)
                assert lanes.followed("slow").sequence == s + 1
                # The control that must fail: with another instruction and view it is another action.
                assert np.abs(got - original(drawn(s + 1), drawn(f))).max() > 1e-3
        runs = lanes.control.stats().runs()
        slow_stages = {s.name for s in bundle.plan.stages if bundle.plan.lane_of(s) == 0}
        assert slow_stages and all(runs[n] == 0 for n in slow_stages) and sum(runs.values()) > 0
        assert all((n in slow_stages) == (r > 0) for n, r in slow.session.stats().runs().items())


@pytest.mark.parametrize("changed", ["clock_hz = inf", "clock_hz = 1e300", "clock_hz = nan", "clock_hz = 1e-300",
                                     "max_age_ms = 99999999999999999", 'name = ""', 'name = "a\\nb"'])
def test_numbers_and_names_that_no_lane_has_are_refused(changed, tmp_path):
    lane = {"name": '"slow"', "sources": '["tokens"]'} | dict([changed.split(" = ", 1)])
    path = recipe(tmp_path, "\n[[lane]]\n" + "".join(f"{k} = {v}\n" for k, v in lane.items()))
    with pytest.raises(ConfigError, match="lane"):
        load_recipe(path)


@pytest.mark.parametrize("hz", [1e-300, -1.0, math.inf, math.nan, "5"])
def test_a_rate_that_no_clock_can_wait_for_is_refused(bundle, hz):
    with vc.Lanes(bundle.path, threads=1) as lanes, pytest.raises(ConfigError, match="hz is"):
        lanes["slow"].start(lambda lane: None, hz=hz)


def test_without_lanes_the_same_bundle_runs_whole(bundle):
    with vc.Session(bundle.path, threads=1) as session:
        np.testing.assert_allclose(act(session, drawn(0), (*SLOW, *FAST)), original(drawn(0), drawn(0)), atol=1e-5)


def test_before_the_first_set_a_step_says_what_is_missing(bundle):
    with vc.Lanes(bundle.path, threads=1) as lanes:
        with pytest.raises(RuntimeFailure) as error:
            act(lanes.control, drawn(0))
        assert error.value.status == "SOURCE_UNSET" and lanes.followed("slow").sequence == 0
        think(lanes["slow"], drawn(1))
        np.testing.assert_allclose(act(lanes.control, drawn(0)), original(drawn(1), drawn(0)), atol=1e-5)


def test_a_failed_step_of_a_lane_hands_nothing_over(bundle):
    with vc.Lanes(bundle.path, threads=1) as lanes:
        think(lanes["slow"], drawn(0))
        with pytest.raises(RuntimeFailure):
            lanes["slow"].write("wide", np.zeros((1, 31, 32, 3), np.uint8))
        np.testing.assert_allclose(act(lanes.control, drawn(2)), original(drawn(0), drawn(2)), atol=1e-5)
        assert lanes.followed("slow").sequence == 1


@pytest.mark.parametrize("lane, name", [("slow", "state"), ("", "wide")])
def test_a_source_is_written_in_the_session_of_its_clock(bundle, lane, name):
    with vc.Lanes(bundle.path, threads=1) as lanes:
        session = lanes["slow"].session if lane else lanes.control
        with pytest.raises(RuntimeFailure, match="another clock") as error:
            session.write(name, drawn(0)[name])
        assert f'"{name}"' in error.value.where and error.value.status == "BAD_ARGUMENT"


def test_what_is_too_old_is_refused(bundle, tmp_path):
    plan = replace(bundle.plan, lanes=tuple(replace(x, max_age_ms=80) for x in bundle.plan.lanes))
    files = {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files}
    plan = with_files(plan, files)
    short = write_bundle(tmp_path / "short.vlab", plan, files, {"outputs": ["action"]}, lambda path: None)
    with vc.Lanes(short.path, threads=1) as lanes:
        think(lanes["slow"], drawn(0))
        act(lanes.control, drawn(1))
        time.sleep(0.12)
        with pytest.raises(RuntimeFailure) as error:
            act(lanes.control, drawn(2))
        assert error.value.status == "LANE_STALE" and "80 ms are allowed" in error.value.why
        assert '"slow"' in error.value.where
        assert lanes.followed("slow").age_ms > 80 and lanes.control.queue().stale
        think(lanes["slow"], drawn(0))
        act(lanes.control, drawn(2))


def test_three_clocks(tmp_path):
    made = vc.build(policies.dual_rate(), recipe=recipe(tmp_path, THREE), out=tmp_path / "three.vlab")
    with vc.Lanes(made.path, threads=1) as lanes:
        assert list(lanes.lanes) == ["slow", "touch"]
        for s, t, f in ((0, 1, 2), (3, 1, 2), (3, 4, 2), (3, 4, 5)):
            think(lanes["slow"], drawn(s))
            lanes["touch"].write("touch", drawn(t)["touch"])
            lanes["touch"].step()
            got = act(lanes.control, drawn(f), ("state",))
            np.testing.assert_allclose(got, original(drawn(s), drawn(f) | {"touch": drawn(t)["touch"]}), atol=1e-5)


def test_nothing_that_a_lane_saw_in_the_last_episode_is_used(bundle):
    with vc.Lanes(bundle.path, threads=1) as lanes:
        think(lanes["slow"], drawn(0))
        act(lanes.control, drawn(1))
        lanes.reset()
        with pytest.raises(RuntimeFailure, match="no content"):
            act(lanes.control, drawn(1))
        with pytest.raises(RuntimeFailure) as error:
            think(lanes["slow"], drawn(2))  # it may have been seen before
        assert error.value.status == "CANCELLED" and '"slow"' in error.value.where
        with pytest.raises(RuntimeFailure, match="no content"):
            act(lanes.control, drawn(1))
        with pytest.raises(RuntimeFailure) as error:
            lanes["slow"].step()  # nothing was written since: a camera that is slower than its lane
        assert error.value.status == "CANCELLED"
        think(lanes["slow"], drawn(3))
        np.testing.assert_allclose(act(lanes.control, drawn(1)), original(drawn(3), drawn(1)), atol=1e-5)


def test_a_set_that_was_begun_before_the_episode_and_comes_after_it_is_not_used(bundle):
    """The lane is inside its step while the control loop begins an episode."""
    inside, go_on = threading.Event(), threading.Event()

    def observe(lane):
        if lane.session.stats().steps == 1:
            inside.set()
            go_on.wait(10)
        for name in SLOW:
            lane.write(name, drawn(7)[name])

    with vc.Lanes(bundle.path, threads=1) as lanes:
        think(lanes["slow"], drawn(0))
        act(lanes.control, drawn(1))
        lanes["slow"].start(observe)
        assert inside.wait(10)
        lanes.reset()
        with pytest.raises(RuntimeFailure, match="no content"):
            act(lanes.control, drawn(1))
        go_on.set()
        deadline = time.monotonic() + 10
        while lanes.followed("slow").sequence == 0 and time.monotonic() < deadline:
            try:
                act(lanes.control, drawn(1))
            except RuntimeFailure as error:
                assert error.status == "SOURCE_UNSET"
        np.testing.assert_allclose(act(lanes.control, drawn(1)), original(drawn(7), drawn(1)), atol=1e-5)
        assert lanes["slow"].failure is None  # a thread of its own goes on by itself


VIEW = '[[lane]]\nname = "view"\nsources = ["wide"]\n'
WORDS = '[[lane]]\nname = "words"\nsources = ["tokens"]\n'


def step_of(lane, name: str, seed: int) -> str:
    try:
        lane.write(name, drawn(seed)[name])
        lane.step()
    except RuntimeFailure as error:
        return error.status
    return "OK"


def test_an_instruction_outlives_the_episode_and_a_view_does_not(tmp_path):
    """The slower lane has the instruction alone: nobody need step it again."""
    made = vc.build(policies.dual_rate(), recipe=recipe(tmp_path, WORDS + VIEW), out=tmp_path / "w.vlab")
    with vc.Lanes(made.path, threads=1) as lanes:
        assert step_of(lanes["words"], "tokens", 0) == "OK" and step_of(lanes["view"], "wide", 0) == "OK"
        act(lanes.control, drawn(2))
        lanes.reset()
        with pytest.raises(RuntimeFailure, match="no content"):
            act(lanes.control, drawn(2))
        assert [step_of(lanes["view"], "wide", 3) for _ in range(2)] == ["CANCELLED", "OK"]
        want = original(drawn(0) | {"wide": drawn(3)["wide"]}, drawn(2))
        np.testing.assert_allclose(act(lanes.control, drawn(2)), want, atol=1e-5)


def test_a_lane_waits_for_the_slower_one_that_it_reads(tmp_path):
    made = vc.build(policies.dual_rate(), recipe=recipe(tmp_path, VIEW + WORDS), out=tmp_path / "v.vlab")
    with vc.Lanes(made.path, threads=1) as lanes:
        assert step_of(lanes["view"], "wide", 0) == "OK" and step_of(lanes["words"], "tokens", 0) == "OK"
        act(lanes.control, drawn(2))
        lanes.reset()
        assert [step_of(lanes["words"], "tokens", 3) for _ in range(2)] == ["CANCELLED", "CANCELLED"]
        assert [step_of(lanes["view"], "wide", 4) for _ in range(2)] == ["CANCELLED", "OK"]
        assert step_of(lanes["words"], "tokens", 3) == "OK"
        want = original(drawn(3) | {"wide": drawn(4)["wide"]}, drawn(2))
        np.testing.assert_allclose(act(lanes.control, drawn(2)), want, atol=1e-5)


def test_an_action_says_which_step_of_each_lane_it_came_from(tmp_path):
    """A lane that reads a slower one is behind it: the control loop must not mix what it made of the last instruction
    with the next one."""
    made = vc.build(policies.dual_rate(), recipe=recipe(tmp_path, WORDS + VIEW), out=tmp_path / "w.vlab")
    given: dict[str, list[int]] = {"words": [], "view": []}
    found = []
    with vc.Lanes(made.path, threads=1) as lanes:
        seeds = [(1, 2), (3, None), (None, 4), (5, 6), (None, 7), (8, None), (None, None)]  # None: it does not step
        for tick, (words, view) in enumerate(seeds):
            for lane, name, seed in (("words", "tokens", words), ("view", "wide", view)):
                if seed is not None:
                    assert step_of(lanes[lane], name, seed) == "OK"
                    given[lane].append(seed)
            got = act(lanes.control, drawn(20 + tick))
            lanes.control.pop()
            of = lanes.popped()
            assert of.sequences == {n: lanes.followed(n).sequence for n in given} and of.row == 0
            words, view = (given[n][of.sequences[n] - 1] for n in given)
            want = original(drawn(words) | {"wide": drawn(view)["wide"]}, drawn(20 + tick))
            np.testing.assert_allclose(got, want, atol=1e-5)
            found.append(tuple(of.sequences.values()))
    assert found == [(1, 1), (1, 1), (2, 2), (3, 3), (3, 4), (3, 4), (3, 4)]


def test_an_action_of_an_earlier_chunk_says_so_after_newer_sets_were_taken(bundle):
    with vc.Lanes(bundle.path, threads=1) as lanes:
        think(lanes["slow"], drawn(0))
        act(lanes.control, drawn(1))
        lanes.control.pop()
        think(lanes["slow"], drawn(2))
        lanes.control.pop()
        assert lanes.popped().sequences == {"slow": 1} and lanes.popped().row == 1
        act(lanes.control, drawn(1))
        lanes.control.pop()
        assert lanes.popped().sequences == {"slow": 2} and lanes.popped().row == 0


def test_a_lane_that_waits_for_events_steps_once_for_each(bundle):
    seen: list[int] = []

    def observe(lane) -> None:
        seen.append(len(seen) + 1)
        for name in SLOW:
            lane.write(name, drawn(seen[-1])[name])

    with vc.Lanes(bundle.path, threads=1) as lanes:
        slow = lanes["slow"].start(observe, hz=None)
        time.sleep(0.05)
        assert not seen, "nothing happened yet"
        for event in (1, 2):
            slow.interrupt()
            deadline = time.monotonic() + 20
            while lanes.followed("slow").sequence < event and time.monotonic() < deadline:
                with contextlib.suppress(RuntimeFailure):  # there is no set yet
                    act(lanes.control, drawn(9))
            np.testing.assert_allclose(act(lanes.control, drawn(9)), original(drawn(event), drawn(9)), atol=1e-5)
        assert seen == [1, 2] and slow.failure is None


def test_the_fast_loop_keeps_its_rate_while_the_slow_one_stalls(bundle):
    """200 Hz, and a lane whose observation takes half a second. Sets are whole: every action is of one of them."""
    period, ticks, seen = 0.005, 300, []

    def observe(lane):
        time.sleep(0.5)
        for name in SLOW:
            lane.write(name, drawn(len(seen) % 2)[name])
        seen.append(time.monotonic())

    with vc.Lanes(bundle.path, threads=1) as lanes:
        think(lanes["slow"], drawn(0))
        lanes["slow"].start(observe)
        wanted = [original(drawn(k), drawn(9)) for k in (0, 1)]
        late, begin = [], time.monotonic()
        for k in range(ticks):
            time.sleep(max(0.0, begin + k * period - time.monotonic()))
            got = act(lanes.control, drawn(9))
            late.append(time.monotonic() - (begin + k * period))
            assert min(np.abs(got - w).max() for w in wanted) < 1e-5
        sequence = lanes.followed("slow").sequence
    assert lanes["slow"].failure is None and 1 < sequence <= len(seen) + 1 < ticks / 20
    assert np.median(late) < period, f"median {np.median(late)} s"


def test_sets_are_never_torn(bundle):
    """A lane as fast as it can beside a control loop as fast as it can."""
    wanted = [original(drawn(k), drawn(9)) for k in range(4)]
    with vc.Lanes(bundle.path, threads=1) as lanes:
        think(lanes["slow"], drawn(0))
        turn = iter(range(10**9))
        lanes["slow"].start(lambda lane: [lane.write(n, a) for n, a in drawn(next(turn) % 4).items() if n in SLOW])
        last, end = 0, time.monotonic() + 2
        while time.monotonic() < end:
            got = act(lanes.control, drawn(9))
            assert min(np.abs(got - w).max() for w in wanted) < 1e-5
            sequence = lanes.followed("slow").sequence
            assert sequence >= last
            last = sequence
    assert last > 20 and threading.active_count() < 20


@pytest.mark.parametrize("lanes, what, why", [
    ('[[lane]]\nname = "slow"\nsources = ["wied"]\n', "cannot be in a lane", "wide"),
    ('[[lane]]\nname = "a"\nsources = ["wide"]\n[[lane]]\nname = "b"\nsources = ["wide"]\n',
     "cannot be in a lane", '"a" too'),
    ('[[lane]]\nname = "slow"\nsources = ["tokens", "wide", "touch", "state"]\n', "no stage is left", "depends on"),
    ('[[lane]]\nname = "a"\nsources = []\n', 'no stage runs in lane "a"', "depends on"),
    ('[[lane]]\nname = "a"\nsources = ["wide"]\nclock_hz = -1\n', "clock_hz = -1", "per second"),
    ('[[lane]]\nname = "a"\nsources = ["wide"]\n[[lane]]\nname = "a"\nsources = ["touch"]\n', "same name",
     "identified by name"),
])
def test_lanes_that_make_no_sense_are_refused(tmp_path, lanes, what, why):
    with pytest.raises(ConfigError, match=what) as error:
        vc.build(policies.dual_rate(), recipe=recipe(tmp_path, lanes), out=tmp_path / "no.vlab")
    assert why in error.value.why and not (tmp_path / "no.vlab").exists()


def test_a_source_with_a_history_moves_with_the_control_loop(tmp_path):
    with pytest.raises(ConfigError, match="cannot be in a lane") as error:
        vc.build(policies.remember(), recipe=recipe(tmp_path, '[[lane]]\nname = "a"\nsources = ["image"]\n'),
                 out=tmp_path / "no.vlab")
    assert "history" in error.value.why


def test_lanes_are_in_the_plan(bundle, capsys):
    text = plan_text(bundle.plan)
    index = bundle.plan.value_index
    assert f'lane "slow" clock=8 max_age_ms=60000 %{index("tokens")} %{index("wide")}' in text.splitlines()
    assert parse_plan(text) == bundle.plan and read_plan(bundle.path / "plan.bin") == bundle.plan
    dump = libvlart_path().parent / "vlart-dump"
    assert subprocess.run([dump, bundle.path], capture_output=True, text=True, check=True).stdout == text
    assert main(["inspect", str(bundle.path)]) == 0
    assert "slow (8 Hz, at most 60000 ms old)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("change, why", [
    (lambda p: replace(p, lanes=(replace(p.lanes[0], clock_hz=float("nan")),)), "no rate"),
    (lambda p: replace(p, lanes=(replace(p.lanes[0], sources=p.lanes[0].sources * 2),)), "another lane's"),
    (lambda p: replace(p, lanes=(replace(p.lanes[0], sources=()), )), "no stage is its own"),
    (lambda p: replace(p, lanes=(replace(p.lanes[0], sources=tuple(s.value for s in p.sources)),)),
     "for the control loop"),
    (lambda p: replace(p, lanes=tuple(replace(p.lanes[0], name=f"l{i}", sources=()) for i in range(9))),
     "this reader takes 8"),
])
def test_lanes_are_checked_when_a_bundle_is_opened(bundle, tmp_path, change, why):
    import shutil

    root = tmp_path / "odd.vlab"
    shutil.copytree(bundle.path, root)
    (root / "plan.bin").write_bytes(plan_bytes(change(bundle.plan)))
    with pytest.raises(RuntimeFailure) as error:
        vc.Session(root)
    assert why in error.value.why


def test_lanes_of_a_bundle_without_any_are_refused(late_fusion_bundle):
    with pytest.raises(ConfigError, match="one rate"):
        vc.Lanes(late_fusion_bundle.path)
    with pytest.raises(RuntimeFailure, match="no lane is called"):
        vc.Session(late_fusion_bundle.path, lane="slow")


@pytest.mark.parametrize("kept", ["control", "lane", "session", "thread"])
def test_whoever_is_left_keeps_what_it_points_into(bundle, kept):
    """And nothing more: with the last of them all of it is collected."""
    lanes = vc.Lanes(bundle.path, threads=1)
    think(lanes["slow"], drawn(0))
    gone = [weakref.ref(lanes.control), weakref.ref(lanes["slow"]), weakref.ref(lanes["slow"].session)]
    left = {"control": lanes.control, "session": lanes["slow"].session}.get(kept, lanes["slow"])
    if kept == "thread":
        left.start(lambda lane: think_sources(lane, drawn(1)), hz=200)
    del lanes
    gc.collect()
    assert all(ref() is not None for ref in gone)
    if kept == "control":
        np.testing.assert_allclose(act(left, drawn(10)), original(drawn(0), drawn(10)), atol=1e-5)
    elif kept == "lane":
        think(left, drawn(2))
    elif kept == "thread":
        time.sleep(0.1)
        left.stop()
        assert left.failure is None
    del left
    gc.collect()
    assert all(ref() is None for ref in gone)


def think_sources(lane, given: dict) -> None:
    for name in SLOW:
        lane.write(name, given[name])
