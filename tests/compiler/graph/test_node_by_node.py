"""Graphs run node by node: what they return is PyTorch's, every value is told once, and none is kept for nothing."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.fx import Graph, GraphModule

from vlacompile.compiler.graph.node_by_node import NodeByNode

_ATEN = torch.ops.aten


@pytest.fixture
def graph() -> Graph:
    """((x + weight) beside x, alpha times as much, and the first of its halves)"""
    graph = Graph()
    x, weight = graph.placeholder("x"), graph.get_attr("weight")
    added = graph.call_function(_ATEN.add.Tensor, (x, weight), {"alpha": 2})
    joined = graph.call_function(_ATEN.cat.default, ([added, x], 0))
    halves = graph.call_function(_ATEN.split.Tensor, (joined, 3))
    first = graph.call_function(torch.ops.aten.index.Tensor, (joined, [graph.call_function(
        _ATEN.arange.default, (2,))]))
    graph.output((joined, [halves, first], 3))
    return graph


WEIGHT, X = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])


def test_it_returns_what_pytorch_s_module_returns(graph):
    root = torch.nn.Module()
    root.register_buffer("weight", WEIGHT)
    runner, want = NodeByNode(graph, {"weight": WEIGHT}), GraphModule(root, graph)(X)
    for _ in range(2):
        joined, (halves, first), number = runner.run([X], lambda node, result: None)
        assert torch.equal(joined, want[0]) and torch.equal(first, want[1][1]) and number == 3
        assert all(torch.equal(a, b) for a, b in zip(halves, want[1][0], strict=True))


def test_every_value_is_told_once_and_what_is_told_back_replaces_it(graph):
    told: list[str] = []

    def tell(node, result):
        told.append(node.name)
        return result + 1 if node.target is _ATEN.add.Tensor else None

    joined = NodeByNode(graph, {"weight": WEIGHT}).run([X], tell)[0]
    assert told == [n.name for n in graph.nodes if n.op != "output"]
    assert torch.equal(joined[:3], X + 2 * WEIGHT + 1)


def test_a_value_goes_when_its_last_reader_has_run(graph):
    """Of seven billion weights the activations of a run are not all kept."""
    there: dict[str, weakref.ref] = {}

    def tell(node, result):
        if isinstance(result, torch.Tensor):
            there[node.name] = weakref.ref(result)
        if node.name.startswith("split"):
            assert there["add_tensor"]() is None and there["cat_default"]() is not None

    assert NodeByNode(graph, {"weight": WEIGHT}).run([X], tell)[0] is there["cat_default"]()
