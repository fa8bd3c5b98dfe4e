"""Softmax and arg-maxima of vectors: PyTorch's results on a matrix of one row, which NVIDIA's compiler takes."""

from __future__ import annotations

import importlib.util

import onnx_ir as ir
import pytest
import torch

from tests.samples.emitted import Emitted, require_equal
from vlacompile.check.compile import compile_stage
from vlacompile.policy.policy import Policy, Source

OPS = {"Softmax": lambda v: v.softmax(0), "LogSoftmax": lambda v: v.log_softmax(-1),
       "ArgMax": lambda v: v.argmax(0).float(), "ArgMin": lambda v: v.argmin(0, keepdim=True).float()}


class OfVector(torch.nn.Module):
    """x [1,16] -> action [1,1,n], by an op of the vector."""

    def __init__(self, op):
        super().__init__()
        self.op = op

    def forward(self, x):
        return {"action": self.op(x[0]).reshape(1, 1, -1)}


def policy(op_type: str) -> Policy:
    return Policy("p", OfVector(OPS[op_type]), {"x": Source("observation")}, {"x": torch.randn(1, 16)})


@pytest.mark.parametrize("op_type", OPS)
@pytest.mark.parametrize("dialect", ["onnxruntime", "tensorrt"])
def test_the_numbers_are_those_of_pytorch(op_type, dialect):
    frames = [{"x": torch.randn(1, 16, generator=torch.Generator().manual_seed(k)) * 10} for k in range(5)]
    require_equal(policy(op_type), dialect, [*frames, {"x": torch.zeros(1, 16)}], tolerance=1e-6)


@pytest.mark.parametrize("op_type", OPS)
def test_only_a_board_s_graph_has_a_row(op_type):
    for dialect, dimensions in (("onnxruntime", 1), ("tensorrt", 2)):
        (model,) = Emitted(policy(op_type), dialect).models.values()
        assert [len(n.inputs[0].shape) for n in model.graph if n.op_type == op_type] == [dimensions]


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                    reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")
def test_nvidia_s_compiler_takes_them(tmp_path):
    class All(torch.nn.Module):
        def forward(self, x):
            return {"action": torch.cat([op(x[0]).reshape(-1) for op in OPS.values()]).reshape(1, 1, -1)}

    every = Policy("p", All(), {"x": Source("observation")}, {"x": torch.randn(1, 16)})
    (model,) = Emitted(every, "tensorrt").models.values()
    ir.save(model, tmp_path / "m.onnx")
    assert compile_stage(tmp_path / "m.onnx").refusal is None
