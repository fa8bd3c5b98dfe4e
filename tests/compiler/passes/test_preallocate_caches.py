"""Caches that grow become memory for all steps: the same tokens as PyTorch's, in a loop where the steps are alike, and
untouched where nothing is a loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vlacompile as vc
from tests.samples.decoders import Decoder, Indexed, Shape, decoding
from tests.samples.staged_reference import run_staged
from tests.samples.staging import verified
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.graph.verify_program import fault_of
from vlacompile.compiler.passes.preallocate_caches import PreallocateCaches
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.recipe import LoopRecipe, Recipe, StagesRecipe

HOST = load_target("host")
EVERY = Recipe("every-stage", "", StagesRecipe(min_flops=0), loop=LoopRecipe(form="steps"))
SHAPES = {
    "rotary": Shape(),
    "learned": Shape(positions="learned", prompt=7, tokens=6),
    "plain": Shape(attention="plain", layers=3),
    "masked": Shape(masked=True, positions="learned"),
    "masked-plain": Shape(masked=True, attention="plain", tokens=4),
    "every head its own": Shape(groups=4, positions="none", prompt=4, tokens=7),
    "one key for all": Shape(groups=1, layers=1, tokens=8),
}


def drawn(policy: vc.Policy, seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    tokens, image = policy.example_inputs["tokens"], policy.example_inputs["image"]
    found = {"tokens": torch.randint(0, 24, tokens.shape, generator=draw),
             "image": torch.randn(image.shape, generator=draw)}
    if "shown" in policy.example_inputs:
        found["shown"] = torch.rand(policy.example_inputs["shown"].shape, generator=draw) < 0.7
        found["shown"][:, 0] = True
    return found


def same(got: dict, want: dict) -> bool:
    return torch.equal(got["ids"], want["ids"]) and torch.allclose(got["action"], want["action"], atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_the_tokens_are_pytorchs_and_the_steps_are_a_loop(name):
    policy = decoding(SHAPES[name], seed=len(name))
    traced = capture(policy, whole=True)
    rewritten = PreallocateCaches().run(traced).program
    assert fault_of(rewritten, full=True) is None
    staged = stage(traced, HOST, EVERY).staged
    loops = [s for s in staged.stages if s.iterations > 1]
    assert [s.iterations for s in loops] == [SHAPES[name].tokens - 1]
    assert sum(len(s.graph.nodes) for s in staged.stages) < 0.8 * len(traced.graph.nodes)
    other = decoding(SHAPES[name], seed=len(name) + 1)
    differ = 0
    for seed in range(6):
        inputs = drawn(policy, seed)
        want = policy.infer(**inputs)
        assert same(execute(rewritten, inputs)[0], want) and same(run_staged(staged, dict(inputs)), want)
        differ += not torch.equal(other.infer(**inputs)["ids"], want["ids"])
    assert differ > 3, "the control: another decoder says other tokens"


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_long_loop_is_traced_in_part(masked, positions):
    shape = Shape(tokens=12, masked=masked, positions=positions)
    policy, whole = decoding(shape, Indexed), decoding(shape, Decoder)
    staging = verified(policy, HOST, EVERY).staging
    loops = [s.iterations for s in staging.staged.stages if s.iterations > 1]
    assert staging.program.iterations == {0: 11} and loops == [11]
    for seed in range(8):
        inputs = drawn(policy, seed)
        assert same(run_staged(staging.staged, dict(inputs)), whole.infer(**inputs))


@pytest.mark.parametrize("name", ["rotary", "masked-plain"])
def test_through_libvlart(name, tmp_path):
    policy = decoding(SHAPES[name])
    bundle = vc.build(policy, out=tmp_path / "d.vlab")
    spread, apart = policy.observe.bins.std().item(), 0.0
    with vc.Session(bundle.path) as session:
        for seed in range(6):
            inputs = drawn(policy, seed)
            for source, tensor in inputs.items():
                session.write(source, tensor)
            session.step()
            want = policy.infer(**inputs)
            assert np.array_equal(session.read("ids"), want["ids"].numpy())
            apart = max(apart, float(np.abs(session.read("action") - want["action"].numpy()).max()))
    assert apart <= 1e-4 * spread


class Unlike(Decoder):
    """The third token is computed otherwise than the others."""

    def step(self, x, at, mask, caches):
        found = super().step(x, at, mask, caches)
        return found.flip(-1) if at == self.shape.prompt + 1 else found


def test_steps_that_differ_are_no_loop_and_stay_as_they_were():
    policy = decoding(Shape(tokens=4), Unlike)
    traced = capture(policy, whole=True)
    staging = stage(traced, HOST, EVERY)
    assert all(s.iterations == 1 for s in staging.staged.stages)
    assert not any("PreallocateCaches" in note for note in staging.notes)
    for seed in range(6):
        inputs = drawn(policy, seed)
        assert same(run_staged(staging.staged, dict(inputs)), policy.infer(**inputs))
    assert not same(policy.infer(**inputs), decoding(Shape(tokens=4)).infer(**inputs)), "the control"


READS = {
    "the mean of all rows": lambda k, q: k.mean(1, keepdim=True),
    "the first row": lambda k, q: k[:, :1] * 2,
    "the last row": lambda k, q: k[:, -1:] * 2,
    "the last two rows": lambda k, q: k[:, -2:].sum(1, keepdim=True),
    "sorted rows": lambda k, q: k.sort(1)[0][:, :1],
    "a causal attention": lambda k, q: F.scaled_dot_product_attention(k, k, k, is_causal=True)[:, -1:],
    "rows divided by themselves": lambda k, q: torch.softmax(q @ k.transpose(1, 2), -1) @ (k / k.abs()),
    "a product without a softmax": lambda k, q: (q @ k.transpose(1, 2)) @ k,
    "a softmax that hides a row": lambda k, q: torch.softmax(
        (q @ k.transpose(1, 2)).masked_fill(torch.arange(k.shape[1]) == 1, -torch.inf), -1) @ k,
    "a mask of numbers": lambda k, q: F.scaled_dot_product_attention(q, k, k, attn_mask=torch.linspace(
        0, 1, k.shape[1])[None]),
    "every second row": lambda k, q: k[:, ::2].amax(1, keepdim=True),
}


@pytest.mark.parametrize("how", READS)
def test_whatever_reads_what_grows_reads_what_there_is(how):
    """By whatever op: those that mix rows in a way of their own read the rows that there are, and no others."""
    def observe(k, q):
        for _ in range(3):
            k = torch.cat([k, torch.sin(q)], 1)
            q = READS[how](k, q)
        return {"action": q, "grown": k}

    policy = vc.Policy("reads", observe, {"k": vc.Source("observation"), "q": vc.Source("observation")},
                       {"k": torch.randn(1, 3, 4), "q": torch.randn(1, 1, 4)}, outputs=("action", "grown"))
    traced = capture(policy, whole=True)
    result = PreallocateCaches().run(traced)
    assert result.changed and fault_of(result.program, full=True) is None
    for seed in range(4):
        torch.manual_seed(seed)
        inputs = {"k": torch.randn(1, 3, 4), "q": torch.randn(1, 1, 4)}
        got, want = execute(result.program, inputs)[0], policy.infer(**inputs)
        assert all(torch.allclose(got[n], want[n], atol=1e-6, rtol=1e-5) for n in want)


def test_what_does_not_grow_step_by_step_is_left():
    def observe(a, b):
        c = torch.cat([torch.cat([a, b], 1), a * 2], 1)  # three cameras, one behind the other
        return {"action": torch.stack([c.mean(1), c.sum(1), c.amax(1)], 1)}

    policy = vc.Policy("cameras", observe, dict.fromkeys("ab", vc.Source("observation")),
                       {n: torch.randn(1, 2, 4) for n in "ab"})
    assert not PreallocateCaches().run(capture(policy)).changed


def test_node_counts_and_a_bundle_grow_with_the_layers_and_not_with_the_tokens():
    counts = []
    for tokens in (4, 8):
        traced = capture(decoding(replace(SHAPES["rotary"], tokens=tokens)), whole=True)
        staged = stage(traced, HOST, EVERY).staged
        counts.append((len(traced.graph.nodes), sum(len(s.graph.nodes) for s in staged.stages)))
    assert counts[1][0] > 1.6 * counts[0][0] and counts[1][1] == counts[0][1]
