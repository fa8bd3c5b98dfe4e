"""What TensorRT 10.3 takes (JetPack 6.2) is refused, or written otherwise, before there is a board."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import vlacompile as vc
from tests.samples import rejected_policies as rejected
from tests.samples.emitted import require_equal
from vlacompile.compiler.emit.onnx import functions
from vlacompile.compiler.emit.tensorrt import support as tensorrt_support
from vlacompile.compiler.emit.tensorrt.support import REWRITES, require_supported
from vlart.errors import EmitError


def refused(model: onnx.ModelProto, tensorrt: str = "10.3") -> EmitError:
    with pytest.raises(EmitError) as error:
        require_supported("s", ir.from_proto(model), tensorrt)
    return error.value


def model(nodes: list, inputs: list[tuple], outputs: list[tuple], constants=()) -> onnx.ModelProto:
    """inputs, outputs: (name, element type, shape). constants: (name, array)."""
    values = [[helper.make_tensor_value_info(*v) for v in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *values, [numpy_helper.from_array(a, n) for n, a in constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(("part", "op"), [(rejected.Powers, "Pow"), (rejected.Filtered, "Conv"),
                                            (rejected.Products, "MatMul")])
def test_a_build_says_the_line_and_what_to_write(part, op, tmp_path):
    said = []
    with pytest.raises(EmitError, match="TensorRT 10.3 does not support the stage") as error:
        vc.build(rejected.policy(part), target="orin-nano-8gb+jetpack-6.2", out=tmp_path / "b.vlab",
                 progress=said.append)
    assert said[-1] == "choose-precision: check which ops TensorRT 10.3 supports", "before precision is chosen"
    assert "rejected_policies.py" in error.value.where and REWRITES[op] in error.value.fix
    assert "jetpack-7.2" in error.value.fix
    assert not (tmp_path / "b.vlab").exists()


def test_later_versions_are_left_to_their_own_parser():
    det = model([helper.make_node("Det", ["x"], ["y"], name="d")], [("x", TensorProto.FLOAT, [3, 3])],
                [("y", TensorProto.FLOAT, [])])
    assert refused(det).why == "it has no Det" and refused(det, "10.3.0.30").why == "it has no Det"
    require_supported("s", ir.from_proto(det), "10.16")


def test_types_and_rows_are_looked_at():
    ints = model([helper.make_node("CumSum", ["x", "axis"], ["y"], name="c")], [("x", TensorProto.INT64, [4])],
                 [("y", TensorProto.INT64, [4])], [("axis", np.array(0))])
    assert refused(ints).why == "its CumSum does not support INT64" and "triangular" in refused(ints).fix
    odd = model([helper.make_node("DequantizeLinear", ["x", "s"], ["y"], name="d", axis=0, block_size=2)],
                [("x", TensorProto.INT4, [4, 3])], [("y", TensorProto.FLOAT, [4, 3])],
                [("s", np.ones((2, 3), np.float32))])
    assert "an even length" in refused(odd).why
    foreign = model([helper.make_node("MatMulNBits", ["x"], ["y"], name="m", domain="com.microsoft")],
                    [("x", TensorProto.FLOAT, [4])], [("y", TensorProto.FLOAT, [4])])
    assert refused(foreign).why == "it has no MatMulNBits"


def test_every_op_is_listed_once_and_none_that_it_has_not():
    names = [op for ops in tensorrt_support.OPS.values() for op in ops.split()]
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    assert len(set(names)) == len(names) and set(names) <= known
    assert not {"Det", "DFT", "BitwiseAnd", "MatMulInteger", "GroupNormalization"} & set(names)


class Groups(nn.Module):
    """A normalisation of groups, with and without numbers per channel, of one and of two dimensions."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.GroupNorm(4, 16), nn.GroupNorm(2, 16, eps=1e-3)
        self.plain = nn.GroupNorm(8, 16, affine=False)
        for norm in (self.one, self.two):
            nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)

    def forward(self, x):
        return {"action": self.plain(self.two(torch.relu(self.one(x))).reshape(1, 16, 5, 2)).reshape(1, 10, 16)}


def test_groups_are_normalised_without_numbers_per_group(tmp_path, monkeypatch):
    """TensorRT 10.3 takes GroupNormalization's scale as one per group, which opset 21 has per channel."""
    policy = vc.Policy("groups", Groups().eval(), {"x": vc.Source("observation")}, {"x": torch.randn(1, 16, 10)})
    made = vc.build(policy, target="orin-nano-8gb+jetpack-6.2", out=tmp_path / "b.vlab")
    assert made.accepted.passed
    ops = [n.op_type for path in (made.path / "stages").glob("*.onnx")
           for n in onnx.load(path, load_external_data=False).graph.node]
    assert ops.count("InstanceNormalization") == 3
    monkeypatch.setattr(functions, "ATEN", {})  # as torch.onnx writes it
    functions.table.cache_clear()
    with pytest.raises(EmitError, match="TensorRT 10.3 does not support the stage") as error:
        vc.build(policy, target="orin-nano-8gb+jetpack-6.2", out=tmp_path / "c.vlab")
    functions.table.cache_clear()
    assert error.value.why == "it has no GroupNormalization"


class Recommended(nn.Module):
    """What the fix texts say to write, an output each."""

    def forward(self, x):
        i = (x * 3).long()
        turns = torch.outer(torch.arange(16.0), torch.arange(9.0)) * (2 * torch.pi / 16)
        rows = x.reshape(1, 4, 4)
        groups = nn.functional.instance_norm(x.reshape(1, 2, 8)).reshape(1, 4, 4) * torch.arange(4.0)[:, None]
        peaks = nn.functional.max_pool1d(rows, 2).repeat_interleave(2, -1)
        return {"action": x.reshape(1, 1, 16), "NonZero": torch.where(x > 0, x, 0.0)[:, torch.tensor([0, 3])],
                "QuickGelu": x * torch.sigmoid(1.702 * x), "Pow": torch.pow(x.abs(), x) + (i * i * i),
                "MatMul": rows @ rows.round().mT,
                "Conv": nn.functional.conv1d((x * 9).round()[None], torch.ones(1, 1, 3)),
                "CumSum": x @ torch.ones(16, 16).triu(),
                "Det": rows[:, 0, 0] * rows[:, 1, 1] - rows[:, 0, 1] * rows[:, 1, 0],
                "DFT": torch.stack([x @ turns.cos(), x @ turns.sin()]), "GroupNormalization": groups,
                "MaxUnpool": rows * (rows == peaks), "SplitToSequence": rows[:, 0] + rows[:, 1],
                "BYTES": (i % 256).to(torch.uint8).float() + x}


def test_what_the_fixes_recommend_is_itself_supported():
    """Those that recommend an op; the others say to compute something outside, or for another target."""
    outputs = tuple(Recommended()(torch.zeros(1, 16)))
    elsewhere = {"Unique", "MatMulNBits", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "Cast", "Bernoulli",
                 "RandomNormal"}
    assert set(REWRITES) - elsewhere == set(outputs) - {"action", "BYTES"}
    x = torch.linspace(-2, 2, 16)[None]
    policy = vc.Policy("fixes", Recommended().eval(), {"x": vc.Source("observation")}, {"x": x}, outputs=outputs)
    require_equal(policy, "tensorrt", [{"x": x}, {"x": x.flip(1) * 3}], 1e-5)
