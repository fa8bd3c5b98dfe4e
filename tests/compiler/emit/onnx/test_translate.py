"""A stage's graph becomes the ONNX that torch.onnx.export makes of it, without being traced again: PyTorch is asked
once for ops that are alike."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule

import vlacompile as vc
from tests.compiler.graph.test_work_bound import layers
from tests.samples.staging import verified
from vlacompile.compiler.emit.onnx.aten_ops import ATEN
from vlacompile.compiler.emit.onnx.functions import quietly
from vlacompile.compiler.emit.onnx.lower_ops import lower_ops
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.emit.onnx.simplify import simplify
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.hardware.target import load_target
from vlacompile.recipe.recipe import load_recipe

X, ROW, IDS = torch.randn(1, 6, 8), torch.randn(8), torch.arange(6)[None]
WEIGHT = torch.randn(8, 8)
CASES = {
    "mixed types": lambda x, ids: x * ids[..., None] + (ids > 2.5)[..., None],
    "numbers": lambda x, ids: (x / 2 + 1e-8) ** 2 + torch.where(x > 0, x, -1.0),
    "divided integers": lambda x, ids: (ids / 2)[..., None] + x + (ids // 2)[..., None] + (ids % 3)[..., None],
    "views": lambda x, ids: x.transpose(1, 2).reshape(1, 4, 12).unflatten(2, (2, 6)).movedim(3, 1).flatten(1)[:, :9],
    "parts": lambda x, ids: torch.cat([p * i for i, p in enumerate(x.chunk(4, -1))], -1) + x.narrow(1, 0, 1),
    "attention": lambda x, ids: F.scaled_dot_product_attention(*[x[:, None]] * 3, ids[:, None, None] < 4),
    "norms": lambda x, ids: F.layer_norm(F.linear(x, WEIGHT, ROW), (8,)) * F.gelu(x, approximate="tanh"),
    "decomposed": lambda x, ids: F.mish(x) + torch.std(x, 2, keepdim=True) + torch.addcmul(x, x, F.normalize(x, dim=2)),
}


def staged_of(policy: vc.Policy) -> tuple[StageGraph, ...]:
    return verified(policy, load_target("host"), load_recipe(None)).staging.staged.stages


def by_torch_onnx(stage: StageGraph):
    root = torch.nn.Module()
    for name, tensor in stage.constants.items():
        root.register_buffer(name, tensor)
    vals = [n.meta["val"] for n in stage.graph.nodes if n.op == "placeholder"]
    args = tuple(torch.zeros(tuple(v.shape), dtype=v.dtype) for v in vals)
    with quietly(), torch.no_grad():
        model = torch.onnx.export(GraphModule(root, stage.graph), args, dynamo=True, opset_version=20, optimize=False,
                                  verbose=False, custom_translation_table=ATEN).model
    simplify(model)
    return model


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_torch_onnx_makes_of_it(case):
    policy = vc.Policy("case", lambda x, ids: {"action": CASES[case](x, ids)},
                       {"x": vc.Source("observation"), "ids": vc.Source("observation")}, {"x": X, "ids": IDS})
    for stage in staged_of(policy):
        ours, theirs = emit_onnx(stage).model, by_torch_onnx(stage)
        count = lambda model: Counter((n.op_type, tuple(v.dtype for v in n.outputs)) for n in model.graph)
        assert count(ours) == count(theirs)
        assert ours.graph.opset_imports == theirs.graph.opset_imports


def test_pytorch_is_asked_once_for_ops_that_are_alike():
    asked = {}
    for n in (4, 8):
        stage, = staged_of(layers(n))
        asked[n] = []
        lower_ops(stage.graph, lambda target, n=n: asked[n].append(target) or is_translated(target), decompositions())
        assert len(stage.graph.nodes) > 2 * len(asked[n])
    assert asked[4] == asked[8], "more layers, and no other kind of op"


def test_a_policy_that_logs_everything_sees_nothing_of_the_translation(monkeypatch, tmp_path):
    """CogACT's package sets the root logger to INFO."""
    head = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)).eval()
    policy = vc.Policy("loud", lambda x: {"action": head(x)[:, None]}, {"x": vc.Source("observation")},
                       {"x": torch.randn(1, 8)})
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.name)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.INFO)
    logging.getLogger("policy").info("heard")
    vc.build(policy, out=tmp_path / "a.vlab")
    assert "policy" in seen and not [name for name in seen if name.startswith(("onnx", "torch.onnx"))]
