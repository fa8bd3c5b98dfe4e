"""Operands of mixed types are converted as PyTorch converts them: its results to the bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.compiler.emit.onnx.test_translate import staged_of
from tests.samples.emitted import require_equal
from vlacompile.compiler.emit.onnx import lower_ops
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.emit.onnx.promote_operands import promoted
from vlacompile.compiler.emit.onnx.translate import NotTranslated
from vlacompile.compiler.graph.program import op_name
from vlacompile.policy.policy import Policy, Source
from vlart.errors import EmitError, VlaError

DIALECTS = ["onnxruntime", "tensorrt"]


def drawn(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    of = lambda numbers: torch.tensor(numbers)[torch.randint(0, len(numbers), (3, 5), generator=draw)]
    return {"f": of([0.0, -0.5, 1.5, 2.0, -3.25, 7.0, 0.75]), "i": of([0, 1, 2, 3, 4, 7, -2]), "b": of([True, False])}


def policy(function, seed: int = 0) -> Policy:
    inputs = drawn(seed)
    call = lambda f, i, b: {"action": function(f, i, b) + 0.0 * f + 0.0 * i + 0.0 * b}
    return Policy("mixed", call, dict.fromkeys(inputs, Source("observation")), inputs)


BOUNDS = {
    "int and float": lambda f, i, b: f.clamp(0, 1.0), "float and int": lambda f, i, b: torch.clip(f, -1.0, 1),
    "written": lambda f, i, b: f.clone().clamp_(0, 1.0), "of integers": lambda f, i, b: i.clamp(0.5, 3),
    "bool": lambda f, i, b: i.clamp(True, 3), "hardtanh": lambda f, i, b: F.hardtanh(f, -1, 1.0),
    "tensors": lambda f, i, b: f.clamp(i * 0, i.abs()) + i.clamp(f, f + 1), "one": lambda f, i, b: i.clamp(max=f),
}
NUMBERS = {
    "powers": lambda f, i, b: 2.0 ** i.abs() + i ** 2 + f.abs() ** 2, "reversed": lambda f, i, b: (1.5 - i) + (1 - f),
    "filled": lambda f, i, b: f.masked_fill(b, 1) + i.masked_fill(b, 1),
    "threshold": lambda f, i, b: F.threshold(f, 0, 1.5),
    "where": lambda f, i, b: torch.where(b, i, 0.5) + torch.where(b, 1, 0.5) + torch.where(b, f, 0),
    "remainders": lambda f, i, b: torch.fmod(f, 2) + i.remainder(2.5) + torch.fmod(i, 1.5),
    "divided": lambda f, i, b: torch.div(f, 2, rounding_mode="floor") + torch.div(i, 2.5, rounding_mode="trunc")
               + i // 2.5,
    "compared": lambda f, i, b: (i >= 0.5) * 1.5 + (f > 1) * 1 + (b == 1) * 2.0,
}
TENSORS = {
    "compared": lambda f, i, b: (i > f) * 1.0 + (i == f) * 2 + (f <= i) * 0.5,
    "joined": lambda f, i, b: torch.cat([i, f, b], 1)[:, 3:8] + torch.stack([f, b, i]).sum(0),
    "summed": lambda f, i, b: b.sum(1, keepdim=True) + f * b.cumsum(1) + (i * b).sum() + b.float().mean(),
    "logic": lambda f, i, b: torch.logical_and(f, i) * 1.0 + torch.logical_or(b, i) * f + torch.logical_not(f) * 3,
    "any": lambda f, i, b: f.any(1, keepdim=True) * f + i.all(1, keepdim=True) * 2,
    "written": lambda f, i, b: f.index_put((torch.tensor([0, 2]),), torch.tensor(1.0)).where(b, i),
    "lost": lambda f, i, b: F.mse_loss(f, i.float(), reduction="none") + F.l1_loss(f, b.float(), reduction="none"),
}
CASES = {f"{kind}: {name}": f for kind, cases in (("bounds", BOUNDS), ("numbers", NUMBERS), ("tensors", TENSORS))
         for name, f in cases.items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_mixed_operands_are_pytorchs(case, dialect):
    require_equal(policy(CASES[case]), dialect, [drawn(s) for s in range(3)])


@pytest.mark.parametrize("name", ["add", "sub", "mul", "true_divide", "maximum", "minimum", "eq", "ne", "lt", "le",
                                  "gt", "ge"])
def test_every_pair_of_types(name):
    op = getattr(torch, name)

    def of_pairs(f, i, b):
        pairs = [p for p in itertools.product((f, i, b, i.int()), repeat=2) if not (name == "sub" and any(
            t.dtype is torch.bool for t in p))]
        return torch.stack([op(*p).nan_to_num(0, 9, -9).float() for p in pairs]).sum(0)

    require_equal(policy(of_pairs), "onnxruntime", [drawn(s) for s in range(2)], 1e-6 * (name == "true_divide"))


def test_indices_that_a_decomposition_writes_in_32_bits():
    """Of overlapping windows: it adds at their places."""
    def guided(f, i, b):
        with torch.enable_grad():
            x = f.clone().requires_grad_()
            gradient, = torch.autograd.grad((x.unfold(1, 3, 1) ** 2 * i[:, None, :3]).sum(), x)
        return gradient

    require_equal(policy(guided), "onnxruntime", [drawn(s) for s in range(3)])


def test_numpys_names_of_ops_are_pytorchs():
    def of_arrays(f, i, b):
        x, n = f.numpy(), i.numpy()
        return torch.from_numpy((x > 0) * x + (x == np.round(x)) * 1.0 + np.where(x > 0, x, 0.0) + n * x + n / 2
                                + np.multiply(n, 0.5) + np.less_equal(n, x) * 1).float()

    require_equal(policy(of_arrays), "onnxruntime", [drawn(s) for s in range(3)])


def test_equal_types_are_left_alone():
    stage, = staged_of(Policy("same", lambda x: {"action": x * x + torch.where(x > 0.5, x, -x)},
                              {"x": Source("observation")}, {"x": torch.randn(1, 4)}))
    assert not promoted(stage.graph)
    mixed, = staged_of(Policy("mixed", lambda x: {"action": x * (x > 0.5)}, {"x": Source("observation")},
                              {"x": torch.randn(1, 4)}))
    assert promoted(mixed.graph) and not promoted(mixed.graph), "the second time there is nothing to convert"
    assert "convert_element_type" in [op_name(n.target) for n in mixed.graph.nodes if n.op == "call_function"]


def test_what_fails_on_the_way_has_the_line(monkeypatch):
    def fails(graph):
        raise RuntimeError("no overload")

    stage, = staged_of(Policy("line", lambda x: {"action": x.exp() * 2}, {"x": Source("observation")},
                              {"x": torch.randn(1, 4)}))
    monkeypatch.setattr(lower_ops, "promoted", fails)
    with pytest.raises(EmitError, match="no overload") as error:
        emit_onnx(stage)
    assert isinstance(error.value, VlaError) and "test_promote_operands.py" in error.value.where
    assert isinstance(error.value.__cause__, NotTranslated)
