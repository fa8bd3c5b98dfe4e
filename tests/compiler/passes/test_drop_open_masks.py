from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samples.emitted import Emitted
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.drop_open_masks import DropOpenMasks
from vlacompile.policy.policy import Policy, Source

ROWS, WIDTH = 4, 8
X = {"x": torch.randn(1, 2, ROWS, WIDTH)}


class Attends(torch.nn.Module):
    """`how` a mask is written."""

    def __init__(self, mask: torch.Tensor, how: str):
        super().__init__()
        self.register_buffer("mask", mask)
        self.how = how

    def forward(self, x):
        if self.how == "fused":
            return {"action": F.scaled_dot_product_attention(x, x, x, self.mask)}
        scores = x @ x.transpose(-1, -2)
        if self.how == "added":
            scores = scores + torch.zeros(ROWS, ROWS).masked_fill(~self.mask, -torch.inf)
        elif self.how == "chosen":
            scores = torch.where(self.mask, scores, -1e9)
        else:
            scores = scores.masked_fill(~self.mask, -1e9)
        return {"action": torch.softmax(scores, -1) @ x}


def policy(mask: torch.Tensor, how: str) -> Policy:
    return Policy("attends", Attends(mask, how), {"x": Source("observation")}, X)


HOW = ["fused", "added", "chosen", "filled"]


@settings(max_examples=40, deadline=None)
@given(how=st.sampled_from(HOW),
       hidden=st.sets(st.tuples(st.integers(0, ROWS - 1), st.integers(1, ROWS - 1)), max_size=2))
def test_a_mask_leaves_if_and_only_if_it_hides_nothing(how, hidden):
    mask = torch.ones(ROWS, ROWS, dtype=torch.bool)
    for row, key in hidden:
        mask[row, key] = False
    program = capture(policy(mask, how))
    result = DropOpenMasks().run(program)
    assert result.changed == (not hidden)
    assert torch.equal(execute(result.program, X)[0]["action"], execute(program, X)[0]["action"])
    assert not DropOpenMasks().run(result.program).changed


def test_numbers_that_are_no_scores_keep_their_zeros():
    """-0.0 + 0.0 is 0.0, which division tells apart."""
    zeros = torch.zeros(1, 4)
    program = capture(Policy("sum", lambda x: {"action": 1 / (x + zeros)}, {"x": Source("observation")},
                             {"x": torch.full((1, 4), -0.0)}))
    assert not DropOpenMasks().run(program).changed


@pytest.mark.parametrize("how", HOW)
def test_no_emitted_graph_reads_such_a_mask(how):
    models = Emitted(policy(torch.ones(ROWS, ROWS, dtype=torch.bool), how), "tensorrt").models
    ops = [n.op_type for m in models.values() for n in m.graph]
    assert "Softmax" in ops and not {"Where", "IsNaN", "Add"} & {*ops}
    assert not any(v.shape == (ROWS, ROWS) for m in models.values() for v in m.graph.initializers.values())


@pytest.mark.parametrize("how", HOW)
def test_a_mask_that_hides_is_emitted(how):
    models = Emitted(policy(torch.ones(ROWS, ROWS, dtype=torch.bool).tril(), how), "tensorrt").models
    assert {"Where", "Add"} & {n.op_type for m in models.values() for n in m.graph}


@pytest.mark.parametrize("how", ["where", "where a number", "a number where", "masked_fill", "masked_fill by a tensor",
                                 "bool"])
@pytest.mark.parametrize("every", [True, False])
def test_what_a_mask_hides_entirely_is_not_computed(how, every):
    """Not even what is not finite there. A mask that shows one element of it is read: the control."""
    hides = torch.ones(ROWS, WIDTH, dtype=torch.bool)
    hides[1, 2] = every

    def observe(x):
        y = {"where": lambda: torch.where(~hides, x.log(), torch.full((1, 2, ROWS, WIDTH), 3.0)),
             "where a number": lambda: torch.where(~hides, x.log(), 3.0),
             "a number where": lambda: torch.where(hides, 3.0, x.log()),
             "masked_fill": lambda: x.log().masked_fill(hides, 3),
             "masked_fill by a tensor": lambda: x.log().masked_fill(hides, torch.tensor(3.0)),
             "bool": lambda: (x > 0).masked_fill(hides, True)}[how]()
        return {"action": y}

    program = capture(Policy("hidden", observe, {"x": Source("observation")}, X))
    result = DropOpenMasks().run(program)
    assert result.changed == every
    got, want = (execute(p, X)[0]["action"] for p in (result.program, program))
    assert torch.equal(got.nan_to_num(7.0) if got.is_floating_point() else got,
                       want.nan_to_num(7.0) if want.is_floating_point() else want) and got.dtype == want.dtype
    assert every != any("log" in str(n.target) or "gt" in str(n.target) for n in result.program.graph.nodes)
