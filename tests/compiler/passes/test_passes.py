"""What single passes do and leave alone, and that together they keep the function."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tests.compiler.passes.examples import Features, Film
from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.program import execute, program_text
from vlacompile.compiler.passes.batch_over_loop import BatchOverLoop
from vlacompile.compiler.passes.collapse_linear_chains import CollapseLinearChains
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.compiler.passes.fold_slices_into_linears import FoldSlicesIntoLinears
from vlacompile.compiler.passes.fold_slices_of_concat import FoldSlicesOfConcat
from vlacompile.compiler.passes.lower_slice_scatters import LowerSliceScatters
from vlacompile.compiler.passes.pass_list import graph_passes
from vlacompile.compiler.passes.split_large_linears import SplitLargeLinears
from vlacompile.compiler.passes.split_linear_over_concat import SplitLinearOverConcat
from vlacompile.compiler.passes.split_linear_over_features import SplitLinearOverFeatures
from vlacompile.compiler.staging.find_loop import find_loop
from vlacompile.policy.policy import Policy, Source

PASSES = graph_passes(is_translated, decompositions)


def test_passes_do_not_mutate_their_input():
    program = capture(policies.late_fusion())
    before = program_text(program)
    for p in PASSES:
        p.run(program)
    assert program_text(program) == before


@pytest.mark.parametrize("make", [policies.late_fusion, policies.flow])
def test_passes_keep_the_function(make):
    policy = make()
    program = capture(policy)
    for p in PASSES:
        program = p.run(program).program
    want = policy.infer(**policy.example_inputs)["action"]
    got = execute(program, policy.example_inputs)[0]["action"]
    assert (got - want).abs().max() <= 2e-6


def test_a_linear_over_features_of_one_rate_is_left_alone():
    policy = Policy("features", Features().eval(), {"a": Source("observation"), "b": Source("observation")},
                    {"a": torch.randn(1, 2), "b": torch.randn(1, 3)})
    program = capture(policy)
    assert not SplitLinearOverConcat().run(program).changed and not SplitLinearOverFeatures().run(program).changed


@pytest.mark.parametrize("one_source", [False, True])
@pytest.mark.parametrize("begin, end", [(0, 2), (2, 5), (2, 9), (-7, 5), (1, 5), (0, 4), (3, 4), (5, 9), (1, 8)])
def test_slices_of_concatenations_are_the_same_slices(begin, end, one_source):
    """Whole parts are read directly; others stay slices where they depend on what the whole does."""
    inputs = {n: torch.randn(1, size) for n, size in (("a", 2), ("b", 3), ("c", 4))}

    def observe(a, b, c):
        parts = [a, torch.tanh(a.repeat(1, 2))[:, :3], a.repeat(1, 2)] if one_source else [a, b, c]
        return {"action": torch.relu(torch.cat(parts, 1)[:, begin:end])}

    policy = Policy("parts", observe, dict.fromkeys(inputs, Source("observation")), inputs)
    result = FoldSlicesOfConcat().run(capture(policy))
    whole, fewer = begin % 9 in (0, 2, 5) and end in (2, 5, 9), (begin, end) != (1, 8)
    assert result.changed == (whole or (fewer and not one_source))
    assert torch.equal(execute(result.program, inputs)[0]["action"], policy.infer(**inputs)["action"])


@pytest.mark.parametrize("order", [None, (0, 2, 1, 3), (1, 0, 2, 3), (3, 2, 1, 0)])
@pytest.mark.parametrize("layer", [0, 2, -1])
def test_of_stacked_layers_the_ones_that_nobody_reads_leave(order, layer):
    """Also where they are transposed between; a sum over all of them reads all."""
    layers = [torch.nn.Linear(4, 4) for _ in range(3)]

    def observe(x, reads):
        made = []
        for i in range(3):
            x = layers[i](x)
            made.append(x)
        stacked = torch.stack(made)
        return {"action": reads(stacked if order is None else stacked.permute(*order))}

    def linears(reads) -> int:
        policy = Policy("layers", lambda x: observe(x, reads), {"x": Source("observation")},
                        {"x": torch.randn(1, 5, 4)})
        made = FoldSlicesOfConcat(any_rate=True).run(capture(policy)).program
        assert torch.equal(execute(made, policy.example_inputs)[0]["action"], policy.infer(
            **policy.example_inputs)["action"])
        return sum(n.target is torch.ops.aten.linear.default for n in made.graph.nodes)

    axis = 0 if order is None else order.index(0)
    assert linears(lambda x: x.select(axis, layer) * 2) == layer % 3 + 1
    assert linears(lambda x: x.sum(axis) * 2) == 3


def test_an_empty_tensor_that_is_assigned_part_by_part_goes():
    """Rotary embeddings as SmolVLA writes them."""
    def rotate(x):
        out = torch.empty_like(x)
        out[..., :2] = x[..., :2] * 2.0
        out[..., 2:] = x[..., 2:] - x[..., :2]
        return {"action": torch.relu(out)}

    inputs = {"x": torch.randn(1, 4)}
    policy = Policy("rotary", rotate, {"x": Source("observation")}, inputs)
    program = capture(policy)
    for p in PASSES:
        program = p.run(program).program
    text = program_text(program)
    assert "cat(" in text and not any(word in text for word in ("empty", "zeros", "scatter"))
    assert torch.equal(execute(program, inputs)[0]["action"], policy.infer(**inputs)["action"])


@pytest.mark.parametrize("begin, end", [(0, 5), (0, 2), (3, 5), (1, 4), (-2, 9)])
def test_scatters_are_the_same_scatters(begin, end):
    count = len(range(*slice(begin, end).indices(5)))
    inputs = {"x": torch.randn(1, 5), "a": torch.randn(1, count)}
    policy = Policy("scatter", lambda x, a: {"action": torch.relu(torch.slice_scatter(x, a, 1, begin, end))},
                    dict.fromkeys(inputs, Source("observation")), inputs)
    result = LowerSliceScatters().run(capture(policy))
    assert result.changed
    assert torch.equal(execute(result.program, inputs)[0]["action"], policy.infer(**inputs)["action"])


def test_a_concatenation_that_converts_is_left_alone():
    """cat([float, int64]) is float; a Linear over the int64 part alone would not run."""
    inputs = {"a": torch.randn(1, 2), "b": torch.ones(1, 3, dtype=torch.int64)}
    policy = Policy("mixed", Features().eval(), {"a": Source("task"), "b": Source("observation")}, inputs)
    assert not SplitLinearOverFeatures().run(capture(policy)).changed


@pytest.mark.parametrize("between, text", [(torch.nn.functional.mish, "mish(%a)"),
                                           (lambda v: v * v, "mul.Tensor(%a, %a)"),
                                           (lambda v: torch.where(v > 0, v, v * 0.1), None)])
def test_a_split_looks_through_the_activation_before_it(between, text):
    class Film(Features):
        def forward(self, a, b):
            return {"action": torch.nn.functional.linear(between(torch.cat([a, b], 1)), self.w)}

    inputs = {"a": torch.randn(1, 2), "b": torch.randn(1, 3)}
    policy = Policy("film", Film().eval(), {"a": Source("task"), "b": Source("observation")}, inputs)
    result = SplitLinearOverFeatures().run(capture(policy))
    assert result.changed == (text is not None)  # two ops between the two that read different values
    assert text is None or text in program_text(result.program)
    got = execute(result.program, inputs)[0]["action"]
    assert torch.allclose(got, policy.infer(**inputs)["action"], atol=1e-6)


def test_rows_that_are_computed_differently_stay_rows():
    """relu in one iteration and tanh in the other: nothing to batch, and the function is kept."""
    class Uneven(Film):
        def forward(self, observation, noise):
            for k in range(2):
                noise = noise * (torch.relu(observation) if k else torch.tanh(observation))
            return {"action": noise}

    inputs = {"observation": torch.randn(1, 4), "noise": torch.randn(1, 4)}
    policy = Policy("uneven", Uneven().eval(), {"observation": Source("observation"), "noise": Source("step")}, inputs)
    rolled = find_loop(capture(policy))
    assert rolled.found and not BatchOverLoop().run(rolled.program).changed


@pytest.mark.parametrize("make", [
    lambda x, k: torch.nn.functional.layer_norm(x + 0.1 * k, (4,))[:, 1:3],
    lambda x, k: torch.cat([x[:, :1] * (k + 0.5), x[:, 2:3]], 1),
    lambda x, k: torch.chunk((x + 0.1 * k).unsqueeze(1), 2, dim=-1)[1].reshape(1, 2),
], ids=["layer_norm", "cat", "chunk"])
def test_batched_tables_are_the_same_tables(make):
    def observe(observation, noise):
        for k in range(3):
            noise = torch.sin(noise) * make(observation, k)
        return {"action": noise}

    inputs = {"observation": torch.randn(1, 4), "noise": torch.randn(1, 2)}
    policy = Policy("rows", observe, {"observation": Source("observation"), "noise": Source("step")}, inputs)
    program = find_loop(EliminateCommonSubexpressions().run(capture(policy)).program)
    result = BatchOverLoop().run(program.program)
    assert program.found and result.changed
    got = execute(result.program, inputs)[0]["action"]
    assert torch.allclose(got, policy.infer(**inputs)["action"], atol=1e-6)


def _model(x: torch.Tensor, make) -> Policy:
    torch.manual_seed(0)
    return Policy("model", make().eval(), {"x": Source("observation")}, {"x": x})


class Heads(torch.nn.Module):
    """Three Linears with biases in a row (GR-1's head has no activation between them), and their neighbours."""

    def __init__(self, widths=(6, 12, 12, 3), also=False, act=False):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(a, b) for a, b in pairwise(widths)])
        self.also, self.act = also, act

    def forward(self, x):
        kept = []
        for layer in self.layers:
            x = layer(torch.relu(x) if self.act else x)
            kept.append(x)
        return {"action": x + (kept[0].sum() + kept[1].sum() if self.also else 0.0)}


