"""Types of nodes, computed without numbers."""

from __future__ import annotations

import torch
from torch.fx import Graph

from vlacompile.compiler.graph.equal_values import content_key
from vlacompile.compiler.graph.program import infer_val


def test_a_copy_to_a_device_has_a_type():
    """As masks of a policy have, which its code puts where its weights are."""
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(1, 4, device="meta")
    copied = graph.call_function(torch.ops.aten._to_copy.default, (x,),
                                 {"dtype": torch.bool, "device": torch.device("cpu")})
    found = infer_val(copied)
    assert found.is_meta and found.shape == (1, 4) and found.dtype == torch.bool


def test_constants_are_compared_by_their_elements_whatever_their_strides():
    """A slice of one element keeps its stride, and counts as contiguous."""
    table = torch.arange(40).reshape(4, 10)
    one = table[:, 3:4][1:2]
    assert one.is_contiguous() and one.stride(0) == 10
    assert content_key(one) == content_key(torch.tensor([[13]]))
    assert content_key(table.t()) == content_key(table.t().contiguous()) != content_key(table.reshape(10, 4))
