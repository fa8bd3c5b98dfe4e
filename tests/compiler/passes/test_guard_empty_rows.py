"""Attention rows of which a mask hides every key: as PyTorch has them, in every precision; at no cost where none can
be."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.samples.live import worst
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.passes.guard_empty_rows import GuardEmptyRows
from vlacompile.policy.policy import Policy, Source

LIMITS = {("host", None): 1e-6, ("host", "fp16"): 1e-2, ("orin-nano-8gb", None): 1e-2}
INF = float("-inf")
CAUSAL = torch.ones(6, 6, dtype=torch.bool).tril()


def _bool(q, k, v, m):
    return F.scaled_dot_product_attention(q, k, v, m)


def _float(q, k, v, m):
    return F.scaled_dot_product_attention(q, k, v, torch.zeros(m.shape).masked_fill(~m, INF))


def _where_and_bias(q, k, v, m):
    bias = torch.linspace(-1, 1, 36).reshape(1, 1, 6, 6)
    return F.scaled_dot_product_attention(q, k, v, torch.where(m, 0.0, INF) + bias)


def _causal_too(q, k, v, m):
    return F.scaled_dot_product_attention(q, k, v, m, is_causal=True)


def _causal_floats(q, k, v, m):
    return F.scaled_dot_product_attention(q, k, v, torch.where(m, 0.5, INF), is_causal=True)


def _and_causal(q, k, v, m):
    return F.scaled_dot_product_attention(q, k, v, m & CAUSAL)


def _written_out(q, k, v, m):
    scores = (q @ k.transpose(-1, -2) / 8 ** 0.5).masked_fill(~m, INF)
    return scores.softmax(-1).nan_to_num(0.0) @ v


def _added(q, k, v, m):
    scores = q @ k.transpose(-1, -2) + torch.zeros(m.shape).masked_fill(m.logical_not(), INF)
    return torch.nan_to_num(scores.softmax(dim=-1)) @ v


def _isnan(q, k, v, m):
    p = torch.where(m, q @ k.transpose(-1, -2), INF).softmax(-1)
    return torch.where(torch.isnan(p), torch.zeros_like(p), p) @ v


def _concatenated(q, k, v, m):
    """Two parts of a mask, one padded by a constant that hides."""
    m = torch.cat([m[..., :4], torch.zeros(1, 1, 6, 2, dtype=torch.bool)], -1)
    return F.scaled_dot_product_attention(q, k, v, m)


def _log(q, k, v, m):
    return F.scaled_dot_product_attention(q, k, v, m.float().log())


def _log_written_out(q, k, v, m):
    return torch.nan_to_num((q @ k.transpose(-1, -2) + m.float().log()).softmax(-1)) @ v


MAY_BE_EMPTY = (_log, _log_written_out, _bool, _float, _where_and_bias, _causal_too, _causal_floats, _and_causal,
                _written_out, _added, _isnan, _concatenated)


class Attends(nn.Module):
    def __init__(self, attend):
        super().__init__()
        torch.manual_seed(0)
        self.attend, self.q, self.k, self.v, self.out = attend, *(nn.Linear(8, 16) for _ in range(3)), nn.Linear(16, 7)

    def forward(self, x, seen, rows):
        q, k, v = (f(x).unflatten(-1, (2, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mask = (seen[:, None] & rows[:, :, None])[:, None]
        return {"action": self.out(self.attend(q, k, v, mask).transpose(1, 2).flatten(2))}


def policy(attend) -> Policy:
    inputs = {"x": torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(1)),
              "seen": torch.arange(6)[None] < 4, "rows": torch.arange(6)[None] < 5}
    return Policy("p", Attends(attend).eval(),
                  {"x": Source("observation"), "seen": Source("task"), "rows": Source("task")}, inputs)


@pytest.mark.parametrize("attend", MAY_BE_EMPTY, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize(("target", "recipe"), LIMITS, ids=lambda x: x or "as-it-is")
def test_rows_that_see_nothing(tmp_path, attend, target, recipe):
    nothing = {"seen": torch.zeros(1, 6, dtype=torch.bool), "rows": torch.ones(1, 6, dtype=torch.bool)}
    assert worst(lambda: policy(attend), tmp_path / "p.vlab", target=target, recipe=recipe,
                 extra=(nothing,)) < LIMITS[target, recipe]


def test_in_int8(tmp_path):
    assert worst(lambda: policy(_bool), tmp_path / "p.vlab", recipe="int8") < 0.2


def _constant(q, k, v, m):
    return F.scaled_dot_product_attention(q, k, v, CAUSAL)


def _state_is_seen(q, k, v, m):
    """The last key is the state's, which every row sees."""
    m = torch.cat([m[..., :5], torch.ones(1, 1, 6, 1, dtype=torch.bool)], -1)
    return F.scaled_dot_product_attention(q, k, v, m)


def _finite(q, k, v, m):
    """A mask of large numbers leaves a row of nothing else the mean of all values: PyTorch and engines agree."""
    return F.scaled_dot_product_attention(q, k, v, torch.where(m, 0.0, torch.finfo(torch.float32).min))


def _no_mask(q, k, v, m):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True) * m.any()


def _bonus(q, k, v, m):
    """A condition that becomes a number hides nothing."""
    return F.scaled_dot_product_attention(q, k, v, m.float())


def _bert(q, k, v, m):
    return (q @ k.transpose(-1, -2) + (~m).float() * -1e9).softmax(-1) @ v


def _transformers(q, k, v, m):
    return F.scaled_dot_product_attention(q * 4, k, v, (1 - m.float()) * torch.finfo(torch.float32).min)


@pytest.mark.parametrize("attend", (_bonus, _bert, _transformers, _finite), ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize(("target", "recipe"), [("host", "fp16"), ("orin-nano-8gb", None)],
                         ids=lambda x: x or "as-it-is")
def test_masks_of_finite_numbers(tmp_path, attend, target, recipe):
    """A row of nothing but -3.4e38 is the mean of all values, in fp16 too, which has no such number."""
    assert worst(lambda: policy(attend), tmp_path / "p.vlab", target=target, recipe=recipe) < 1e-2


@pytest.mark.parametrize("attend", (_constant, _state_is_seen, _finite, _no_mask, _bonus, _bert, _transformers),
                         ids=lambda f: f.__name__.strip("_"))
def test_no_cost_where_no_row_can_be_empty(tmp_path, attend):
    assert not GuardEmptyRows().run(capture(policy(attend))).changed
    assert worst(lambda: policy(attend), tmp_path / "p.vlab") < 1e-6


@pytest.mark.parametrize("rank", [2, 3, 5, 6])
def test_attention_of_any_rank(tmp_path, rank):
    lead = (2, 3, 2, 2)[: rank - 2]

    def observe(x, m):
        q = (x + torch.linspace(0, 1, 24 if rank > 4 else 6)[: math.prod(lead)].reshape(*lead, 1, 1)) if rank > 2 else x
        y = F.scaled_dot_product_attention(q, q, q.sin(), m if rank < 4 else m.reshape(*[1] * (rank - 2), 4, 4))
        return {"action": y.reshape(1, -1, 8)}

    make = lambda: Policy("p", observe, dict.fromkeys("xm", Source("observation")),
                          {"x": torch.randn(4, 8, generator=torch.Generator().manual_seed(1)),
                           "m": torch.ones(4, 4, dtype=torch.bool).tril()})
    assert worst(make, tmp_path / "p.vlab") < 1e-6
