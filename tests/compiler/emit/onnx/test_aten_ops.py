"""ONNX translations of ours, through libvlart against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vlacompile as vc

OPS = {
    "log1p": lambda x: torch.log1p(x.clamp(min=-0.999)), "expm1": torch.expm1, "logsigmoid": F.logsigmoid,
    "both": lambda x: torch.log1p(torch.expm1(x.abs().clamp(max=80))),
}
MAGNITUDES = torch.logspace(-7, 1, 33)
EDGES = torch.tensor([0.0, -0.0, -1.0, -2.0, 88.0, 100.0, -100.0, 1e30])


class Ops(torch.nn.Module):
    def forward(self, x):
        return {"action": x} | {name: op(x) for name, op in OPS.items()}


@pytest.mark.parametrize("target", ["host", "orin-nano-8gb"])
def test_small_numbers_keep_their_digits(target, tmp_path):
    """Each element by itself: beside the largest of them the small ones would not count."""
    example = torch.cat([MAGNITUDES, -MAGNITUDES, EDGES])[None]
    policy = vc.Policy("digits", Ops().eval(), {"x": vc.Source("observation")}, {"x": example.clamp(-0.9, 10)},
                       outputs=("action", *OPS))
    vc.build(policy, target=target, recipe=None if target == "host" else str(_fp32(tmp_path)), out=tmp_path / "p.vlab")
    with vc.Session(tmp_path / "p.vlab", stand_in=target != "host", accept=("out of range",)) as session:
        session.write("x", example)
        session.step()
        for name, op in OPS.items():
            exact, got = op(example.double()).float().double().numpy(), session.read(name)
            defined = np.isfinite(exact)
            assert (np.isfinite(got) == defined).all(), name
            apart = np.abs(got[defined] - exact[defined]) / np.maximum(np.abs(exact[defined]), 1e-30)
            assert apart.max() < 2e-6, (name, example.numpy()[defined][apart.argmax()], apart.max())


def _fp32(folder):
    path = folder / "fp32.toml"
    path.write_text('name = "fp32"\ndescription = "nothing in fp16"\n[precision]\nlayers = "fp32"\n', encoding="utf-8")
    return path


class Filmed(torch.nn.Module):
    """Patches of two frames each, as video encoders embed them."""

    def __init__(self, bias: bool):
        super().__init__()
        self.embed = torch.nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4), bias=bias)

    def forward(self, film):
        return {"action": self.embed(film).flatten(2).transpose(1, 2)}


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_over_time_and_space(bias, tmp_path):
    film, embed = torch.randn(1, 3, 4, 8, 8), Filmed(bias).eval()
    vc.build(vc.Policy("film", embed, {"film": vc.Source("observation")}, {"film": film}), out=tmp_path / "p.vlab")
    with vc.Session(tmp_path / "p.vlab") as session, torch.no_grad():
        session.write("film", film)
        session.step()
        assert np.allclose(session.read("action"), embed(film)["action"], atol=1e-5)


class Products(torch.nn.Module):
    """Products with a vector, as in least squares; `plain` is what ONNX Runtime computes right without help."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 12)

    def forward(self, x):
        a, v = self.layer(x)[0].view(3, 4), x[0]
        return {"action": (a.T @ v[:3])[None, None], "mv": torch.mv(a.T, v[3:])[None], "batched": a[None].mT @ v[:3],
                "left": (v[:4] @ a.T)[None], "plain": (a @ v[:4])[None]}


@pytest.mark.parametrize("target", ["host", "orin-nano-8gb"])
def test_a_transposed_matrix_times_a_vector(target, tmp_path):
    torch.manual_seed(0)
    policy = vc.Policy("products", Products().eval(), {"x": vc.Source("observation")}, {"x": torch.randn(1, 6)},
                       outputs=("action", "mv", "batched", "left", "plain"))
    vc.build(policy, target=target, recipe=None if target == "host" else str(_fp32(tmp_path)), out=tmp_path / "p.vlab")
    with vc.Session(tmp_path / "p.vlab", stand_in=target != "host") as session:
        x = torch.randn(1, 6)
        session.write("x", x)
        session.step()
        with torch.no_grad():
            expected = policy.infer(x=x)
        for name, value in expected.items():
            limit = 1e-5 if target == "host" else 1e-2  # sums of the board's engine are in fp16
            np.testing.assert_allclose(session.read(name), value.numpy(), atol=limit, err_msg=name)
            assert np.ptp(value.numpy()) > 0.1, "a product that hardly moves would hide an error"
