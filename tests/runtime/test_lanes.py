"""Stages of different clocks: what a lane hands over is whole, of one step, and what the policy makes of it."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from vlacompile.bundle.directory import with_files, write_bundle
from vlacompile.bundle.plan.binary import plan_bytes, read_plan
from vlacompile.bundle.plan.text import parse_plan, plan_text
from vlacompile.cli.main import main
from vlacompile.errors import ConfigError, RuntimeFailure
from vlacompile.runtime.library import libvlart_path

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
    ('[[lane]]\nname = "a"\nsources = ["wide"]\nclock_hz = -1\n', "negative", "rates and ages"),
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
