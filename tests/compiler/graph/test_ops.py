"""Facts about single nodes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlacompile.compiler.graph.ops import is_step
from vlacompile.compiler.graph.program import to_meta

X = torch.linspace(-1, 1, 12).reshape(3, 4)


@pytest.mark.parametrize(("function", "steps"), [
    (lambda x: x > 0, True), (lambda x: x.argmax(-1), True), (lambda x: x.max(-1)[0], True), (torch.floor, True),
    (lambda x: x.to(torch.int32), True), (lambda x: x.isfinite(), True), (lambda x: x.remainder(0.3), True),
    (torch.relu, False), (lambda x: x.amax(-1), False), (lambda x: x.softmax(-1), False),
    (lambda x: x.clamp(0, 0.5), False), (lambda x: x.double(), False), (lambda x: x @ x.T, False)])
def test_steps_are_told_from_what_is_continuous(function, steps):
    class Of(nn.Module):
        def forward(self, x):
            return function(x)

    graph = torch.export.export(Of(), (X,), strict=False).run_decompositions({}).graph
    for node in graph.nodes:
        node.meta["val"] = to_meta(node.meta.get("val"))
    assert any(map(is_step, graph.nodes)) == steps


def test_choices_by_integers_are_no_steps():
    class Of(nn.Module):
        def forward(self, x, i):
            return torch.where(i > 1, x, -x)

    graph = torch.export.export(Of(), (X, torch.arange(4)), strict=False).run_decompositions({}).graph
    for node in graph.nodes:
        node.meta["val"] = to_meta(node.meta.get("val"))
    assert not any(map(is_step, graph.nodes))
