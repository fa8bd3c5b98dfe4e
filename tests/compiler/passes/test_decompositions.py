"""Ops without ONNX of their own, through libvlart against PyTorch: many as outputs of one policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vlacompile as vc
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError, EmitError, StagingError


def _square(x):
    return x[..., :4] + 3 * torch.eye(4)


def _pairs(x):
    return torch.view_as_complex(x.reshape(1, 4, 4, 2))


def on_diagonal(x, offset):
    y = x.clone()
    y.diagonal(offset, 1, 2).mul_(3)
    y.diagonal(offset, 2, 1)[:, 1:].copy_(x[:, 1:3, 0] if y.diagonal(offset, 2, 1).shape[1] == 3 else x[:, :1, 0])
    return torch.diagonal_scatter(y, x[0, :1, :1].expand(1, y.diagonal(offset, 1, 2).shape[-1]), offset, 1, 2) - y


def in_place(x):
    y = x[0].clone()
    y.fill_diagonal_(0.5)
    y.as_strided((2, 3), (9, 2), 1).add_(2)
    return y


TURNS = torch.polar(torch.linspace(0.5, 2, 16).reshape(4, 4), torch.linspace(-3, 3, 16).reshape(4, 4))
ORDERED = {
    "cummax": lambda x: torch.stack([x.cummax(1).values, x.round().cummax(2).indices.float(), x.cummin(1).values]),
    "cumprod": lambda x: x.cumprod(1),
    "searchsorted": lambda x: torch.stack([torch.searchsorted(torch.linspace(-1, 1, 9), x, right=r)
                                           for r in (False, True)]),
    "medians": lambda x: torch.stack([x.median(1).values, x.nanmedian(1).values, x.kthvalue(3, 1).values]),
    "distances": lambda x: torch.stack([torch.cdist(x, x.flip(1), p) for p in (0.0, 1.0, 2.0, 3.0, float("inf"))]),
    "histogram": lambda x: torch.histc(x, 5, -1, 1),
    "signs": lambda x: torch.copysign(x.exp(), x) + torch.signbit(x) + torch.hypot(x, x.flip(1)),
    "gamma": lambda x: torch.lgamma(x.abs() + 0.1) + torch.lgamma(x * 0.9 - 3.05) * 0.1,
    "errors": lambda x: torch.erfinv(x.tanh()) + torch.distributions.Normal(0.0, 2.0).icdf(x.sigmoid()),
    "diagonals": lambda x: torch.stack([on_diagonal(x, k) for k in (-2, 0, 3)]),
    "strides": lambda x: in_place(x) + in_place(x.mT.contiguous().mT),
    "scatters": lambda x: torch.stack([torch.ones(1, 4, 8).scatter_reduce(1, x.long().abs() % 3, x, r, include_self=s)
                                       for r in ("amax", "mean", "prod") for s in (False, True)]),
    "put": lambda x: torch.stack([x.put(torch.tensor([[0, -1], [5, 9]]), x[0, :2, 1:3], accumulate=a)
                                  for a in (False, True)]),
    "slopes": lambda x: F.rrelu(x) + torch.nn.RReLU(0.1, 0.5).eval()(x),
    "statistics": lambda x: torch.cat([
        torch.cov(x[0]).flatten(), torch.corrcoef(x[0].T).flatten(), torch.cov(x[0, 0], correction=0)[None],
        torch.nanmedian(x)[None], torch.gradient(x, spacing=0.1, dim=1)[0].flatten(), x[0, 0].corrcoef()[None],
        torch.trapezoid(x, dx=0.1).flatten()]),
    "levels": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.05, 3, -100, 27),
    "sorts": lambda x: torch.sort(x.round(), stable=True).indices + torch.stack(
        torch.meshgrid(torch.arange(4), torch.arange(8), indexing="ij")).sum(0),
}
LINALG = {
    "inverse": lambda x: torch.linalg.inv(_square(x)) + torch.inverse(x[..., 4:].roll(1, 1)),
    "solutions": lambda x: torch.linalg.solve(_square(x), x[..., 4:6]),
    "determinants": lambda x: torch.stack([torch.linalg.det(x[..., :n, :n]) for n in (1, 2, 3, 4)]
                                          + [torch.slogdet(x[..., :4])[1]]),
    "factors": lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(4)),
    "triangular": lambda x: torch.linalg.solve_triangular(_square(x).triu(), x[..., 4:], upper=True),
    "orthogonal": lambda x: torch.cat([m.flatten() for a in (x[..., :4], x[:, :3], x[..., :2], x.mT[..., :3]) for m in (
        *torch.linalg.qr(a), *torch.linalg.qr(a, mode="complete"), torch.linalg.qr(a, mode="r")[1])]),
    "powers": lambda x: torch.stack([torch.linalg.matrix_power(_square(x) / 3, n)
                                     for n in (0, 1, 3, 6, -2)]),
    "exponential": lambda x: torch.matrix_exp(x[..., :4]) * 0.1,
}
COMPLEX = {
    "turned": lambda x: torch.view_as_real(_pairs(x) * TURNS),
    "differences": lambda x: torch.view_as_real((x - 1j) * (2j - (1 - (x + 0.5j)))),
    "sums": lambda x: torch.view_as_real((_pairs(x) - 2.0) / TURNS + 1j * _pairs(x).conj() - 0.5j),
    "products": lambda x: torch.view_as_real(_pairs(x) @ TURNS + torch.einsum("bij,ij->bj", _pairs(x), TURNS)[:, None]),
    "moved": lambda x: torch.view_as_real(torch.cat([_pairs(x), TURNS[None]],
                                                    1).transpose(1, 2)[:, 1:].reshape(1, 6, 4)),
    "parts": lambda x: torch.stack([_pairs(x).abs(), _pairs(x).angle(), _pairs(x).real, torch.exp(_pairs(x)).imag]),
    "spectra": lambda x: torch.fft.rfft(x).abs() + torch.fft.fft(x, n=5, dim=1).real.sum(1, keepdim=True)[..., :5],
    "filtered": lambda x: torch.fft.irfft(torch.fft.rfft(x, norm="ortho")[..., :3] * 2, n=8, norm="ortho"),
    "planes": lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=(4, 8))
    + torch.fft.ifft2(torch.fft.fftshift(torch.fft.fft2(x))).real,
}


class Ops(torch.nn.Module):
    def __init__(self, ops):
        super().__init__()
        self.ops = ops

    def forward(self, x):
        return {"action": torch.tanh(x)} | {n: op(x).float() for n, op in self.ops.items()}


def policy(ops) -> Policy:
    torch.manual_seed(0)
    return Policy("ops", Ops(ops).eval(), {"x": Source("observation")}, {"x": torch.randn(1, 4, 8)},
                  outputs=("action", *ops))


def same(path, wanted: Policy, stand_in: bool, tolerance: float) -> None:
    """Within a share of each output's own largest number."""
    with vc.Session(path, stand_in=stand_in) as session:
        for seed in range(3):
            x = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(seed))
            session.write("x", x)
            session.step()
            for name, want in wanted.infer(x=x).items():
                got = torch.from_numpy(np.asarray(session.read(name), np.float32))
                assert (got - want).abs().max() <= tolerance * max(1, want.abs().max()), (name, got, want)


