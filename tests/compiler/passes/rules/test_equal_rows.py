"""Rows of constants that are said to be equal are, whatever op gives them; a history that is encoded beside a repeated
embedding is encoded once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.compiler.passes.rules.test_row_rules import OPS
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.fold import fold
from vlacompile.compiler.graph.program import execute, op_name
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.drop_identities import DropIdentities
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.compiler.passes.lower_splits import LowerSplits
from vlacompile.compiler.passes.rules.equal_rows import EqualRows
from vlacompile.compiler.passes.split_batch_by_rate import SplitBatchByRate
from vlacompile.policy.policy import Policy, Source

FRAMES = 3
REPEATED = {
    "expand": lambda w: w[:1].expand(FRAMES, -1, -1, -1), "repeat": lambda w: w[:1].repeat(FRAMES, 1, 1, 1),
    "columns": lambda w: w[:, :, :, :1].expand(-1, -1, -1, 6), "copied": lambda w: w[:1].expand(3, 4, 6, 6).clone(),
    "different": lambda w: w, "each twice": lambda w: w[:2, :2].repeat(2, 2, 1, 1)[:3],
}
KEPT = ("layer norm", "linear", "view heads", "joined", "cast", "softmax", "einsum of two", "self product", "crop",
        "convolution", "permute", "attention", "squeeze")


class Constants(nn.Module):
    """What every op makes of a weight, each an output."""

    def __init__(self, repeated):
        super().__init__()
        torch.manual_seed(0)
        self.repeated, self.w = repeated, nn.Parameter(torch.randn(3, 4, 6, 6))

    def forward(self, x):
        w = self.repeated(self.w)
        return {"action": x.mean(1)} | {f"o{i}": f(w) for i, f in enumerate(OPS.values())}


@pytest.mark.parametrize("repeated", REPEATED)
def test_rows_that_are_said_to_be_equal_are(repeated):
    outputs = {name: f"o{i}" for i, name in enumerate(OPS)}
    policy = Policy("p", Constants(REPEATED[repeated]).eval(), {"x": Source("observation")},
                    {"x": torch.randn(1, 2, 2)}, outputs=("action", *outputs.values()))
    program = LowerSplits().run(DropIdentities().run(capture(policy)).program).program
    deps = dependencies(program)
    nodes = [n for n in program.graph.nodes if n.op in ("get_attr", "call_function") and not deps[n]
             and isinstance(n.meta["val"], torch.Tensor)]
    equal, values = EqualRows(program, deps), fold(program, frozenset(nodes))
    for node in nodes:
        for axis in range(values[node].dim()):
            rows = values[node].movedim(axis, 0).double()
            for size in range(1, len(rows) + 1):
                if equal.along(node, axis, [size]):
                    first = rows[:size][torch.arange(len(rows)) % size]
                    assert torch.allclose(rows, first, equal_nan=True), f"{node.format_node()} {axis} {size}"
    if repeated in ("expand", "repeat", "copied"):
        results = dict(zip(program.outputs, program.output_nodes(), strict=True))
        kept = {name for name in KEPT for size in [results[outputs[name]].meta["val"].shape]
                if equal.along(results[outputs[name]], next(d for d, n in enumerate(size) if n == FRAMES), [1])}
        assert kept == set(KEPT)


class Resampler(nn.Module):
    """Images with a class token that is the same one for all of them, read by latents that are."""

    def __init__(self, latents):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.latents, self.norm = nn.Parameter(torch.randn(latents, 2, 8)), nn.LayerNorm(8)
        self.q, self.kv, self.out = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(8, 4)

    def forward(self, image):
        x = self.patches(image.flatten(0, 1)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(FRAMES, -1, -1), x], 1)
        latents = self.norm(self.latents.expand(FRAMES, -1, -1).clone())
        k, v = self.kv(torch.cat([x, latents], 1)).chunk(2, -1)
        y = latents + F.scaled_dot_product_attention(self.q(latents), k, v)
        return {"action": self.out(y.view(1, FRAMES, 2, 8).mean(2))}


@pytest.mark.parametrize(("latents", "times"), [(1, 1), (FRAMES, FRAMES)], ids=["the same", "other ones per frame"])
def test_a_history_beside_a_repeated_embedding_is_encoded_once(latents, times):
    """Control: latents of its own for every frame make every frame another value."""
    policy = Policy("p", Resampler(latents).eval(), {"image": Source("observation", history=FRAMES)},
                    {"image": torch.randn(1, FRAMES, 3, 8, 8)})
    program = EliminateCommonSubexpressions().run(LowerSplits().run(DropIdentities().run(
        capture(policy)).program).program).program
    program = EliminateCommonSubexpressions().run(SplitBatchByRate(least_uses=0.0).run(program).program).program
    program = DelayFrames().run(program).program
    assert sum("attention" in op_name(n.target) for n in program.graph.nodes if n.op == "call_function") == times
    assert sum(op_name(n.target) == "conv2d" for n in program.graph.nodes if n.op == "call_function") == 1
    image = torch.randn(1, FRAMES, 3, 8, 8)
    past: dict[str, torch.Tensor] = {}
    for frame in range(FRAMES):
        got = execute(program, {"image": image[:, frame]}, past=past)[0]["action"]
    with torch.no_grad():
        assert (got - policy.infer(image=image)["action"]).abs().max() < 1e-5
