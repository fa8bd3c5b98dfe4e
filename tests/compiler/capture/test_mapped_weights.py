"""Weights of modules lie in mapped files, whoever makes them, converts them or assigns them."""

from __future__ import annotations

import torch
from torch import nn

from vlacompile.compiler.capture.mapped_weights import map_weights, mapped_weights
from vlacompile.files.mapped import is_mapped

WIDE = 1024


class _Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(WIDE, WIDE), nn.Linear(WIDE, WIDE, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("table", torch.randn(WIDE, WIDE))


def test_the_numbers_are_those_that_the_module_draws():
    torch.manual_seed(0)
    plain = nn.Linear(WIDE, WIDE)
    torch.manual_seed(0)
    with mapped_weights():
        module = nn.Linear(WIDE, WIDE)
    assert is_mapped(module.weight) and not is_mapped(module.bias) and not is_mapped(plain.weight)
    assert torch.equal(module.weight, plain.weight) and torch.equal(module.bias, plain.bias)
    assert not is_mapped(nn.Linear(WIDE, WIDE).weight)  # outside, modules are as ever


def test_shared_weights_stay_shared_and_conversions_are_mapped():
    with mapped_weights():
        module = _Tied().to(torch.bfloat16)
    assert module.head.weight is module.embedding.weight
    assert module.head.weight.dtype is torch.bfloat16 and is_mapped(module.head.weight) and is_mapped(module.table)


def test_weights_that_were_made_elsewhere_are_moved():
    module = _Tied()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    map_weights([module])
    assert all(is_mapped(t) for t in module.state_dict().values())
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