@pytest.mark.parametrize("ops", [ORDERED, LINALG, COMPLEX], ids=["ordered", "linalg", "complex"])
def test_ops_give_pytorchs_numbers(ops, tmp_path):
    vc.build(policy(ops), out=tmp_path / "p.vlab")
    same(tmp_path / "p.vlab", policy(ops), False, 2e-5)


def test_ops_give_them_on_a_board_in_fp16(tmp_path):
    ops = {n: COMPLEX[n] for n in ("turned", "filtered", "products")} | {"sums": lambda x: x.cumprod(1) * 0.1}
    ops["determinant"] = lambda x: torch.linalg.det(_square(x) / 3)
    vc.build(policy(ops), target="orin-nano-8gb+jetpack-6.2", out=tmp_path / "p.vlab")
    same(tmp_path / "p.vlab", policy(ops), True, 1e-2)


def test_edges_of_ordered_ops_are_pytorchs():
    """NaN, infinity, ties, zeros of both signs."""
    from vlacompile.compiler.passes.rules import decompositions as w

    nan, inf = float("nan"), float("inf")
    x = torch.tensor([[1.0, nan, 2.0, nan, -0.0], [3.0, 3.0, -inf, inf, 0.0], [0.0, -0.0, 0.0, 1.0, 1.0]])
    for ours, theirs in ((w.cummax, torch.cummax), (w.cummin, torch.cummin)):
        for got, want in zip(ours(x, 1), theirs(x, 1), strict=True):
            assert torch.equal(got.nan_to_num(99), want.nan_to_num(99))
    assert torch.equal(w.median(x, 1)[0].nan_to_num(99), x.median(1).values.nan_to_num(99))
    assert torch.equal(w.nanmedian(x, 1)[0], x.nanmedian(1).values)
    assert torch.equal(w.searchsorted(torch.arange(3.0), x), torch.searchsorted(torch.arange(3.0), x))
    assert torch.equal(w.signbit(x[:, -1]),
                       torch.signbit(x[:, -1])) and torch.equal(w.hypot(x[2], x[2]), torch.hypot(x[2], x[2]))
    assert w.hypot(torch.tensor([1e30, inf]), torch.tensor([1e30, 1.0])).tolist() == torch.hypot(
        torch.tensor([1e30, inf]), torch.tensor([1e30, 1.0])).tolist()
    gamma = torch.tensor([1.0, 2.0, inf, 0.0, -1.0, 1e-3, 30.0])
    torch.testing.assert_close(w.lgamma(gamma), torch.lgamma(gamma), rtol=2e-6, atol=2e-6)


