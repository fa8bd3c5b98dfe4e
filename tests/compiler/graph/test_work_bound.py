"""What a pass does grows with the graph and not faster, and a pass that does not come to an end says its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Graph

import vlacompile as vc
from tests.compiler.passes.test_split_batch_by_rate import count
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import Program, ProgramEditor, execute
from vlacompile.compiler.graph.rolled_loop import size_of
from vlacompile.compiler.graph.work_bound import bounded, spend
from vlacompile.compiler.passes.collapse_linear_chains import CollapseLinearChains
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.compiler.passes.fold_batch_norms import FoldBatchNorms
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.initialise_empty import InitialiseEmpty
from vlacompile.compiler.passes.pass_list import FUSED_PASSES, LOOP_PASSES, graph_passes
from vlacompile.compiler.passes.pass_manager import run_passes
from vlacompile.compiler.staging.find_loop import find_loop
from vlacompile.compiler.staging.partition import is_loop, partition
from vlacompile.compiler.staging.stages import build_stages

PASSES = graph_passes(is_translated, decompositions)

OBSERVED, STEP = vc.Source("observation"), vc.Source("step")
FASTER = 1.15  # 2.3 times the work on a graph of twice the size
BASE = 2000  # calls of a pass on next to nothing


def _policy(observe, sources: dict, **inputs) -> vc.Policy:
    return vc.Policy("growing", observe, {n: sources.get(n, OBSERVED) for n in inputs}, inputs)


def _linears(n: int, d: int = 8) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(d, d) for _ in range(n)]).eval().requires_grad_(False)


def cameras(n: int) -> vc.Policy:
    """A stack of n cameras, taken apart by index."""
    convs = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]).eval()

    def observe(**frames):
        images, seen = torch.stack(list(frames.values()), 1), []
        for i in range(n):
            x = images[:, i]
            for conv in convs:
                x = torch.relu(x + conv(x))
            seen.append(x.mean((2, 3)))
        return {"action": torch.cat(seen, 1)[:, None]}

    return _policy(observe, {}, **{f"c{i}": torch.randn(1, 3, 8, 8) for i in range(n)})


def residual(n: int) -> vc.Policy:
    """Two stacked cameras, n blocks deep."""
    convs = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(n)]).eval()

    def observe(a, b):
        images, seen = torch.stack([a, b], 1), []
        for i in range(2):
            x = images[:, i]
            for conv in convs:
                x = torch.relu(x + conv(x))
            seen.append(x.mean((2, 3)))
        return {"action": torch.cat(seen, 1)[:, None]}

    return _policy(observe, {}, a=torch.randn(1, 3, 8, 8), b=torch.randn(1, 3, 8, 8))


def layers(n: int) -> vc.Policy:
    """A transformer over instruction and image tokens, whose mask every layer changes."""
    linears = _linears(4 * n)

    def observe(task, image, pad):
        x, mask = torch.cat([task, image], 1), torch.ones(10, 10).tril() > 0
        for i in range(0, 4 * n, 4):
            q, k, v = (linears[i + j](x).view(1, 10, 2, 4).transpose(1, 2) for j in range(3))
            mask = torch.logical_and(mask, pad) if i % 8 else mask | (pad & mask)
            seen = F.scaled_dot_product_attention(q, k, v, mask[None, None])
            x = x + linears[i + 3](seen.transpose(1, 2).reshape(1, 10, 8))
        return {"action": x}

    return _policy(observe, {"task": vc.Source("task")}, task=torch.randn(1, 6, 8), image=torch.randn(1, 4, 8),
                   pad=torch.ones(10, 10, dtype=torch.bool))


def iterations(n: int) -> vc.Policy:
    net = nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 8)).eval()

    def observe(state, noise):
        for i in range(n):
            noise = noise + net(torch.cat([noise, torch.relu(state * float(i))], -1)) * 0.1
        return {"action": noise}

    return _policy(observe, {"noise": STEP}, state=torch.randn(1, 1, 8), noise=torch.randn(1, 1, 8))


def irregular(n: int) -> vc.Policy:
    """Unrolled, and no loop."""
    linear, kinds = _linears(1)[0], (torch.tanh, torch.relu, torch.sin, torch.cos, torch.sigmoid, F.silu, F.gelu)
    chosen = torch.randint(0, 7, (n,), generator=torch.Generator().manual_seed(0)).tolist()

    def observe(state, noise):
        for i in chosen:
            noise = kinds[i](noise) * state if i == 3 else noise + kinds[i](linear(noise))
        return {"action": noise}

    return _policy(observe, {"noise": STEP}, state=torch.randn(1, 1, 8), noise=torch.randn(1, 1, 8))


def loops(n: int) -> vc.Policy:
    """n loops one after the other."""
    linears = _linears(n)

    def observe(state):
        for linear in linears:
            for _ in range(4):
                state = torch.tanh(linear(state))
        return {"action": state[:, None]}

    return _policy(observe, {}, state=torch.randn(1, 8))


def scatters(n: int) -> vc.Policy:
    """Rows and elements written one by one."""
    def observe(state, noise):
        x = noise * 2
        for i in range(n):
            x[:, i] = state * float(i)
            x[0, i, 0] = 1.0
        return {"action": x + noise}

    return _policy(observe, {"noise": STEP}, state=torch.randn(1, 8), noise=torch.randn(1, n, 8))


def concatenations(n: int) -> vc.Policy:
    linear = _linears(1)[0]

    def observe(a, b):
        for i in range(n):
            a = torch.tanh(linear(torch.cat([a, b * float(i)], 1)))[:, :1]
        return {"action": a}

    return _policy(observe, {}, a=torch.randn(1, 1, 8), b=torch.randn(1, 1, 8))


def histories(n: int) -> vc.Policy:
    linear = _linears(1)[0]

    def observe(**seen):
        return {"action": torch.cat([torch.relu(linear(v)).flatten(1) for v in seen.values()], 1)[:, None]}

    inputs = {f"h{i}": torch.randn(1, 3, 8) for i in range(n)}
    return _policy(observe, dict.fromkeys(inputs, vc.Source("observation", history=3)), **inputs)


def sources(n: int) -> vc.Policy:
    """n sources, each a stage too small for a launch."""
    linears = _linears(n)

    def observe(**seen):
        x = torch.zeros(1, 8)
        for linear, value in zip(linears, seen.values(), strict=True):
            x = torch.tanh(linear(value) + x)
        return {"action": x[:, None]}

    return _policy(observe, {}, **{f"s{i}": torch.randn(1, 8) for i in range(n)})


GROWING: dict[Callable, int] = {cameras: 8, residual: 8, layers: 6, iterations: 20, irregular: 120, loops: 8,
                                scatters: 15,
                                concatenations: 30, histories: 10, sources: 12}


def _calls(step: Callable):
    """(what it returns, how many functions are called for it)"""
    done = 0

    def seen(frame, event, arg):
        nonlocal done
        done += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        result = step()
    finally:
        sys.setprofile(None)
    return result, done


def _work(policy: vc.Policy) -> dict[str, tuple[int, int]]:
    """{pass: (calls, nodes and edges that it was given)}"""
    found, program = {}, capture(policy, whole=True)

    def step(name: str, run: Callable, given: Program):
        size = sum(1 + len(n.all_input_nodes) + (len(n.target.body.nodes) * n.target.iterations if is_loop(n) else 0)
                   for n in given.graph.nodes)
        with bounded(name, size_of(given)) as work:
            result, calls = _calls(run)
        assert work.done < work.limit / 4, f"{name} has room to its bound"
        found[f"{len(found)} {name}"] = calls, size
        return result

    for p in (*PASSES, DelayFrames(0)):
        program = step(type(p).__name__, lambda p=p: p.run(program), program).program
    program = step("find_loop", lambda: find_loop(program), program).program
    for p in LOOP_PASSES:
        program = step(type(p).__name__, lambda p=p: p.run(program), program).program
    fused = program
    for p in FUSED_PASSES:
        fused = step(type(p).__name__, lambda p=p: p.run(fused), fused).program
    for minimum in (0, 10 ** 9):
        parts = step("partition", lambda m=minimum: partition(program, m), program)
    step("build_stages", lambda: build_stages(parts), program)
    return found


@pytest.mark.parametrize("grow", GROWING, ids=lambda g: g.__name__)
def test_twice_the_graph_is_twice_the_work(grow):
    n = GROWING[grow]
    _work(grow(2 * n))  # what is computed once for all
    small, large = _work(grow(n)), _work(grow(2 * n))
    for name, (calls, size) in large.items():
        per_size = max(small[name][0], BASE) / small[name][1]
        assert calls <= BASE or calls / size <= FASTER * per_size, f"{name}: {small[name]} -> {large[name]}"


def test_a_pass_that_finds_nothing_copies_nothing(monkeypatch):
    program, copied, copy = capture(layers(2), whole=True), [], Graph.node_copy
    for p in PASSES:
        program = p.run(program).program
    monkeypatch.setattr(Graph, "node_copy", lambda self, node, *of: copied.append(node) or copy(self, node, *of))
    for p in (InitialiseEmpty(), FoldBatchNorms(), CollapseLinearChains(), EliminateCommonSubexpressions()):
        assert not p.run(program).changed
        assert not copied, p.name
    ProgramEditor(program).copy(next(iter(program.graph.nodes)))
    assert copied


@dataclass(frozen=True)
class Endless(GraphPass):
    def run(self, program: Program) -> PassResult:
        editor, node = ProgramEditor(program), next(iter(program.graph.nodes))
        while True:
            editor.copy(node)


@dataclass(frozen=True)
class Again(GraphPass):
    """Walks over the whole history of every value."""

    def run(self, program: Program) -> PassResult:
        def walk(node):
            spend()
            for i in node.all_input_nodes:
                walk(i)

        walk(program.output_nodes()[0])
        return PassResult(program, False)


@pytest.mark.parametrize("endless", [Endless(), Again()], ids=["loop", "walk"])
def test_a_pass_that_does_not_end_says_its_name(endless):
    def observe(x):
        for _ in range(30):
            x = x * torch.tanh(x)
        return {"action": x}

    program = capture(_policy(observe, {}, x=torch.randn(1, 1, 4)))
    with pytest.raises(vc.VlaError, match=f"{type(endless).__name__} does not come to an end") as raised:
        run_passes(program, (endless,))
    assert len(str(raised.value).splitlines()) == 4


@pytest.mark.parametrize("skip", [lambda x, y, first: x + y, lambda x, y, first: y * torch.sigmoid(x) + first],
                         ids=["residual", "gated with a skip from the first"])
def test_cameras_of_a_stack_are_apart_at_any_depth(skip):
    """Each block doubled the depth of what was asked for; a 32nd one would never have ended."""
    convs = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(32)]).eval()

    def observe(a, b):
        images, seen = torch.stack([a, b], 1), []
        for i in range(2):
            x = first = images[:, i]
            for conv in convs:
                x = torch.relu(skip(x, conv(x), first)) * 0.5
            seen.append(x.mean((2, 3)))
        return {"action": torch.cat(seen, 1)[:, None]}

    policy = _policy(observe, {}, a=torch.randn(1, 3, 8, 8), b=torch.randn(1, 3, 8, 8))
    program = run_passes(capture(policy), PASSES)[0]
    staged = build_stages(partition(program, 0))
    assert count(program, "conv2d") == 64
    assert {s.sources for s in staged.stages if sum(flops(n) for n in s.graph.nodes)} >= {("a",), ("b",)}


def test_an_attention_is_counted_by_its_shapes():
    """With a mask and is_causal there is a kernel on the CPU and none on the meta device."""
    def observe(x):
        q = x.view(1, 4, 2, 8).transpose(1, 2)
        plain = F.scaled_dot_product_attention(q, q, q)
        return {"action": F.scaled_dot_product_attention(q, q, plain, torch.ones(4, 4).tril() > 0, is_causal=True)[0]}

    program = capture(_policy(observe, {}, x=torch.randn(1, 4, 16)))
    counted = [flops(n) for n in program.graph.nodes if n.target is torch.ops.aten.scaled_dot_product_attention.default]
    assert len(set(counted)) == 1 and counted[0] == 2 * 2 * (2 * 4 * 8 * 4)


def test_a_deep_condition_of_a_loop_is_batched():
    """Deeper than calls of Python may be."""
    linears, mix = _linears(150), _linears(1)[0]

    def observe(state, noise):
        for i in range(3):
            condition = state + 0.1 * i
            for linear in linears:
                condition = torch.relu(linear(condition))
            noise = torch.tanh(mix(noise)) * condition
        return {"action": noise}

    policy = _policy(observe, {"noise": STEP}, state=torch.randn(1, 1, 8), noise=torch.randn(1, 1, 8))
    rolled = find_loop(run_passes(capture(policy), PASSES)[0]).program
    program = run_passes(rolled, LOOP_PASSES)[0]
    assert count(program, "linear") == 150
    assert torch.allclose(execute(program, policy.example_inputs)[0]["action"],
                          policy.infer(**policy.example_inputs)["action"], atol=1e-5)
