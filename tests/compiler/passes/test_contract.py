"""Every pass on every sample policy, and on programs made at random: it keeps its contract, says truly whether it
changed anything, and the function stays what it was."""

from __future__ import annotations

import operator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import Graph, Node

from tests.compiler.passes.examples import EXAMPLES, mixed_types
from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.program import Program, execute, infer_val, program_text, same_program
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.graph_pass import GraphPass
from vlacompile.compiler.passes.pass_list import FUSED_PASSES, LAST_PASSES, LOOP_PASSES, graph_passes
from vlacompile.compiler.passes.pass_manager import run_passes, verified
from vlacompile.compiler.passes.split_large_linears import SplitLargeLinears
from vlacompile.compiler.passes.split_tokens_by_rate import SplitTokensByRate
from vlacompile.compiler.staging.find_loop import find_loop
from vlacompile.policy.policy import Policy, Source
from vlart.errors import PassError

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


SAMPLES = [policies.late_fusion, policies.flow, policies.remember, policies.two_cameras, policies.dual_rate,
           mixed_types, layers]
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


PASSES_IN_TURN = (*PASSES, *LAST_PASSES)
RANDOM = (*PASSES_IN_TURN[:PASSES.index(SplitTokensByRate())], SplitTokensByRate(least_uses=0),
          *PASSES_IN_TURN[PASSES.index(SplitTokensByRate()) + 1:])
WIDTH = 4
UNARY = [ATEN.relu.default, ATEN.clone.default, ATEN.tanh.default, ATEN.zeros_like.default, ATEN.empty_like.default]
BINARY = [ATEN.add.Tensor, ATEN.mul.Tensor, ATEN.copysign.Tensor]
KINDS = ["unary", "binary", "linear", "cat", "slice", "features", "scatter", "attention", "double", "complex", "batch",
         "max", "split", "empty"]


