"""Policies with a loop whose end the data decides, from PyTorch to libvlart: the same values after the same number of
iterations, and what happens where a loop that must end does not."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples.ending import SEEDS, ending
from tests.samples.staging import verified
from vlacompile.compiler.golden import golden
from vlacompile.hardware.target import load_target
from vlacompile.profile.measure import measure, read_profile, write_profile
from vlacompile.recipe.recipe import VerifyRecipe, load_recipe
from vlart.errors import RuntimeFailure
from vlart.verify.frames import read_frames

MOST = 9


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(1, 4, generator=torch.Generator().manual_seed(seed))


def turns(seed: int) -> int:
    return int(ending(MOST).infer(state=drawn(seed))["count"])


@pytest.mark.parametrize("most", [4, MOST])
def test_it_runs_as_far_as_pytorch_does(tmp_path, most):
    bundle = vc.build(ending(most), out=tmp_path / "e.vlab")
    ran = []
    with vc.Session(bundle.path) as session:
        for seed in range(SEEDS):
            session.write("state", drawn(seed))
            session.step()
            want = ending(most).infer(state=drawn(seed))
            assert session.read("count") == want["count"].numpy()
            assert np.abs(session.read("action") - want["action"].numpy()).max() < 1e-6
            ran.append(session.stats().stages["step"].last_iterations)
        assert ran == [min(turns(seed), most) for seed in range(SEEDS)] and len(set(ran)) > 2
        assert session.stats().stages["step"].mean_iterations == pytest.approx(sum(ran) / len(ran))


def test_a_measurement_says_how_many_iterations_ran(tmp_path):
    bundle = vc.build(ending(MOST), out=tmp_path / "e.vlab")
    profile = measure(bundle, replans=12, warm_up=3)
    write_profile(profile, tmp_path / "p.json")
    assert 1 <= profile.iterations["step"] <= MOST and list(profile.iterations) == ["step"]
    assert read_profile(tmp_path / "p.json").iterations == profile.iterations


def test_one_that_must_end_is_built_from_frames_that_do_and_refused_on_others(tmp_path):
    ends, late = (next(s for s in range(SEEDS) if (turns(s) > 4) == wanted) for wanted in (False, True))
    policy = replace(ending(4, must_end=True), example_inputs={"state": drawn(ends)})
    bundle = vc.build(policy, out=tmp_path / "e.vlab")
    assert len(read_frames(bundle.path / "golden" / "golden.bin")) >= 1
    with vc.Session(bundle.path) as session:
        session.write("state", drawn(ends))
        session.step()
        session.write("state", drawn(late))
        with pytest.raises(RuntimeFailure) as caught:
            session.step()
        assert caught.value.status == "LOOP_NOT_ENDED" and "step" in caught.value.where
        assert session.queue().stale and np.isfinite(session.pop()).all()


def test_asynchronously_one_that_does_not_end_comes_to_the_safe_action(tmp_path):
    ends, late = (next(s for s in range(SEEDS) if (turns(s) > 4) == wanted) for wanted in (False, True))
    policy = replace(ending(4, must_end=True), example_inputs={"state": drawn(ends)})
    bundle = vc.build(policy, out=tmp_path / "e.vlab")
    safe, statuses = np.array([1, 2, 3, 4], np.float32), []
    with contextlib.closing(vc.AsyncSession(bundle.path, safe=safe)) as session:
        for tick in range(6):
            session.write("state", drawn(ends if tick < 2 else late).numpy())
            session.request()
            session.answer()
            popped = session.pop()
            statuses.append(popped.status)
            assert np.array_equal(popped.action, safe) == (popped.status == "SAFE_ACTION")
        assert statuses[:2] == ["OK"] * 2 and statuses[-1] == "SAFE_ACTION" and session.info().failures >= 2


def test_only_what_ends_is_a_golden_frame(tmp_path):
    def observe(state):
        x = vc.iterate(lambda k, x: torch.tanh(x), state * 1, 4, must_end=True,
                       until=lambda x: (x > 0).all() & (state == 60).all())
        return {"action": x[None]}

    example = torch.full((1, 4), 60.0)
    policy = vc.Policy("rare", observe, {"state": vc.Source("observation")}, {"state": example})
    frames = read_frames(vc.build(policy, out=tmp_path / "e.vlab").path / "golden" / "golden.bin")
    assert frames and all(np.array_equal(f.writes["state"], example.numpy()) for f in frames)
    nobody = replace(policy, calibration=({"state": example - 1}, {"state": example + 1}))
    with pytest.raises(RuntimeFailure, match="did not end within 4 iterations"):
        golden(nobody, verified(nobody, load_target("host"), load_recipe("default")).staging.staged,
               None, VerifyRecipe(), recorded=True)


def test_an_example_that_does_not_end_is_refused(tmp_path):
    late = next(s for s in range(SEEDS) if turns(s) > 4)
    policy = replace(ending(4, must_end=True), example_inputs={"state": drawn(late)})
    with pytest.raises(RuntimeFailure, match="did not end within 4 iterations"):
        vc.build(policy, out=tmp_path / "e.vlab")
