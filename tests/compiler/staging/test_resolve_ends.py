"""Loops whose end the data decides, as stages: found, with their condition; what cannot be one is said or refused."""

from __future__ import annotations

import pytest
import torch

import vlacompile as vc
from tests.samples.ending import SEEDS, ending
from tests.samples.staged_reference import run_staged
from tests.samples.staging import verified
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.loop_end import is_mark
from vlacompile.compiler.passes.pass_manager import verified as verification
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.recipe import LoopRecipe, Recipe, StagesRecipe
from vlart.errors import ConfigError, StagingError

HOST = load_target("host")
EVERY = Recipe("every-stage", "", StagesRecipe(min_flops=0))


@pytest.mark.parametrize("must_end", [False, True])
@pytest.mark.parametrize("most", [2, 4, 9])
def test_a_declared_loop_is_a_stage_with_its_condition(most, must_end):
    policy = ending(most, must_end)
    with verification("full"):
        staging = stage(capture(policy), HOST, EVERY)
    step = next(s for s in staging.staged.stages if s.name == "step")
    assert step.iterations == most and step.end.must_end == must_end
    assert staging.staged.types[step.carries[step.end.carried].result].dtype == "bool"
    assert staging.complete and staging.program.iterations == ({0: most} if most > 4 else {}), "traced in part"
    assert not any(is_mark(n) for s in staging.staged.stages for n in s.graph.nodes)
    assert any(f"after at most {most} iterations" in n for n in staging.notes)
    for seed in range(SEEDS):
        state = {"state": torch.randn(1, 4, generator=torch.Generator().manual_seed(seed))}
        got, want = run_staged(staging.staged, dict(state)), ending(most).infer(**state)
        assert torch.equal(got["count"], want["count"]) and torch.allclose(got["action"], want["action"], atol=1e-6)


@pytest.mark.parametrize("most", [4, 9])
def test_parts_that_start_from_one_value_are_carried_apart(most):
    """A descent with momentum that keeps the best of where it was."""
    layer = torch.nn.Linear(4, 4).requires_grad_(False)

    def observe(state):
        def step(k, s):
            size = layer(s["x"]).square().sum(-1)
            mean = 0.9 * s["mean"] + 0.1 * torch.sin(s["x"])
            square = 0.8 * s["square"] + 0.2 * mean.square()
            return {"x": s["x"] - mean / (square + 0.1), "best": torch.where(size < s["size"], s["x"], s["best"]),
                    "size": torch.minimum(size, s["size"]), "mean": mean, "square": square}

        nothing = torch.zeros_like(state)
        begun = {"x": state * 2, "best": state * 2, "size": torch.full((1,), 1e3), "mean": nothing, "square": nothing}
        return {"action": vc.iterate(step, begun, most, until=lambda s: s["size"] < 0.5)["best"][None]}

    example = {"state": torch.randn(1, 4, generator=torch.Generator().manual_seed(0))}
    policy = vc.Policy("descent", observe, {"state": vc.Source("observation")}, example)
    with verification("full"):
        staging = stage(capture(policy), HOST, EVERY)
    step = next(s for s in staging.staged.stages if s.name == "step")
    assert step.iterations == most and step.end is not None
    for seed in range(6):
        state = {"state": torch.randn(1, 4, generator=torch.Generator().manual_seed(seed))}
        assert torch.allclose(run_staged(staging.staged, dict(state))["action"], observe(**state)["action"], atol=1e-6)


def test_a_derivative_starts_from_a_constant_in_the_first_iteration_too():
    layer = torch.nn.Linear(4, 4).requires_grad_(False)

    def observe(state):
        def step(k, x):
            return x - 0.1 * torch.func.grad(lambda y: (layer(y).square().mean(0) * state.sum(0)).sum())(x)

        return {"action": vc.iterate(step, state * 2, 9, until=lambda x: (x.abs().sum() < 0.5))[None]}

    example = {"state": torch.randn(1, 4, generator=torch.Generator().manual_seed(0))}
    policy = vc.Policy("descent", observe, {"state": vc.Source("observation")}, example)
    staging = stage(capture(policy), HOST, EVERY)
    step = next(s for s in staging.staged.stages if s.name == "step")
    assert step.iterations == 9 and step.end is not None
    want = observe(**example)["action"]
    assert torch.allclose(run_staged(staging.staged, dict(example))["action"], want, atol=1e-6)


def unlike(must_end: bool = False) -> vc.Policy:
    """The third iteration is another."""
    def observe(state):
        x = vc.iterate(lambda k, x: torch.sin(x) * 1.1 if k == 2 else torch.tanh(x) * 0.9, state * 1, 4,
                       until=lambda x: x.sum() < 0.5, must_end=must_end)
        return {"action": x[None]}

    return vc.Policy("unlike", observe, {"state": vc.Source("observation")}, {"state": torch.full((1, 4), 0.4)})


def test_iterations_that_differ_all_run_and_give_the_same():
    staging = verified(unlike(), HOST, EVERY).staging
    assert all(s.end is None for s in staging.staged.stages)
    assert any("test_resolve_ends.py" in n and "all iterations run" in n for n in staging.notes)
    for start in (0.1, 0.2, 0.4, 0.9):
        state = {"state": torch.full((1, 4), start)}
        assert torch.allclose(run_staged(staging.staged, dict(state))["action"], unlike().infer(**state)["action"])