class Trunk(torch.nn.Module):
    """Heads over one Linear; whole: what else reads it."""

    def __init__(self, outputs=(3, 1), between=6, whole=False):
        super().__init__()
        self.trunk, self.whole = torch.nn.Linear(6, between), whole
        self.heads = torch.nn.ModuleList(torch.nn.Linear(between, n) for n in outputs)

    def forward(self, x):
        x = self.trunk(x)
        made = [head(x) for head in self.heads] + ([torch.relu(x)] if self.whole else [])
        return {"action": torch.cat(made, -1)}


@pytest.mark.parametrize(("make", "linears"), [
    (Heads, 1), (lambda: Heads(also=True), 3), (lambda: Heads(act=True), 3), (lambda: Heads((6, 2, 12, 6)), 2),
    (Trunk, 2), (lambda: Trunk(whole=True), 3), (lambda: Trunk((3, 3), 2), 3)],
    ids=["three in a row", "read between", "activations", "through a bottleneck", "heads of a trunk",
         "of a trunk that is also read", "of a bottleneck"])
def test_chains_collapse_where_that_is_less_work(make, linears):
    policy = _model(torch.randn(2, 6), make)
    result = CollapseLinearChains().run(capture(policy))
    assert program_text(result.program).count("= linear(") == linears and result.changed == (linears < 3)
    want = policy.infer(**policy.example_inputs)["action"]
    assert torch.allclose(execute(result.program, policy.example_inputs)[0]["action"], want, atol=1e-5)


