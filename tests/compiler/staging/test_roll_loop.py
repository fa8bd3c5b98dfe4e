"""Loops: found by re-rolling, peeled, extrapolated from three iterations; every sampler through libvlart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from tests.samples.staged_reference import run_staged
from tests.samples.staging import verified
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import op_name
from vlacompile.compiler.graph.shortened_loops import times
from vlacompile.compiler.staging.loop_candidates import Candidate, trace_of
from vlacompile.compiler.staging.roll_loop import NoLoop, roll
from vlacompile.frontends import samplers
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.recipe import LoopRecipe, Recipe, StagesRecipe
from vlart.verify.metrics import compare
from vlart.verify.tolerances import tolerance

HOST = load_target("host")
EVERY = Recipe("every-stage", "", StagesRecipe(min_flops=0), loop=LoopRecipe(form="steps"))


class Denoiser(torch.nn.Module):
    """A network that is told the sample, the timestep and a condition."""

    def __init__(self, d: int = 16, dim: int = 7, condition: int = 9):
        super().__init__()
        self.time = torch.nn.Sequential(torch.nn.Linear(8, d), torch.nn.SiLU(), torch.nn.Linear(d, d))
        self.inward, self.outward = torch.nn.Linear(dim, d), torch.nn.Linear(d, dim)
        self.condition = torch.nn.Linear(condition, d)

    def forward(self, sample, timestep, condition):
        angles = timestep.float() * 0.01 * torch.exp(-torch.arange(8.0) * 0.5)
        hidden = self.inward(sample) + self.time(torch.sin(angles)) + self.condition(condition)[:, None]
        return self.outward(torch.relu(hidden))


def spaced(make, steps: int, predicts: str = "epsilon", clip: float | None = 1.0) -> samplers.Sampler:
    """A sampler over a hundred training steps."""
    bars = [(1 - t / 101) ** 2 for t in range(101)]
    at = [100 - round(i * 100 / steps) for i in range(steps + 1)]
    return make(at[:-1], [bars[t] for t in at], predicts, clip)


SAMPLERS = {
    "ddpm-100": spaced(samplers.ddpm, 100),
    "ddpm-sample": spaced(samplers.ddpm, 20, "sample"),
    "ddim-10": spaced(samplers.ddim, 10),
    "ddim-sample": spaced(samplers.ddim, 4, "sample", None),
    "dpm-solver-20": spaced(samplers.dpm_solver, 20),
    "dpm-solver-5": spaced(samplers.dpm_solver, 5, "sample", None),
    "flow-towards-zero": samplers.euler([1.0 - k / 10 for k in range(11)]),
    "flow-towards-one": samplers.euler([k / 4 for k in range(5)]),
}


def denoising(sampler: samplers.Sampler, guidance: float | None = None) -> vc.Policy:
    torch.manual_seed(0)
    net = Denoiser().eval().requires_grad_(False)

    def observe(state, noise, fresh=None):
        predict = net
        if guidance is None:
            return {"action": sampler.denoise(lambda x, t: predict(x, t, state), noise, fresh)}
        return {"action": sampler.denoise(samplers.guided(predict, state, torch.zeros_like(state), guidance),
                                          noise, fresh)}

    inputs = {"state": torch.randn(1, 9), "noise": torch.randn(1, 16, 7)}
    if sampler.needs(samplers.FRESH):
        inputs["fresh"] = torch.randn(len(sampler.rows), 16, 7)
    sources = {n: vc.Source("observation" if n == "state" else "step") for n in inputs}
    return vc.Policy("denoising", observe, sources, inputs)


@pytest.mark.parametrize("guidance", [None, 1.5], ids=["plain", "guided"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_one_loop_with_its_schedule_in_tables(name, guidance):
    policy, count = denoising(SAMPLERS[name], guidance), len(SAMPLERS[name].rows)
    staging = verified(policy, HOST, EVERY).staging
    step = next(s for s in staging.staged.stages if s.name == "step")
    assert step.iterations == count
    assert len(step.carries) == (2 if "dpm-solver" in name else 1)  # the clean estimate of the step before
    assert staging.program.iterations == ({0: count} if count > 4 else {}), "long loops are traced in part"
    assert not any("time" in n for s in staging.staged.stages for n in s.constants), "the time network is folded"
    got = run_staged(staging.staged, dict(policy.example_inputs))["action"]
    want = policy.infer(**policy.example_inputs)["action"]
    assert compare(got.numpy(), want.numpy()).within(tolerance("f32", "chunk").limit(want.numpy()))


@pytest.mark.parametrize("name", [pytest.param("ddpm-100", marks=pytest.mark.full), "ddpm-sample", "dpm-solver-20"])
def test_a_sampler_through_libvlart(name, tmp_path):
    policy = denoising(SAMPLERS[name], 1.5)
    bundle = vc.build(policy, out=tmp_path / "a.vlab")
    with vc.Session(bundle.path) as session:
        for seed in range(3):
            torch.manual_seed(seed)
            seen = {n: torch.randn(t.shape) for n, t in policy.example_inputs.items()}
            for n, tensor in seen.items():
                session.write(n, tensor.numpy())
            session.step()
            got, want = session.read("action"), policy.infer(**seen)["action"].numpy()
            assert compare(got, want).within(tolerance("f32", "chunk").limit(want))
        session.write("noise", -seen["noise"].numpy())
        session.step()
        assert not compare(session.read("action"), want).within(tolerance("f32", "chunk").limit(want))


def _looped(body, count: int = 12) -> vc.Policy:
    """x <- body(x, k), `count` times."""
    def observe(state, noise):
        x = noise + state
        for k in vc.iterations(count):
            x = body(x, k)
        return {"action": x}

    return vc.Policy("looped", observe, {"state": vc.Source("observation"), "noise": vc.Source("step")},
                     {"state": torch.randn(1, 3, 4), "noise": torch.randn(1, 3, 4)})


SCHEDULE = torch.linspace(0.9, 1.5, 12)
FALLBACKS = {
    "a number computed from the index": lambda x, k: torch.tanh(x) + 0.01 * k * x,
    "a last step of its own": lambda x, k: x if k == 11 else torch.tanh(x) * SCHEDULE[k],
    "a condition on the index": lambda x, k: torch.tanh(x) * SCHEDULE[k] if k < 6 else torch.sin(x) * SCHEDULE[k],
}


@pytest.mark.parametrize("why", FALLBACKS)
def test_what_does_not_follow_from_three_iterations_is_traced_whole(why):
    policy = _looped(FALLBACKS[why])
    staging = verified(policy, HOST, EVERY).staging
    assert not staging.program.iterations
    assert any("than follows from its first 3" in n and "test_roll_loop.py" in n for n in staging.notes)
    got = run_staged(staging.staged, dict(policy.example_inputs))["action"]
    assert torch.allclose(got, policy.infer(**policy.example_inputs)["action"], atol=1e-5)


def test_a_table_with_too_few_rows_is_not_extrapolated():
    policy = _looped(lambda x, k: torch.tanh(x) * SCHEDULE[:3][min(k, 2)])
    staging = stage(capture(policy), HOST, EVERY)
    assert not staging.program.iterations and any("than follows from its first 3" in n for n in staging.notes)


def test_a_first_iteration_of_its_own_stays_in_front():
    """It starts from a constant, so that a part of it is folded and it has another graph than the others."""
    torch.manual_seed(0)
    mix = torch.nn.Linear(4, 4).eval().requires_grad_(False)

    def observe(state, noise):
        before, x = torch.zeros(1, 3, 4), noise + state
        for k in vc.iterations(12):
            before, x = x, torch.tanh(mix(x)) + SCHEDULE[k] * mix(before)
        return {"action": x}

    policy = vc.Policy("peeled", observe, {"state": vc.Source("observation"), "noise": vc.Source("step")},
                       {"state": torch.randn(1, 3, 4), "noise": torch.randn(1, 3, 4)})
    staging = verified(policy, HOST, EVERY).staging
    assert staging.program.iterations == {0: 12}
    step = next(s for s in staging.staged.stages if s.name == "step")
    assert step.iterations == 11
    got = run_staged(staging.staged, dict(policy.example_inputs))["action"]
    assert torch.allclose(got, policy.infer(**policy.example_inputs)["action"], atol=1e-5)


def _two_partial_loops(second: int, inside: bool = False) -> vc.Policy:
    """A loop of twelve iterations, whose result another of `second` reads; or one inside of another."""
    torch.manual_seed(0)
    one, two = (torch.nn.Linear(4, 4).eval().requires_grad_(False) for _ in range(2))

    def observe(state, noise):
        x = noise + state
        for k in vc.iterations(12):
            x = torch.tanh(one(x)) * SCHEDULE[k]
            for _ in vc.iterations(second if inside else 0):
                x = x + torch.sin(two(x))
        for k in vc.iterations(0 if inside else second):
            x = x + torch.sin(two(x)) * SCHEDULE[k]
        return {"action": x}

    return vc.Policy("two", observe, {"state": vc.Source("observation"), "noise": vc.Source("step")},
                     {"state": torch.randn(1, 3, 4), "noise": torch.randn(1, 3, 4)})


@pytest.mark.parametrize("second", [7, 12])
def test_of_each_of_two_loops_the_first_iterations_are_traced(second):
    policy, said = _two_partial_loops(second), []
    staging = verified(policy, HOST, EVERY, said.append).staging
    assert staging.program.iterations == {0: 12, 1: second}
    assert [s.iterations for s in staging.staged.stages if s.carries] == [12, second]
    assert not any("with all iterations" in s for s in said)
    got = run_staged(staging.staged, dict(policy.example_inputs))["action"]
    assert torch.allclose(got, policy.infer(**policy.example_inputs)["action"], atol=1e-5)


def test_a_loop_inside_of_one_that_is_traced_in_part_is_traced_whole():
    policy = _two_partial_loops(6, inside=True)
    staging = verified(policy, HOST, EVERY).staging
    assert staging.program.iterations == {0: 12}
    assert [s.iterations for s in staging.staged.stages if s.carries] == [12]
    got = run_staged(staging.staged, dict(policy.example_inputs))["action"]
    assert torch.allclose(got, policy.infer(**policy.example_inputs)["action"], atol=1e-5)


def test_where_one_of_two_loops_does_not_follow_from_three_iterations_all_are_traced():
    def observe(state, noise):
        x = noise + state
        for k in vc.iterations(12):
            x = torch.tanh(x) * SCHEDULE[k]
        for k in vc.iterations(7):
            x = torch.sin(x) + 0.01 * k * x
        return {"action": x}

    policy = vc.Policy("mixed", observe, {"state": vc.Source("observation"), "noise": vc.Source("step")},
                       {"state": torch.randn(1, 3, 4), "noise": torch.randn(1, 3, 4)})
    staging = verified(policy, HOST, EVERY).staging
    assert not staging.program.iterations
    got = run_staged(staging.staged, dict(policy.example_inputs))["action"]
    assert torch.allclose(got, policy.infer(**policy.example_inputs)["action"], atol=1e-5)


@pytest.mark.parametrize("make", [lambda: _two_partial_loops(7), lambda: denoising(SAMPLERS["dpm-solver-20"], 1.5)])
def test_the_work_of_iterations_that_were_not_traced_is_counted(make):
    part, whole = capture(make()), capture(make(), whole=True)
    work = lambda program, count: sum(flops(n) * count(program, n) for n in program.graph.nodes)
    assert work(part, times) == work(whole, times) == work(whole, lambda *_: 1) > work(part, lambda *_: 1)


def test_two_loops_in_one_policy(tmp_path):
    """A recurrence over a weight, that starts from an observation, and a denoising loop that reads its result."""
    torch.manual_seed(0)
    reason, flow = torch.nn.Linear(8,
                                   8).eval().requires_grad_(False), Denoiser(condition=8).eval().requires_grad_(False)

    def observe(image, noise):
        thought = image
        for _ in range(5):
            thought = torch.tanh(reason(thought))
        return {"action": samplers.euler([k / 4 for k in range(5)]).denoise(lambda x, t: flow(x, t, thought), noise)}

    policy = vc.Policy("two-loops", observe, {"image": vc.Source("observation"), "noise": vc.Source("step")},
                       {"image": torch.randn(1, 8), "noise": torch.randn(1, 16, 7)})
    (tmp_path / "every.toml").write_text(policies.EVERY_STAGE, encoding="utf-8")
    bundle = vc.build(policy, recipe=str(tmp_path / "every.toml"), out=tmp_path / "a.vlab")
    assert sorted(s.iterations for s in bundle.plan.stages if s.carries) == [4, 5]
    with vc.Session(bundle.path) as session:
        for n, tensor in policy.example_inputs.items():
            session.write(n, tensor.numpy())
        session.step()
        want = policy.infer(**policy.example_inputs)["action"].numpy()
        assert np.abs(session.read("action") - want).max() < 1e-5


def test_a_loop_whose_body_is_always_the_same_runs_once():
    """RT-1 decodes eleven tokens with the tokens of the action zeroed: eleven times one and the same forward pass."""
    torch.manual_seed(0)
    layer, head = torch.nn.Linear(8,
                                  8).eval().requires_grad_(False), torch.nn.Linear(8, 32).eval().requires_grad_(False)

    def observe(image):
        tokens = [head(torch.relu(layer(image * 1.0)))[:, k * 4: k * 4 + 4].argmax(-1) for k in range(8)]
        return {"action_tokens": torch.stack(tokens, 1)}

    policy = vc.Policy("invariant", observe, {"image": vc.Source("observation")}, {"image": torch.randn(1, 8)},
                       outputs=("action_tokens",))
    staged = stage(capture(policy), HOST, EVERY).staged
    assert [s.iterations for s in staged.stages] == [1]
    assert sum("linear" in str(n.target) for n in staged.stages[0].graph.nodes) == 2


def test_an_output_with_the_name_of_an_input_is_refused():
    with pytest.raises(vc.VlaError, match="names an input and an output"):
        vc.Policy("same", lambda state: {"state": state}, {"state": vc.Source("observation")},
                  {"state": torch.randn(1, 2)}, outputs=("state",))


def test_the_flow_of_the_small_policies_is_traced_whole():
    """Its times are numbers computed from the index, in a plain `range`."""
    assert not capture(policies.flow(10)).iterations


def _same_as_written(observe, **inputs):
    """The stages of a policy of `noise` and observations; they give what it gives."""
    sources = {n: vc.Source("step" if n == "noise" else "observation") for n in inputs}
    policy = vc.Policy("looped", observe, sources, inputs)
    staging = verified(policy, HOST, EVERY).staging
    got = run_staged(staging.staged, dict(policy.example_inputs))["action"]
    assert torch.allclose(got, policy.infer(**policy.example_inputs)["action"], atol=1e-5)
    return staging.staged


TERMS = {
    "a number": lambda obs, i: obs.abs() if i == 0 else 0.1 * i,
    "an integer": lambda obs, i: 1 if i == 2 else obs * float(i),
    "of another shape": lambda obs, i: obs.abs() if i == 0 else obs.mean() * float(i),
    "of another type": lambda obs, i: obs.abs() if i == 0 else (obs > 0.1 * i),
}


@pytest.mark.parametrize("term", TERMS)
def test_a_term_that_is_something_else_in_some_iterations(term):
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 8).eval().requires_grad_(False)

    def observe(obs, noise):
        for i in range(4):
            noise = torch.tanh(linear(noise)) + torch.relu(obs + TERMS[term](obs, i))
        return {"action": noise[:, None]}

    staged = _same_as_written(observe, obs=torch.randn(1, 8), noise=torch.randn(1, 8))
    assert [s.iterations for s in staged.stages if s.carries] == [4]


def test_parts_of_a_concatenation_that_are_of_other_sizes_in_some_iterations():
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 8).eval().requires_grad_(False)

    def observe(obs, noise):
        for i in range(4):
            cut = 3 if i == 0 else 5
            noise = torch.tanh(linear(noise)) + torch.cat([obs[:, :cut].sin(), obs[:, cut:].cos()], 1)
        return {"action": noise[:, None]}

    _same_as_written(observe, obs=torch.randn(1, 8), noise=torch.randn(1, 8))


@pytest.mark.parametrize("read",
                         [lambda m: m.chunk(2, -1), lambda m: m.split([4, 4], -1), lambda m: m.view(1, 2, 4).unbind(1)],
                         ids=["chunk", "split", "unbind"])
@pytest.mark.parametrize("ahead", [True, False], ids=["before the loop", "in the loop"])
def test_modulations_that_are_taken_apart(read, ahead):
    """adaLN, whose scales and shifts are several results of one op."""
    torch.manual_seed(0)
    mix, modulate = torch.nn.Linear(4,
                                    4).eval().requires_grad_(False), torch.nn.Linear(4, 8).eval().requires_grad_(False)

    def observe(obs, noise):
        parts = [read(modulate(torch.relu(obs + 0.1 * i))) for i in range(4)] if ahead else None
        for i in range(4):
            scale, shift = parts[i] if ahead else read(modulate(torch.relu(obs + 0.1 * i)))
            noise = torch.tanh(mix(noise)) * (1 + scale) + shift
        return {"action": noise[:, None]}

    staged = _same_as_written(observe, obs=torch.randn(1, 4), noise=torch.randn(1, 4))
    assert [s.iterations for s in staged.stages if s.carries] == [4]


def test_loops_one_after_the_other_and_one_inside_of_another():
    torch.manual_seed(0)
    linears = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)]).eval().requires_grad_(False)

    def after(obs):
        for linear in linears:
            for _ in range(4):
                obs = torch.tanh(linear(obs))
        return {"action": obs[:, None]}

    def inside(obs):
        for _ in range(4):
            for _ in range(3):
                obs = torch.tanh(linears[0](obs))
            obs = torch.relu(linears[1](obs)) + obs.mean()
        return {"action": obs[:, None]}

    staged = _same_as_written(after, obs=torch.randn(1, 4))
    assert [s.iterations for s in staged.stages if s.carries] == [4, 4, 4]
    _same_as_written(inside, obs=torch.randn(1, 4))


def test_a_result_of_an_op_of_several_outside_of_the_body_is_no_row():
    def observe(obs, noise):
        for i in range(3):
            noise = torch.tanh(noise) * (obs * float(i)).chunk(2, -1)[0]
        return {"action": noise}

    policy = vc.Policy("several", observe, {"obs": vc.Source("observation"), "noise": vc.Source("step")},
                       {"obs": torch.randn(1, 1, 8), "noise": torch.randn(1, 1, 4)})
    names = ("tanh", "getitem", "mul.Tensor")
    nodes = [n for n in capture(policy).graph.nodes if n.op == "call_function" and op_name(n.target) in names
             and n.meta["val"].shape[-1] == 4]
    period = len(nodes) // 3
    assert any(op_name(n.target) == "getitem" for n in nodes[:period])
    with pytest.raises(NoLoop, match="one of several results"):
        roll(trace_of(nodes), Candidate(0, period, 3))
