"""What a board's log found worth removing is in no emitted graph: for each kind of it, the graph and its negative
control."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.samples.emitted import Emitted
from vlacompile.policy.policy import Policy, Source

ROWS, WIDTH, HEADS = 6, 32, 2


class Rotary(torch.nn.Module):
    """Rotary embedding by assignments to slices."""

    def forward(self, x):
        half = WIDTH // 2
        angles = torch.arange(ROWS)[:, None] / 10000 ** (torch.arange(half) / half)
        found = torch.empty_like(x)
        found[..., :half] = x[..., :half] * angles.cos() - x[..., half:] * angles.sin()
        found[..., half:] = x[..., half:] * angles.cos() + x[..., :half] * angles.sin()
        return {"action": found}


class Resampled(torch.nn.Module):
    """Positions for another size of image; `computed`: what an input decides is resampled."""

    def __init__(self, computed: bool):
        super().__init__()
        self.positions, self.computed = torch.nn.Parameter(torch.randn(1, WIDTH, 4, 4)), computed

    def forward(self, x):
        image = x.reshape(1, 1, ROWS, WIDTH) if self.computed else self.positions
        added = F.interpolate(image, (8, 8), mode="bicubic").mean((1, 2, 3))
        return {"action": x + added}


class LastBlock(torch.nn.Module):
    """Of a block's rows one is decoded; `all`: each is."""

    def __init__(self, every: bool):
        super().__init__()
        self.qkv, self.out, self.mlp = (torch.nn.Linear(WIDTH, n * WIDTH) for n in (3, 1, 1))
        self.every = every

    def forward(self, x):
        q, k, v = (t.view(1, ROWS, HEADS, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, ROWS, WIDTH))
        x = torch.relu(self.mlp(x))
        return {"action": x if self.every else x[:, -1:]}


def models(module: torch.nn.Module):
    policy = Policy("found", module.eval(), {"x": Source("observation")}, {"x": torch.randn(1, ROWS, WIDTH)})
    return Emitted(policy, "tensorrt").models.values()


def ops(module: torch.nn.Module) -> set[str]:
    return {n.op_type for m in models(module) for n in m.graph}


def test_slices_that_are_assigned_are_no_scatter():
    assert "Concat" in ops(Rotary()) and not any(op.startswith("Scatter") for op in ops(Rotary()))


@pytest.mark.parametrize("computed", [False, True])
def test_what_is_resampled_at_compile_time_is_a_constant(computed):
    assert ("Resize" in ops(Resampled(computed))) == computed


@pytest.mark.parametrize("every", [False, True])
def test_rows_that_are_not_decoded_are_not_computed_but_for_keys_and_values(every):
    rows = sorted(n.outputs[0].shape[-2] for m in models(LastBlock(every)) for n in m.graph
                  if n.op_type in ("MatMul", "Gemm") and len(n.outputs[0].shape) < 4)
    assert (ROWS in rows) and (1 in rows) != every