@pytest.mark.parametrize(("parts", "rows"), [
    (((2, 5),), 3), (((4, 6), (1, 2)), 5), (((0, 9),), 9), (((-3, None),), 3), (((0, 4), (5, 9)), 9)])
def test_a_narrow_linear_gives_the_same_outputs(parts, rows):
    class Packed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 9)

        def forward(self, x):
            y = self.layer(x)
            return {"action": torch.cat([torch.sin(y[..., a:b]) for a, b in parts], -1)}

    policy = _model(torch.randn(1, 3, 4), Packed)
    result = FoldSlicesIntoLinears().run(capture(policy))
    assert result.changed == (rows < 9) and max(t.shape[0] for t in result.program.constants.values()) == rows
    want = policy.infer(**policy.example_inputs)["action"]
    assert torch.allclose(execute(result.program, policy.example_inputs)[0]["action"], want, atol=1e-6)


def test_a_linear_whose_columns_are_read_across_rows_is_left_alone():
    layer = torch.nn.Linear(4, 4).eval()
    policy = Policy("rows", lambda x: {"action": torch.relu(layer(x)[:, 1:3])}, {"x": Source("observation")},
                    {"x": torch.randn(1, 4, 4)})
    assert not FoldSlicesIntoLinears().run(capture(policy)).changed


