"""What is done to a translated graph changes no number, be it ever so small."""

from __future__ import annotations

import numpy as np
import torch
from onnxscript.rewriter import _pattern_ir as pattern
from onnxscript.rewriter.rules.common import _no_op

from vlacompile.compiler.emit.onnx.simplify import RULES
from vlacompile.pipeline import build
from vlacompile.policy.policy import Policy, Source
from vlart.runtime.session import Session

SMALL = (1e-8, 1e-9, 1e-30, 1e-42, -0.0, 0.0)
NEAR_ONE = (1 + 1e-6, 1 - 1e-7, 1 + 2**-23, 1.0)


class Constants(torch.nn.Module):
    """Operands that an optimiser may take for 0 or 1, one output for each kind of use."""

    def forward(self, x):
        tensors = [torch.tensor(c) for c in SMALL]
        return {
            "action": x.nan_to_num(0.0, 1.0, -1.0)[None],
            "sums": torch.stack([x + c for c in SMALL] + [c - x for c in SMALL], 1),
            "differences": torch.stack([x - c for c in (*SMALL, *tensors)]),
            "products": torch.stack([x * c for c in NEAR_ONE] + [x / c for c in NEAR_ONE]),
            "powers": torch.stack([x.abs().clamp(min=1e-6).pow(c) for c in (1, 1 + 1e-6, 1.0, 2.0)]),
            "directions": x / (x.norm(dim=-1, keepdim=True) + 1e-8),
            "ends": torch.stack([x.clamp(0, 1).clamp(2, 3), x.relu().clamp(-2, -1), x.clamp(-2, -1).relu(),
                                 x.clamp(-1e-8, 1e-8), x.clamp(max=-1).clamp(min=1)]),
            "signs": torch.stack([1 / (x + 0.0), 1 / (x - 0.0), 1 / (x * 1.0)]),
        }


class Reshaped(torch.nn.Module):
    """Patterns whose shapes fit a simpler form that computes something else."""

    def forward(self, x):
        a = x.reshape(4, 4)
        rows = torch.arange(4)
        return {"action": torch.bmm(a.reshape(4, 2, 2), (a + 1).reshape(4, 2, 2)).reshape(4, 4)[None],
                "added": a.index_put((rows,), a * 2, accumulate=True),
                "halves": torch.cat([x[..., :7].flip(-1)[..., :3] * 2, x[..., :7].flip(-1)[..., 3:] * 3], -1),
                "widened": torch.cat([x.double().float().half().float(), (x.double() / 3).float().half().float()])}


def numbers(policy: Policy, path, frames, atol: float = 0) -> None:
    build(policy, out=path)
    with Session(path, accept=("denormal", "not finite")) as session:
        for x in frames:
            wanted = policy.infer(x=x)
            session.write("x", x)
            session.step()
            for name, want in wanted.items():
                got = torch.from_numpy(np.asarray(session.read(name)))
                torch.testing.assert_close(got, want, rtol=2e-6, atol=atol, equal_nan=True,
                                           msg=lambda m, n=name: f"{n}: {m}")


def test_tiny_and_near_one_constants_stay(tmp_path):
    names = tuple(Constants()(torch.zeros(1, 4)))
    policy = Policy("constants", Constants().eval(), {"x": Source("observation")}, {"x": torch.randn(1, 4)},
                    outputs=names)
    numbers(policy, tmp_path / "p.vlab", [torch.zeros(1, 4), -torch.zeros(1, 4), torch.full((1, 4), 1e-8), torch.tensor(
        [[1e-30, -1e-40, 3.0, -2.0]]), torch.tensor([[0.5, float("nan"), float("inf"), -7.0]])])


def test_no_form_that_only_fits_by_its_shapes(tmp_path):
    names = tuple(Reshaped()(torch.zeros(1, 16)))
    policy = Policy("reshaped", Reshaped().eval(), {"x": Source("observation")}, {"x": torch.randn(1, 16)},
                    outputs=names)
    numbers(policy, tmp_path / "p.vlab", [torch.randn(1, 16), torch.linspace(-3, 3, 16)[None]], atol=1e-5)


def _numbers_matched(rule) -> list:
    """Of a rule of onnxscript: what its pattern compares operands with, within 1e-8 and 1e-5 of itself."""
    found = []
    for node in rule._target_pattern:
        held = [v.value for v in node.inputs if isinstance(v, pattern.Constant)]
        found += [n for v in held for n in (v if isinstance(v, (list, tuple)) else [v])]
    return found


def test_no_rule_matches_a_number_within_a_tolerance():
    """A list of whole numbers, as the [-1] of a shape, is one of integers."""
    assert {n for rule in RULES for n in _numbers_matched(rule)} <= {-1}
    assert {0, 1} <= {n for rule in _no_op.rules for n in _numbers_matched(rule)}, "what the check is there for"
