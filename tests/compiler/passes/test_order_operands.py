"""Ops that take a number first compile, in every type of the tensor behind it."""

from __future__ import annotations

import pytest
import torch

import vlacompile as vc

OPS = {
    "mul": lambda x, i: torch.mul(0.5, x), "mul-int": lambda x, i: torch.mul(3, i) + x,
    "mul-mixed": lambda x, i: torch.mul(0.5, i) + x, "mul-half": lambda x, i: torch.mul(0.5, x.half()).float() + i,
    "multiply": lambda x, i: torch.multiply(0.5, x), "divide": lambda x, i: torch.divide(0.5, x),
    "subtract": lambda x, i: torch.subtract(3, i) + x,
    "add": lambda x, i: torch.add(1, x), "add-alpha": lambda x, i: torch.add(1, x, alpha=2.0),
    "floor-divide": lambda x, i: torch.floor_divide(7, i + 1) + x,
    "floor-divide-float": lambda x, i: torch.floor_divide(7.5, x),
}


@pytest.mark.build
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_number_may_stand_first(op, tmp_path):
    policy = vc.Policy("p", lambda x, i: {"action": op(x, i).view(1, 1, 8)},
                       {"x": vc.Source("observation"), "i": vc.Source("observation")},
                       {"x": torch.rand(1, 8) + 0.5, "i": torch.arange(8)[None]})
    with vc.Session(vc.build(policy, out=tmp_path / "p.vlab").path) as session:
        for shift in (0.3, 0.7):
            x, i = torch.rand(1, 8) + shift, torch.randint(0, 8, (1, 8))
            session.write("x", x)
            session.write("i", i)
            session.step()
            assert torch.allclose(torch.as_tensor(session.read("action")), policy.infer(x=x, i=i)["action"], atol=1e-3)