def test_a_loop_that_must_end_and_is_not_found_is_refused():
    with pytest.raises(StagingError) as caught:
        stage(capture(unlike(must_end=True), whole=True), HOST, EVERY)
    assert "must end" in caught.value.what and "test_resolve_ends.py" in caught.value.where


def test_a_loop_that_the_data_ends_is_not_unrolled():
    fused = Recipe("fused", "", StagesRecipe(min_flops=0), loop=LoopRecipe(form="fused"))
    with pytest.raises(ConfigError, match="unrolls a loop that the data ends"):
        stage(capture(ending(5)), HOST, fused)


def test_two_declared_loops_in_a_row():
    def observe(state):
        for _ in range(2):
            state = vc.iterate(lambda k, x: torch.tanh(x) * 0.9, state * 1.3, 5, until=lambda x: x.sum() < 1.0)
        return {"action": state[None]}

    policy = vc.Policy("twice", observe, {"state": vc.Source("observation")}, {"state": torch.full((1, 4), 0.4)})
    staging = verified(policy, HOST, EVERY).staging
    assert [s.iterations for s in staging.staged.stages if s.end is not None] == [5, 5]
    for start in (0.1, 0.3, 0.6, 2.0):
        state = {"state": torch.full((1, 4), start)}
        assert torch.allclose(run_staged(staging.staged, dict(state))["action"], policy.infer(**state)["action"])


def test_what_nothing_reads_after_the_loop_keeps_the_last_iteration_alike():
    """The state is what the next iteration starts from; of the last one only the sum is read."""
    weight = torch.nn.Linear(4, 4)

    def observe(state):
        def step(k, carried):
            x, total = carried
            total = total + x.sum()[None]
            return torch.tanh(weight(x)), total

        _, total = vc.iterate(step, (state.clone(), torch.zeros(1)), 9, until=lambda carried: carried[1] > 1.0)
        return {"action": total[None, None]}

    policy = vc.Policy("partly", observe, {"state": vc.Source("observation")}, {"state": torch.full((1, 4), 0.2)})
    for whole in (False, True):
        with verification("full"):  # the types of all values are computed again
            staged = stage(capture(policy, whole), HOST, EVERY).staged
        step = next(s for s in staged.stages if s.iterations > 1)
        assert step.iterations == 9 and step.end is not None


def test_a_loop_that_reads_another_in_every_iteration_is_found_whole():
    """What its first iteration computes before it reads the other does not wait for that."""
    inner, outer, read = (torch.nn.Linear(4, 4) for _ in range(3))

    def observe(state, noise):
        text, _ = vc.iterate(lambda k, s: (torch.tanh(inner(s[0])), s[1] + 1), (state.clone(), torch.zeros(1)), 6,
                             until=lambda s: s[0].sum() < 0.1)
        for _ in range(5):
            first = outer(noise)
            noise = noise + torch.tanh(first + read(text)) * torch.sin(outer(first))
        return {"action": noise[None]}

    policy = vc.Policy("after", observe, {"state": vc.Source("observation"), "noise": vc.Source("step")},
                       {"state": torch.ones(1, 4), "noise": torch.full((1, 4), 0.3)})
    staged = stage(capture(policy, whole=True), HOST, EVERY).staged
    assert sorted(s.iterations for s in staged.stages if s.iterations > 1) == [5, 6]
    for value in (0.3, -0.8):
        inputs = {"state": torch.full((1, 4), value), "noise": torch.full((1, 4), 2 * value)}
        assert torch.allclose(run_staged(staged, dict(inputs))["action"], policy.infer(**inputs)["action"], atol=1e-5)


def test_of_two_loops_that_are_traced_in_part_each_has_its_own_iterations():
    inner, outer = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def observe(state, noise):
        text, _ = vc.iterate(lambda k, s: (torch.tanh(inner(s[0])), s[1] + 1), (state.clone(), torch.zeros(1)), 40,
                             until=lambda s: s[0].sum() < -3)
        for _ in vc.iterations(10):
            noise = noise - torch.tanh(outer(noise)) * text
        return {"action": noise[None]}

    policy = vc.Policy("both", observe, {"state": vc.Source("observation"), "noise": vc.Source("step")},
                       {"state": torch.ones(1, 4), "noise": torch.full((1, 4), 0.3)})
    program = capture(policy)
    assert program.iterations == {0: 40, 1: 10}
    staged = stage(program, HOST, EVERY)
    assert staged.complete and sorted(s.iterations for s in staged.staged.stages if s.iterations > 1) == [10, 40]


def test_a_flag_that_starts_as_a_constant_does_not_make_the_first_iteration_another():
    """A choice between booleans is written with other ops, as is one between constants that a loop starts from."""
    linear, rows = torch.nn.Linear(4, 4), torch.eye(9, dtype=torch.bool)

    def observe(state):
        def step(k, s):
            return torch.tanh(linear(s[0])) + state, s[1] | rows[k]

        x, written = vc.iterate(step, (state * 1.0, torch.zeros(1, 9, dtype=torch.bool)), 9,
                                until=lambda s: s[0].sum() > 1)
        return {"action": x[None] + written.sum()}

    policy = vc.Policy("flags", observe, {"state": vc.Source("observation")}, {"state": torch.randn(1, 4)})
    staging = stage(capture(policy), HOST, EVERY)
    step = next(s for s in staging.staged.stages if s.iterations > 1)
    assert staging.complete and step.iterations == 9 and step.end is not None
