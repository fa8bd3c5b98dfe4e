"""Staging: dependency sets, cuts, merging, loops; on random graphs and on the small policies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samples import policies
from tests.samples.staged_reference import run_staged
from vlacompile.compiler.capture.export import capture
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.policy.policy import Loop, Policy, Source
from vlacompile.recipe.recipe import LoopRecipe, Recipe, StagesRecipe, load_recipe

HOST = load_target("host")
EVERY = Recipe("every-stage", "", StagesRecipe(min_flops=0), loop=LoopRecipe(form="steps"))


def staged_of(policy: Policy, recipe: Recipe = EVERY):
    return stage(capture(policy), HOST, recipe).staged


def transitive_sources(staged) -> dict[str, set[str]]:
    """{stage: sources that its ports reach}, from the ports alone."""
    reaches = {n: {n} for n in staged.program.sources}
    reaches |= {n: set() for n in staged.constants}
    out = {}
    for s in staged.stages:
        found = set()
        for name in [p.value for p in s.inputs] + [c.initial for c in s.carries]:
            found |= reaches[name]
        out[s.name] = found
        reaches |= {p.value: found for p in s.outputs}
    return out


class RandomGraph(torch.nn.Module):
    """Ops drawn by hypothesis over square tensors, so that every pair of values fits."""

    def __init__(self, moves, outputs):
        super().__init__()
        self.moves, self.outputs = moves, outputs
        self.weights = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(i))) for i in range(3)])

    def forward(self, **inputs):
        values = list(inputs.values())
        for kind, a, b in self.moves:
            x, y = values[a % len(values)], values[b % len(values)]
            values.append({
                "add": lambda x=x, y=y: x + y,
                "matmul": lambda x=x, y=y: torch.matmul(x, y).tanh(),
                "linear": lambda x=x, b=b: torch.nn.functional.linear(x, self.weights[b % 3]),
                "transpose": lambda x=x: x.transpose(1, 2),
                "view": lambda x=x: x[:, :1].expand(1, 4, 4),
                "constant": lambda x=x: x * (torch.arange(4.0) / 4).exp(),
                "tokens": lambda x=x, y=y, b=b: torch.nn.functional.linear(
                    torch.cat([x, y], 1), self.weights[b % 3])[:, 2:6],
            }[kind]())
        return {f"out{i}": values[(len(values) - 1 - o) % len(values)] * (i + 1.5) for i, o in enumerate(self.outputs)}


KINDS = ["add", "matmul", "linear", "transpose", "view", "constant", "tokens"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sources=st.integers(1, 4), moves=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 20),
       st.integers(0, 20)), min_size=1, max_size=14), outputs=st.lists(st.integers(0, 6), min_size=1, max_size=2),
       min_flops=st.sampled_from([0, 200, 10**6]))
def test_no_stage_depends_on_a_source_outside_its_set(sources, moves, outputs, min_flops):
    inputs = {f"s{i}": torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(sources)}
    update = ["task", "observation", "observation", "tick"]
    names = tuple(f"out{i}" for i in range(len(outputs)))
    policy = Policy("random", RandomGraph(moves, outputs).eval(),
                    {n: Source(update[i]) for i, n in enumerate(inputs)}, inputs, outputs=names)
    staged = staged_of(policy, Recipe("r", "", StagesRecipe(min_flops)))
    for s in staged.stages:
        assert transitive_sources(staged)[s.name] <= set(s.sources)
    got = run_staged(staged, inputs)
    for name, want in policy.infer(**inputs).items():
        assert torch.allclose(got[name], want, rtol=1e-4, atol=1e-4)


def test_late_fusion_falls_into_language_cameras_state_and_fusion():
    staged = staged_of(policies.late_fusion())
    sets = {s.name: set(s.sources) for s in staged.stages}
    assert sets["vision.base"] == {"observation.images.base"}
    assert sets["vision.wrist"] == {"observation.images.wrist"}
    assert sets["language"] == {"observation.language.tokens"}
    assert sets["state"] == {"observation.state"}
    assert len(sets["fusion"]) == 5 and len(sets) == 5


def test_keys_and_values_of_the_language_are_cached():
    """The Linear over the concatenated memory is split: the language stage hands on keys and values."""
    staged = staged_of(policies.late_fusion())
    language = next(s for s in staged.stages if s.name == "language")
    assert [staged.types[p.value].dims for p in language.outputs] == [(1, 6, 64), (1, 6, 64)]


def test_masks_and_casts_are_recomputed_by_their_consumer():
    staged = staged_of(policies.late_fusion())
    fusion = next(s for s in staged.stages if s.name == "fusion")
    assert "observation.language.attention_mask" in {p.value for p in fusion.inputs}


def test_small_stages_merge_into_a_consumer_where_that_is_exact():
    staged = staged_of(policies.late_fusion(), load_recipe(None))
    assert "state" not in {s.name for s in staged.stages} and staged.merged
    for s in staged.stages:
        assert transitive_sources(staged)[s.name] <= set(s.sources)


@pytest.mark.parametrize("iterations", [2, 3, 4, 10])
def test_the_loop_is_found_and_rolled_up(iterations):
    policy = policies.flow(iterations)
    staged = staged_of(policy)
    step = next(s for s in staged.stages if s.name == "step")
    assert step.iterations == iterations and len(step.carries) == 1
    modes = [p.mode for p in step.inputs]
    assert modes.count("carry") == 1 and modes.count("row") == 4
    assert all(staged.types[p.value].dims[0] == iterations for p in step.inputs if p.mode == "row")
    got = run_staged(staged, dict(policy.example_inputs))["action"]
    assert (got - policy.infer(**policy.example_inputs)["action"]).abs().max() < 5e-6


def test_what_the_loop_does_not_change_is_outside_of_it():
    """Keys and values of the prefix are hoisted, the time embedding is a constant table, and the time
    network's weights have left the step."""
    staged = staged_of(policies.flow())
    step = next(s for s in staged.stages if s.name == "step")
    assert not any("time" in name or "kv" in name or "modulation" in name for name in step.constants)
    assert any("constant" in p.value for p in step.inputs if p.mode == "row")
    assert not any("time" in name for s in staged.stages for name in s.constants)