class Maker:
    """Adds ops to a graph. values: f32[1,n,4] for several n."""

    def __init__(self, draw):
        self.draw, self.graph, self.values = draw, Graph(), []
        self.constants = {"w": torch.randn(WIDTH, WIDTH), "v": torch.randn(WIDTH, WIDTH),
                          "ones": torch.ones(1, 2, WIDTH), "again": torch.ones(1, 2, WIDTH)}
        self.read: dict[str, Node] = {}

    def source(self, name: str, rows: int) -> None:
        node = self.graph.placeholder(name)
        node.meta["val"] = torch.empty(1, rows, WIDTH, device="meta")
        self.values.append(node)

    def constant(self, name: str, tensor: torch.Tensor | None = None) -> Node:
        if name not in self.read:
            self.constants.setdefault(name, tensor)
            self.read[name] = node = self.graph.get_attr(name)
            node.meta["val"] = self.constants[name].to("meta")
        return self.read[name]

    def call(self, target, *args, **kwargs) -> Node:
        node = self.graph.call_function(target, args, kwargs)
        node.meta["val"] = infer_val(node)
        return node

    def any_value(self, alike: Node | None = None) -> Node:
        """One of the last."""
        fits = [v for v in self.values if alike is None or v.meta["val"].shape == alike.meta["val"].shape]
        return self.draw(st.sampled_from(fits[-4:]))

    def add(self, kind: str) -> None:
        x, draw, call = self.any_value(), self.draw, self.call
        rows, other = x.meta["val"].shape[1], self.any_value(x)
        weight = self.constant(draw(st.sampled_from(["w", "v"])))
        half = draw(st.integers(1, WIDTH - 1))
        begin = draw(st.integers(0, rows - 1))
        end = draw(st.integers(begin + 1, rows))
        if kind == "unary":
            made = call(draw(st.sampled_from(UNARY)), x)
        elif kind == "binary":
            made = call(draw(st.sampled_from(BINARY)), x, other)
        elif kind == "linear":
            made = call(ATEN.linear.default, x, weight)
        elif kind == "cat":
            made = call(ATEN.cat.default, [x, self.any_value()] if rows < 8 else [x], 1)
        elif kind == "slice":
            made = call(ATEN.slice.Tensor, x, 1, begin, end)
        elif kind == "features":
            left, right = call(ATEN.slice.Tensor, x, 2, 0, half), call(ATEN.slice.Tensor, other, 2, half, WIDTH)
            made = call(ATEN.linear.default, call(ATEN.cat.default, [left, right], 2), weight)
        elif kind == "scatter":
            made = call(ATEN.slice_scatter.default, x, call(ATEN.slice.Tensor, other, 1, begin, end), 1, begin, end)
        elif kind == "attention":
            seen = draw(st.sampled_from([torch.ones(rows, rows).tril() > 0, torch.ones(rows, rows).tril(-1) > 0]))
            mask = self.constant(f"mask_{rows}_{int(seen.sum())}", seen)
            made = call(ATEN.scaled_dot_product_attention.default, call(ATEN.linear.default, x, weight), x, x, mask)
        elif kind == "double":
            wide = call(ATEN.tanh.default, call(ATEN._to_copy.default, x, dtype=torch.float64))
            made = call(ATEN._to_copy.default, wide, dtype=torch.float32)
        elif kind == "complex":
            pairs = [call(ATEN.reshape.default, v, [1, rows, 2, 2]) for v in (x, other)]
            turned = call(ATEN.mul.Tensor, *(call(ATEN.view_as_complex.default, p) for p in pairs))
            product = call(ATEN.view_as_real.default, turned)
            made = call(ATEN.reshape.default, product, [1, rows, WIDTH])
        elif kind == "batch":
            both = call(ATEN.linear.default, call(ATEN.cat.default, [x, other]), weight)
            made = call(ATEN.slice.Tensor, both, 0, 0, 1)
        elif kind == "split":
            parts = call(ATEN.split_with_sizes.default, x, [half, WIDTH - half], 2)
            made = call(ATEN.cat.default, [call(operator.getitem, parts, i) for i in (1, 0)], 2)
        elif kind == "empty":
            made = self.with_nothing(x, call(ATEN.slice.Tensor, other, 1, begin, begin), weight)
        else:
            largest = call(operator.getitem, call(ATEN.max.dim, self.constant("ones"), 1, True), 0)
            made = call(ATEN.add.Tensor, x, largest)
        self.values.append(made)


    def with_nothing(self, x: Node, nothing: Node, weight: Node) -> Node:
        """`x`, and what is computed of no rows at all: a cache before its first key."""
        call, computed = self.call, self.call(ATEN.linear.default, nothing, weight)
        how = self.draw(st.integers(0, 4))
        if how == 0:  # the empty tensor of shape [0], which PyTorch lets stand beside any other
            return call(ATEN.cat.default, [self.constant("nothing", torch.zeros(0)), x, computed], 1)
        if how == 1:
            return call(ATEN.add.Tensor, x, call(ATEN.sum.dim_IntList, computed, [1], True))
        if how == 2:
            alone = call(ATEN.cat.default, [self.constant("nothing", torch.zeros(0)), nothing, computed], 1)
            return call(ATEN.cat.default, [call(ATEN.scaled_dot_product_attention.default, alone, x, x), x], 1)
        if how == 3:
            rows = call(ATEN.stack.default, [nothing, computed])
            return call(ATEN.cat.default, [x, call(ATEN.select.int, rows, 0, 1)], 1)
        parts = call(ATEN.split_with_sizes.default, x, [0, x.meta["val"].shape[1]], 1)
        return call(ATEN.cat.default, [call(operator.getitem, parts, i) for i in range(2)], 1)


@st.composite
def programs(draw) -> tuple[Program, dict[str, torch.Tensor]]:
    maker = Maker(draw)
    updates = draw(st.lists(st.sampled_from(["task", "observation", "step"]), min_size=1, max_size=4))
    sources = {f"s{i}": Source(update) for i, update in enumerate(updates)}
    rows = {name: draw(st.integers(1, 3)) for name in sources}
    for name in sources:
        maker.source(name, rows[name])
    maker.values += [maker.constant("ones"), maker.constant("again")]
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=3, max_size=16)):
        maker.add(kind)
    outputs = (maker.values[-1], *draw(st.lists(st.sampled_from(maker.values), max_size=2)))
    maker.graph.output(outputs)
    read = {k: maker.constants[k] for k in maker.read}
    names = tuple(f"out{i}" for i in range(len(outputs)))
    program = Program("random", maker.graph, read, sources, {s: s for s in sources}, names,
                      frozenset({"w", "v"} & read.keys()))
    return program, {name: torch.randn(1, n, WIDTH) for name, n in rows.items()}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(programs())
def test_passes_in_turn_on_random_programs(made):
    program, inputs = made
    defined = not any(n.target is ATEN.empty_like.default for n in program.graph.nodes)
    after = in_turn(program, RANDOM)
    if defined:  # what is without content has no value to keep
        want, got = execute(program, inputs)[0], execute(after, inputs)[0]
        for name in program.outputs:
            assert torch.allclose(want[name], got[name].reshape(want[name].shape), atol=1e-4, rtol=1e-4)