class Vocabulary(torch.nn.Module):
    """Embeds tokens with the table that its head multiplies with."""

    def __init__(self, words: int, bias: bool):
        super().__init__()
        self.table = torch.nn.Embedding(words, 8)
        self.head = torch.nn.Linear(8, words, bias=bias)
        self.head.weight = self.table.weight

    def forward(self, tokens, x):
        logits = self.head(self.table(tokens) + x)
        return {"action": logits, "token": logits.argmax(-1)}


@pytest.mark.parametrize("words, numbers, bias",
                         [(640, 1024, True), (1000, 1024, False), (1000, 4096, True), (130, 512, True)])
def test_a_large_linear_in_parts_gives_the_same_outputs(words, numbers, bias):
    sources = {"tokens": Source("task"), "x": Source("observation")}
    policy = Policy("head", Vocabulary(words, bias).eval(), sources,
                    {"tokens": torch.randint(0, words, (1, 3)), "x": torch.randn(1, 3, 8)}, outputs=("action", "token"))
    program = capture(policy)
    result = SplitLargeLinears(numbers).run(program)
    shapes = [t.shape for n, t in result.program.constants.items() if "head" in n or "__" in n]
    assert result.changed and max(s[0] * (s[1] if len(s) > 1 else 1) for s in shapes if s[0] != words) <= numbers
    want, got = policy.infer(**policy.example_inputs), execute(result.program, policy.example_inputs)[0]
    assert torch.allclose(got["action"], want["action"], atol=1e-6) and torch.equal(got["token"], want["token"])
    assert not SplitLargeLinears(numbers).run(result.program).changed
    assert not SplitLargeLinears(words * 8).run(program).changed
    cats = (n for n in result.program.graph.nodes if n.target is torch.ops.aten.cat.default)
    parts = next(n for n in cats if n.meta["val"].shape[-1] == words)
    parts.args = (list(parts.args[0])[::-1], parts.args[1])  # the control: parts in another order
    wrong = execute(result.program, policy.example_inputs)[0]
    assert wrong["action"].shape == want["action"].shape
    assert not torch.allclose(wrong["action"], want["action"], atol=1e-3)


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_an_empty_operand_of_any_rank_leaves_a_concatenation(kind):
    """`torch.cat([torch.tensor([]), x])`: PyTorch ignores its shape, and counts its type."""
    empty = torch.tensor([])

    def observe(x, y):
        joined = torch.cat([torch.cat([empty, x], 1), y], 1)
        return {"action": torch.tanh(torch.cat([torch.stack([joined, joined]), empty])[0])}

    inputs = {n: torch.randint(0, 9, (1, 2, 3)).to(kind) for n in "xy"}
    program = capture(Policy("empty", observe, dict.fromkeys(inputs, Source("observation")), inputs))
    want = observe(**inputs)["action"]
    for p in PASSES:
        program = p.run(program).program
        got = execute(program, inputs)[0]["action"]
        assert got.dtype == want.dtype and torch.equal(got, want)
    assert all(tuple(n.meta["val"].shape) != (0,) for n in program.graph.nodes if n.op != "output")
