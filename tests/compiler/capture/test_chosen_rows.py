"""Rows that a mask of an input chooses: what acts on each row alone compiles, and what mixes them is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError, RuntimeFailure

LAYER = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.SiLU()).requires_grad_(False)


def small_angles(x, mask):
    """As axis angles become quaternions: the division by a small number is never seen."""
    out = torch.empty_like(x)
    out[~mask] = torch.sin(x[~mask]) / x[~mask]
    out[mask] = 0.5 - x[mask] * x[mask] / 48
    return out


def nearest_so_far(x, mask):
    distance = torch.full_like(x, 0.1)
    nearer = x < distance
    distance[nearer] = x[nearer]
    return distance


def layers_on_rows(x, mask):
    out = torch.zeros(1, 6, 4)
    out[mask[..., 0]] = LAYER(x[mask[..., 0]])
    return out


def second_dimension(x, mask):
    rows = mask[0, :, 0]
    x = x.clone()
    x[:, rows] = x[:, rows] + 2 * x[:, rows].softmax(-1)
    return x


def experts(x, mask):
    """Tokens of each expert are gathered, weighted and added up again."""
    x, out = x[0], torch.zeros(6, 4)
    weights, chosen = x.softmax(-1).topk(2)
    for expert in range(4):
        rank, token = torch.where(F.one_hot(chosen, 4).permute(2, 1, 0)[expert])
        out.index_add_(0, token, LAYER(x[None, token].reshape(-1, 4)) * expert * weights[token, rank, None])
    return out[None]


def by_nonzero(x, mask):
    rows = mask[0, :, 0].nonzero()[:, 0]
    out = torch.ones(6, 4)
    out[rows] = x[0][rows].exp()
    return out[None]


def one_per_row(x, mask):
    """As the largest component of a quaternion is chosen."""
    return x[F.one_hot(x.abs().argmax(-1), 4) > 0.5].reshape(1, 6)


def sums(x, mask):
    chosen = x[mask]
    rows = x[mask[..., 0]]
    return torch.cat([chosen.sum()[None], chosen.mean()[None], rows.sum(0), rows.mean(0), torch.masked_select(
        x, mask).square().sum()[None]])[None]


def extremes(x, mask):
    return torch.cat([x[mask].amax()[None], x[mask].min()[None], x[mask[..., 0]].amax(0)])[None]


def added(x, mask):
    return x.index_put((mask,), x[mask].exp(), accumulate=True)


def how_many(x, mask):
    return x * x[mask].shape[0] + (2 * mask.nonzero().shape[0] - 1) / 3 - mask[0, :, 0].nonzero().shape[0] // 2


def mean_by_count(x, mask):
    chosen = x[mask]
    n = chosen.shape[0]
    centred = (chosen - chosen.sum() / (n + 1e-6)) / (n + 1)
    return torch.cat([centred.sum()[None], x[mask[..., 0]].sum(0) / torch.sym_max(x[mask[..., 0]].shape[0], 1),
                      torch.full((1,), n), torch.tensor([n]) / 24])[None]


KINDS = (small_angles, nearest_so_far, layers_on_rows, second_dimension, experts, by_nonzero, one_per_row, sums, added,
         extremes, how_many, mean_by_count)


def policy_of(function) -> Policy:
    torch.manual_seed(0)
    return Policy("chosen", lambda x, mask: {"action": function(x, mask)},
                  {"x": Source("observation"), "mask": Source("observation")},
                  {"x": torch.randn(1, 6, 4), "mask": torch.rand(1, 6, 4) < 0.5})


@pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)
def test_rows_are_those_of_pytorch(function):
    policy = policy_of(function)
    program = capture(policy)
    masks = [torch.rand(1, 6, 4) < share for share in (0.2, 0.5, 0.9)] + [torch.ones(1, 6, 4, dtype=torch.bool)]
    if function is not extremes:  # of nothing there are none
        masks.append(torch.zeros(1, 6, 4, dtype=torch.bool))
    elif not all(bool(m[..., 0].any()) for m in masks):
        masks = masks[-1:]
    for mask in masks:
        x = torch.randn(1, 6, 4)
        x[0, 0, 0] = 0.0  # divided by where it is not chosen
        mask = mask | (x == 0)
        got, _ = execute(program, {"x": x, "mask": mask})
        torch.testing.assert_close(got["action"], function(x, mask), atol=1e-6, rtol=1e-5, equal_nan=True)


def outlives_the_trace(x, mask):
    return x[mask]


def another_mask(x, mask):
    out = torch.zeros_like(x)
    out[mask] = x[x > 0]
    return out


def neighbours(x, mask):
    out = torch.zeros(1, 6, 4)
    out[mask[..., 0]] = x[mask[..., 0]].cumsum(0)
    return out


def normalised_over_rows(x, mask):
    out = torch.zeros(1, 6, 4)
    out[mask[..., 0]] = x[mask[..., 0]].softmax(0)
    return out


def as_a_shape(x, mask):
    return x + torch.ones(x[mask].shape[0]).sum()


def as_a_branch(x, mask):
    return x if x[mask].shape[0] > 3 else -x


def by_len(x, mask):
    return x * len(x[mask])


def rows_as_integers(x, mask):
    return x * x[F.one_hot(x.abs().argmax(-1), 4) > 0.5].to(torch.int64).reshape(1, 6, 1)


@pytest.mark.parametrize("function", [outlives_the_trace, another_mask, neighbours, normalised_over_rows, as_a_shape,
                                      as_a_branch, by_len, rows_as_integers],
                         ids=lambda f: f.__name__)
def test_what_mixes_rows_is_refused(function):
    with pytest.raises(CaptureError) as error:
        capture(policy_of(function))
    assert "test_chosen_rows.py:" in error.value.where
    assert ("x.shape[0] instead of len(x)" in error.value.fix) == (function is by_len)


def test_another_count_of_rows_hands_out_no_action(tmp_path):
    """Where PyTorch raises an error."""
    def two_of_six(x, mask):
        return x[mask[..., 0]].reshape(1, 2, 4)

    policy = policy_of(two_of_six)
    example = torch.zeros(1, 6, 4, dtype=torch.bool)
    example[:, [1, 4]] = True
    policy = replace(policy, example_inputs={**policy.example_inputs, "mask": example})
    bundle = vc.build(policy, out=tmp_path / "p.vlab")
    with vc.Session(bundle.path) as session:
        for places in ([0, 3], [4, 5], [1], [0, 1, 2], []):
            x, mask = torch.randn(1, 6, 4), torch.zeros(1, 6, 4, dtype=torch.bool)
            mask[:, places] = True
            session.write("x", x)
            session.write("mask", mask)
            if len(places) == 2:
                session.step()
                assert torch.equal(torch.from_numpy(session.read("action")), two_of_six(x, mask))
                continue
            with pytest.raises(RuntimeError):
                two_of_six(x, mask)
            with pytest.raises(RuntimeFailure) as failure:
                session.step()
            assert failure.value.status == "ACTION_NOT_FINITE"
