"""Half layers behind a transpose that moves the first dimension, where ONNX Runtime 1.32 crashes while it optimises."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vlacompile as vc
from vlacompile.compiler.emit.onnx import onnx_stage
from vlart.errors import RuntimeFailure

LENGTH, WIDTH = 6, 32


class SequenceFirst(nn.Module):
    """As detection transformers compute: [T,B,D] between the layers. The rows of a constant on the left, too."""

    def __init__(self, perm: tuple[int, ...]):
        super().__init__()
        torch.manual_seed(0)
        self.perm = perm
        self.into, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear((1, LENGTH, WIDTH)[perm[-1]], 8)
        self.register_buffer("rows", torch.randn(4, (1, LENGTH, WIDTH)[perm[-2]]))

    def forward(self, tokens):
        x = self.into(tokens).permute(self.perm)
        return {"action": self.out(x).flatten(1)[:1, None], "rows": self.rows @ x}


def policy_of(perm):
    return vc.Policy("first", SequenceFirst(perm).eval(), {"tokens": vc.Source("observation")},
                     {"tokens": torch.randn(1, LENGTH, WIDTH)}, outputs=("action", "rows"))


@pytest.mark.parametrize("perm", [(1, 0, 2), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("target, recipe", [("host", "fp16"), ("orin-nano-8gb", None)])
def test_products_behind_a_transpose_run(perm, target, recipe, tmp_path):
    vc.build(policy_of(perm), target=target, recipe=recipe, out=tmp_path / "b.vlab")
    assert vc.verify(tmp_path / "b.vlab", stand_in=target != "host").passed


def test_an_engine_that_crashes_is_a_refusal(tmp_path, monkeypatch):
    """And why the rewrite is there: without it that version crashes. Nothing is left behind."""
    monkeypatch.setattr(onnx_stage, "equal_ranks", lambda model: None)
    with pytest.raises(RuntimeFailure, match="crashed") as refused:
        vc.build(policy_of((1, 0, 2)), target="host", recipe="fp16", out=tmp_path / "b.vlab")
    assert "signal 11" in refused.value.why and "not written" in refused.value.fix
    assert not list(tmp_path.iterdir())
