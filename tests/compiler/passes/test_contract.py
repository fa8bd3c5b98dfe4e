"""Every pass on every sample policy, and on programs made at random: it keeps its contract, says truly whether it
changed anything, and the function stays what it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import Graph

from tests.samples import policies
from tests.compiler.passes.examples import EXAMPLES, mixed_types
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.program import Program, execute, infer_val, program_text, same_program
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.graph_pass import GraphPass
from vlacompile.compiler.passes.pass_list import FUSED_PASSES, LAST_PASSES, LOOP_PASSES, graph_passes
from vlacompile.compiler.passes.pass_manager import run_passes, verified
from vlacompile.compiler.passes.split_large_linears import SplitLargeLinears
from vlacompile.compiler.staging.find_loop import find_loop
from vlacompile.errors import PassError
from vlacompile.policy.policy import Policy, Source

PASSES = (*graph_passes(is_translated, decompositions), SplitLargeLinears(2048), DelayFrames())


class Layers(torch.nn.Module):
    """Recurrent layers, a Fourier transform, outputs that are sources, constants, numbers and each other."""

    def __init__(self):
        super().__init__()
        self.lstm, self.gru = torch.nn.LSTM(4, 3, 2, bidirectional=True), torch.nn.GRU(4, 3)
        self.register_buffer("scale", torch.ones(3))

    def forward(self, x):
        seen, (h, c) = self.lstm(x)
        action = torch.fft.irfft(torch.fft.rfft(seen, dim=-1) * 2, dim=-1)
        return {"action": action, "again": action, "last": self.gru(x)[1] + h[:1] * c[:1], "read": x, "mean": x.mean(),
                "scale": self.scale * 2}


def layers() -> Policy:
    outputs = ("action", "again", "last", "read", "mean", "scale")
    return Policy("layers", Layers().eval(), {"x": Source("observation")}, {"x": torch.randn(1, 2, 4)}, outputs=outputs)


SAMPLES = [policies.late_fusion, policies.flow, policies.remember, policies.two_cameras, policies.dual_rate, mixed_types,
           layers]
ATEN = torch.ops.aten


def in_turn(program: Program, passes: tuple[GraphPass, ...]) -> Program:
    """The program after the passes; each ran twice, and did nothing the second time."""
    for p in passes:
        with verified("full"):
            after, _ = run_passes(program, (p,))
            again, _ = run_passes(after, (p,))
        assert again is after, f"{p.name} changes its own result"
        program = after
    return program


@pytest.mark.parametrize("make", SAMPLES, ids=lambda make: make.__name__)
def test_passes_in_turn_on_sample_policies(make):
    program = in_turn(capture(make()), PASSES)
    loop = find_loop(program)
    if loop.found:
        program = in_turn(loop.program, LOOP_PASSES)
        in_turn(in_turn(program, FUSED_PASSES), LAST_PASSES)
    in_turn(program, LAST_PASSES)


@pytest.mark.parametrize("made", [*SAMPLES, *EXAMPLES.values()],
                         ids=[*(m.__name__ for m in SAMPLES), *(p.name for p in EXAMPLES)])
def test_every_pass_by_itself(made):
    """On what it may never have been meant for."""
    program = capture(made())
    for p in EXAMPLES:
        if any(i.breach(program) for i in p.requires):
            with pytest.raises(PassError, match=f"{p.name} does not keep its contract"):
                run_passes(program, (p,))
            continue
        before = program_text(program)
        result = p.run(program)
        assert program_text(program) == before
        assert result.changed == (not same_program(program, result.program)), p.name
        assert not p.run(result.program).changed, p.name


# A program made at random: ops on rows of tokens and of features, over sources of several rates.
UNARY = [ATEN.relu.default, ATEN.clone.default, ATEN.tanh.default, ATEN.zeros_like.default, ATEN.empty_like.default]
BINARY = [ATEN.add.Tensor, ATEN.mul.Tensor]
WIDTH = 4


@st.composite
def programs(draw) -> tuple[Program, dict[str, torch.Tensor]]:
    """Values are f32[1,n,4] for several n."""
    graph, values = Graph(), []
    updates = draw(st.lists(st.sampled_from(["task", "observation", "step"]), min_size=1, max_size=4))
    sources = {f"s{i}": Source(update) for i, update in enumerate(updates)}
    shapes = {name: draw(st.integers(1, 3)) for name in sources}

    def add(node, val):
        node.meta["val"] = val
        values.append(node)

    for name, rows in shapes.items():
        add(graph.placeholder(name), torch.empty(1, rows, WIDTH, device="meta"))
    constants = {"w": torch.randn(WIDTH, WIDTH), "again": torch.ones(1, 2, WIDTH), "ones": torch.ones(1, 2, WIDTH)}
    weight = graph.get_attr("w")
    weight.meta["val"] = constants["w"].to("meta")
    for name in ("again", "ones"):
        add(graph.get_attr(name), constants[name].to("meta"))

    def call(target, *args):
        node = graph.call_function(target, args)
        add(node, infer_val(node))

    for _ in range(draw(st.integers(1, 14))):
        x = draw(st.sampled_from(values))
        alike = [v for v in values if v.meta["val"].shape == x.meta["val"].shape]
        kind = draw(st.sampled_from(["unary", "binary", "linear", "cat", "slice", "features"]))
        rows = x.meta["val"].shape[1]
        if kind == "unary":
            call(draw(st.sampled_from(UNARY)), x)
        elif kind == "binary":
            call(draw(st.sampled_from(BINARY)), x, draw(st.sampled_from(alike)))
        elif kind == "linear":
            call(ATEN.linear.default, x, weight)
        elif kind == "cat" and rows < 8:
            call(ATEN.cat.default, [x, draw(st.sampled_from(values))], 1)
        elif kind == "slice":
            begin = draw(st.integers(0, rows - 1))
            call(ATEN.slice.Tensor, x, 1, begin, draw(st.integers(begin + 1, rows)))
        elif kind == "features":
            half = draw(st.integers(1, WIDTH - 1))
            call(ATEN.slice.Tensor, x, 2, 0, half)
            call(ATEN.slice.Tensor, draw(st.sampled_from(alike)), 2, half, WIDTH)
            left, right = values.pop(-2), values.pop()
            call(ATEN.cat.default, [left, right], 2)
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    graph.output(tuple(outputs))
    names = tuple(f"out{i}" for i in range(len(outputs)))
    live = {n.target for n in graph.nodes if n.op == "get_attr"}
    read = {k: v for k, v in constants.items() if k in live}
    program = Program("random", graph, read, sources, {s: s for s in sources}, names, frozenset({"w"}))
    return program, {name: torch.randn(1, rows, WIDTH) for name, rows in shapes.items()}


@settings(max_examples=60, deadline=None)
@given(programs())
def test_passes_in_turn_on_random_programs(made):
    program, inputs = made
    defined = not any(n.target is ATEN.empty_like.default for n in program.graph.nodes)
    after = in_turn(program, (*PASSES, *LAST_PASSES))
    if defined:  # what is without content has no value to keep
        want, got = execute(program, inputs)[0], execute(after, inputs)[0]
        for name in program.outputs:
            assert torch.allclose(want[name], got[name].reshape(want[name].shape), atol=1e-4, rtol=1e-4)
