"""S2 and S1 in one bundle on two clocks. The reference of an action is the policy on the pair that it says it came
from: S2's inputs as they were at the followed sequence number, and S1's as they are."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import share_of_spread
from tests.zoo.built import FP32, build, changed
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.systems.helix import FAST, FAST_HZ, MAX_AGE_MS, SLOW, SLOW_HZ, SMALL, Controller, Sizes
from vlart.errors import RuntimeFailure

LANES = f"""name = "helix"
description = "S2 in a lane of its own"

[stages]
min_flops = 0

[[lane]]
name = "s2"
sources = [{", ".join(f'"{n}"' for n in SLOW)}]
clock_hz = {SLOW_HZ}
max_age_ms = {MAX_AGE_MS}
"""
TEXT, EYES = {"tokens", "mask"}, {"image.slow", "state.slow"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("helix")
    (folder / "lanes.toml").write_text(LANES, encoding="utf-8")
    return build("helix", folder, recipe=str(folder / "lanes.toml"))


def observed(policy: vc.Policy, names, seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {n: changed(policy, n, draw) for n in names}


def write(to, given: dict[str, torch.Tensor]) -> None:
    for name, value in given.items():
        to.write(name, value.numpy())


def expected(policy: vc.Policy, slow: dict, fast: dict) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {n: t.numpy() for n, t in policy.infer(**slow, **fast).items()}


def test_an_action_is_of_the_latent_that_it_says_it_came_from(built):
    policy, got, want, others = built.policy, [], [], []
    with vc.Lanes(built.bundle.path, threads=1, max_age_ms=0) as lanes:
        for s in range(3):
            slow = observed(policy, SLOW, s)
            write(lanes["s2"], slow)
            lanes["s2"].step()
            for f in range(10, 14):
                fast = observed(policy, FAST, f)
                write(lanes.control, fast)
                lanes.control.step()
                assert lanes.followed("s2").sequence == s + 1
                got.append(lanes.control.read("action").copy())
                want.append(expected(policy, slow, fast)["action"])
                others.append(expected(policy, observed(policy, SLOW, s + 1), fast)["action"])
    assert share_of_spread(np.concatenate(got), np.concatenate(want)) <= FP32
    # with the latent of another observation they are other actions
    assert share_of_spread(np.concatenate(got), np.concatenate(others)) > 100 * FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_a_new_instruction_interrupts_at_the_next_latent_and_makes_only_s2_run(built):
    policy = built.policy
    with vc.Lanes(built.bundle.path, threads=1, max_age_ms=0) as lanes:
        slow, fast = observed(policy, SLOW, 0), observed(policy, FAST, 10)
        write(lanes["s2"], slow)
        write(lanes.control, fast)
        lanes["s2"].step()
        lanes.control.step()
        first = lanes.control.read("action").copy()
        slow["tokens"] = observed(policy, SLOW, 1)["tokens"]
        lanes["s2"].write("tokens", slow["tokens"].numpy())
        write(lanes.control, fast)
        lanes.control.step()
        np.testing.assert_array_equal(lanes.control.read("action"), first)  # S1 never waits for S2
        seen = lanes["s2"].session.stats().runs()["vision.slow"]
        lanes["s2"].step()
        assert lanes["s2"].session.stats().runs()["vision.slow"] == seen
        write(lanes.control, fast)
        lanes.control.step()
        want = expected(policy, slow, fast)["action"]
        np.testing.assert_allclose(lanes.control.read("action"), want, atol=1e-4)
        assert np.abs(first - want).max() > 1e-3


def test_a_latent_that_is_too_old_is_not_acted_on(built):
    with vc.Lanes(built.bundle.path, threads=1, max_age_ms=0) as lanes:
        write(lanes["s2"], observed(built.policy, SLOW, 0))
        write(lanes.control, observed(built.policy, FAST, 10))
        lanes["s2"].step()
        lanes.control.step()
        time.sleep((MAX_AGE_MS + 50) / 1000)
        write(lanes.control, observed(built.policy, FAST, 11))
        with pytest.raises(RuntimeFailure) as refused:
            lanes.control.step()
        assert refused.value.status == "LANE_STALE"


def test_the_lane_has_the_instruction_s_keys_and_those_of_the_latent_in_the_decoder_of_s1(built):
    plan = built.bundle.plan
    assert [(s.name, built.table()[s.name][0]) for s in plan.stages if plan.lane_of(s) == 0] == [
        ("slow", {"state.slow"}), ("vision.slow", {"image.slow"}), ("fusion.1", EYES), ("language", TEXT),
        ("fusion.2", set(SLOW))]
    assert [(s.name, built.table()[s.name][0]) for s in plan.stages if plan.lane_of(s) != 0] == [
        ("fast", {"state.fast"}), ("vision.fast", {"image.fast"}), ("fusion.3", set(FAST)),
        ("fusion.4", set(SLOW + FAST))]
    made = {b.value for s in plan.stages if plan.lane_of(s) == 0 for b in s.outputs}
    read = [plan.values[b.value].name for s in plan.stages if plan.lane_of(s) != 0 for b in s.inputs if b.value in made]
    assert len(read) == 2 * SMALL.layers and "latent" not in read


def test_what_the_queries_do_before_they_see_anything_is_a_constant(built):
    fast, core = built.policy.observe.fast, built.bundle.plan.stages[-1]
    first = fast.decoder[0]
    matrices = sum(p.numel() for p in fast.decoder.parameters() if p.dim() == 2)
    matrices += fast.act.weight.numel() + fast.done.weight.numel()
    constant = sum(p.numel() for p in (*first.attention.parameters(), first.across.query.weight) if p.dim() == 2)
    earlier = sum(p.weight.numel() for x in fast.decoder for p in (x.across.key, x.across.value))
    folded = fast.queries.numel()  # what is left of them
    assert matrices - constant - earlier <= core.weight_bytes // 4 <= matrices - constant - earlier + 2 * folded


def test_rates_and_sizes_are_those_published():
    policy = catalogue.load("zoo:helix@tiny")
    assert policy.sources["image.fast"].clock == FAST_HZ == 200 and 7 <= SLOW_HZ <= 9
    with torch.device("meta"):
        fast = Controller(Sizes())
    assert abs(sum(p.numel() for p in fast.parameters()) / 80e6 - 1) < 0.02