def test_angles_on_the_cut_have_the_side_of_their_zero():
    from vlacompile.compiler.passes.rules import decompositions as w

    inf, places = float("inf"), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1.0, -2.0, float("inf"), float("-inf")])
    y, x = (t.flatten() for t in torch.meshgrid(places, places, indexing="ij"))
    torch.testing.assert_close(w.atan2(y, x), torch.atan2(y, x), rtol=1e-6, atol=0)
    assert torch.equal(torch.signbit(w.atan2(y, x)), torch.signbit(torch.atan2(y, x)))
    assert w.atan2(torch.tensor([float("nan"), 1.0]), torch.tensor([inf, float("nan")])).isnan().all()


def test_pivots_of_zero():
    from vlacompile.compiler.passes.rules import linalg_decompositions as w

    a = torch.tensor([[[0.0, 2.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0], [0.0, 0.0, 1.0, 0.0]]])
    torch.testing.assert_close(w.inverse(a), torch.linalg.inv(a))
    torch.testing.assert_close(w.determinant(a), torch.linalg.det(a))
    assert w.determinant(torch.zeros(2, 4, 4)).tolist() == [0.0, 0.0]


def test_columns_that_need_no_reflection():
    """Zeros below a diagonal of either sign, and columns of zeros: signs are LAPACK's."""
    from vlacompile.compiler.passes.rules import linalg_decompositions as w

    ones = torch.eye(3).repeat(4, 1, 1) * torch.tensor([1.0, -1.0, 0.0, 2.0])[:, None, None]
    for a in (ones, ones.triu() + torch.ones(3, 3).triu(1), torch.ones(2, 3, 3).tril(), torch.zeros(3, 2)):
        for got, want in zip(w.qr(a), torch.linalg.qr(a), strict=True):
            torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("op", "words"), [
    (lambda x: torch.linalg.svdvals(x), "svd"),
    (lambda x: torch.linalg.inv(x.flatten(1)[:, :9, None] * x.flatten(1)[:, None, :9] + 9 * torch.eye(9)),
     "up to 8 rows"),
    (lambda x: torch.linalg.qr(x.flatten(1)[:, :9, None] * x.flatten(1)[:, None, :9])[1], "up to 8 rows"),
    (lambda x: F.rrelu(x, training=True), "training=False"),
    (lambda x: torch.special.erfcx(x), "special_erfcx"),
    (lambda x: F.gumbel_softmax(x), "make them an input"),
], ids=["svd", "rows", "columns", "slopes", "inexact", "random"])
def test_what_no_engine_computes_is_told_by_its_line(op, words, tmp_path):
    said = []
    with pytest.raises((EmitError, CaptureError)) as error:
        vc.build(policy({"odd": op}), recipe="fp16", out=tmp_path / "p.vlab", progress=said.append)
    assert "passes/test_decompositions.py" in error.value.where and words in str(error.value), str(error.value)
    assert not any("precision" in phase or "golden" in phase for phase in said)


def test_complex_ops_without_a_rule_are_refused(tmp_path):
    with pytest.raises(StagingError, match="complex numbers") as error:
        vc.build(policy({"odd": lambda x: torch.view_as_real(torch.tan(_pairs(x)))}), out=tmp_path / "p.vlab")
    assert "passes/test_decompositions.py" in error.value.where and '"tan"' in error.value.why