class Layers(torch.nn.Module):
    """Equal layers with different weights: not iterations."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(4)])

    def forward(self, noise, state):
        x = noise + state
        for layer in self.layers:
            x = torch.relu(layer(x))
        return {"action": x}


def test_layers_are_not_taken_for_iterations():
    policy = Policy("layers", Layers().eval(), {"noise": Source("step"), "state": Source("observation")},
                    {"noise": torch.randn(1, 2, 4), "state": torch.randn(1, 2, 4)})
    result = stage(capture(policy), HOST, EVERY)
    assert all(s.iterations == 1 for s in result.staged.stages)
    assert any("no repeated body" in note for note in result.notes)


def test_a_loop_that_looks_two_iterations_back_carries_two_values():
    def observe(noise, state):
        before, x = noise, noise + state
        for _ in range(4):
            before, x = x, (x * 0.5 + before * 0.25).tanh()
        return {"action": x}

    policy = Policy("two-back", observe, {"noise": Source("step"), "state": Source("observation")},
                    {"noise": torch.randn(1, 2, 4), "state": torch.randn(1, 2, 4)})
    staged = staged_of(policy)
    step = next(s for s in staged.stages if s.name == "step")
    assert step.iterations * len(step.carries) == 4
    got = run_staged(staged, dict(policy.example_inputs))["action"]
    assert torch.allclose(got, policy.infer(**policy.example_inputs)["action"], atol=1e-6)


def test_a_declared_loop_gives_the_stages_of_the_written_one():
    model = policies.flow().observe

    def observe(tokens, image, state, noise):
        pixels = image.permute(0, 3, 1, 2).float() / 255 - 0.5
        seen = model.camera(pixels).flatten(2).transpose(1, 2)
        s = model.state(state)
        return {"memory": torch.cat([model.language(tokens), seen, s[:, None]], 1), "s": s}

    def step(memory, s, action, k):
        return {"action": action + model.velocity(action, memory, s, k / 4) * (0.1 + 0.05 * k)}

    sources, inputs = policies.flow_inputs()
    policy = Policy("declared", observe, sources, inputs, step=step, loop=Loop(4, {"action": "noise"}, index="k"))
    staged = staged_of(policy)
    assert next(s for s in staged.stages if s.name == "step").iterations == 4
    got = run_staged(staged, inputs)["action"]
    assert (got - policy.infer(**inputs)["action"]).abs().max() < 5e-6


def test_a_static_source_is_folded_in():
    model = torch.nn.Linear(4, 4).eval()

    def observe(embodiment, state):
        return {"action": model(state) * embodiment.exp()}

    policy = Policy("static", observe, {"embodiment": Source("static"), "state": Source("observation")},
                    {"embodiment": torch.randn(4), "state": torch.randn(1, 2, 4)})
    staged = staged_of(policy)
    assert set(staged.types) == {"state", "action"}
