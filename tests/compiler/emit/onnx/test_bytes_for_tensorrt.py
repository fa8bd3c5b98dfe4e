"""In a board's stage bytes are at the ports alone, converted there to and from floats, and every byte is PyTorch's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import nn

import vlacompile as vc
from tests.samples.emitted import Emitted, require_equal
from tests.samples.small_onnx import write
from vlacompile.compiler.emit.onnx.bytes_for_tensorrt import bytes_for_tensorrt
from vlacompile.compiler.emit.tensorrt.support import require_supported
from vlart.errors import EmitError

BYTES, FLOATS = ir.DataType.UINT8, (ir.DataType.FLOAT, ir.DataType.FLOAT16)
BOARD = "orin-nano-8gb+jetpack-6.2"


def require_bytes_at_ports(model: ir.Model) -> None:
    for node in model.graph:
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.dtype == BYTES:
                other = (node.outputs if value in node.inputs else node.inputs)[0]
                assert node.op_type == "Cast" and other.dtype in FLOATS, f"{node.name} has bytes"
                assert value.is_graph_input() or value.is_graph_output(), f"{value.name} is no port"


# moves, one after another, in front of arithmetic

MOVES = {
    "stacked": lambda x, y: torch.stack([x, y], 1),
    "joined": lambda x, y: torch.cat([x, y.flip(-1)], 1),
    "joined_with_known": lambda x, y: torch.cat([x, torch.full_like(x, 7), y], 1),
    "padded": lambda x, y: F.pad(torch.stack([x, y]), (1, 2, 0, 1), value=9),
    "rolled": lambda x, y: torch.cat([x.roll(1, 2), x.roll((1, -1), (1, 2)), y], 2),
    "picked": lambda x, y: torch.cat([x[:, [1, 0, 0]], y[..., [2, 1]].expand(1, 3, 2).repeat(1, 1, 2)], 1),
    "turned": lambda x, y: torch.stack([x, y]).permute(0, 1, 3, 2).reshape(1, -1)[:, 1::2],
    "chained": lambda x, y: F.pad(torch.stack([x.flip(1), y.roll(1, 2)], 1)[:, [1, 0, 1]], (1, 1)).transpose(1, 3),
    "split": lambda x, y: torch.cat([*x.split([1, 2], 1)[::-1], *y.chunk(3, 1)[1:]], 1),
    "chosen": lambda x, y: torch.where(x > 99, torch.cat([y, x], 2)[..., 2:6], 3),
    "larger": lambda x, y: F.interpolate(torch.stack([x, y], 1), scale_factor=2, mode="nearest"),
}
READERS = {"divided": lambda v: v / 255, "half": lambda v: v.half() / 256, "in_two": lambda v: v.float() + v.half(),
           "counted": lambda v: v.long() // 3, "any": lambda v: v.bool(), "summed": lambda v: v + v.flip(1)}


class Moved(nn.Module):
    """Each move read as a number by each reader, and handed out in bytes."""

    def __init__(self, moves, readers, handed_out: bool):
        super().__init__()
        self.moves, self.readers, self.handed_out = moves, readers, handed_out

    def forward(self, x, y):
        moved = {name: move(x, y) for name, move in self.moves.items()}
        found = {f"{m}_{r}": read(v).float() for m, v in moved.items() for r, read in self.readers.items()}
        return {"action": x.float().reshape(1, 3, 4)} | found | (moved if self.handed_out else {})


def pictures(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    of = lambda: torch.randint(0, 256, (1, 3, 4), dtype=torch.uint8, generator=draw)
    return {"x": of(), "y": of()}


def moved_policy(moves, readers=READERS, handed_out: bool = False) -> vc.Policy:
    module = Moved(moves, readers, handed_out)
    return vc.Policy("moved", module.eval(), dict.fromkeys(("x", "y"), vc.Source("observation")), pictures(0),
                     outputs=tuple(module(**pictures(0))))


@pytest.mark.parametrize("handed_out", [False, True])
@pytest.mark.parametrize("readers", [{"divided": READERS["divided"]}, READERS], ids=["one_reader", "readers"])
def test_moves_of_bytes(readers, handed_out):
    policy = moved_policy(MOVES, readers, handed_out)
    require_equal(policy, "tensorrt", [pictures(seed) for seed in range(3)], 1e-6)
    for model in Emitted(policy, "tensorrt").models.values():
        require_bytes_at_ports(model)


def test_moves_that_are_only_handed_out():
    policy = moved_policy(MOVES, {}, handed_out=True)
    require_equal(policy, "tensorrt", [pictures(seed) for seed in range(3)])
    for model in Emitted(policy, "tensorrt").models.values():
        require_bytes_at_ports(model)


def test_frames_are_cast_once_to_the_type_that_is_read():
    emitted = Emitted(moved_policy({"stacked": MOVES["stacked"]}, {"divided": READERS["divided"]}), "tensorrt")
    casts = [n for model in emitted.models.values() for n in model.graph
             if n.op_type == "Cast" and not n.outputs[0].is_graph_output()]
    assert {n.attributes.get_int("to") for n in casts} == {ir.DataType.FLOAT}
    inputs = [v for model in emitted.models.values() for v in model.graph.inputs if v.dtype == BYTES]
    assert {v.name for v in inputs} == {"x", "y"} and [len(v.uses()) for v in inputs] == [1] * len(inputs)
    assert len(casts) == len(inputs)


def test_bytes_inside_a_stage_are_noticed():
    models = Emitted(moved_policy({"stacked": MOVES["stacked"]}), "onnxruntime").models.values()
    with pytest.raises(AssertionError, match="has bytes"):
        for model in models:
            require_bytes_at_ports(model)


# builds

class History(nn.Module):
    """A camera with a history, stacked as bytes, in front of layers that a recipe gives other types."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.head = nn.Conv2d(3, 32, 4, 4), nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 12))

    def forward(self, camera):
        v = self.patch(camera[0].permute(0, 3, 1, 2).float() / 127.5 - 1)
        return {"action": self.head(v.flatten(2).mean(2).mean(0)).view(1, 3, 4), "seen": camera[:, -1]}


@pytest.mark.parametrize("recipe", [None, "fp16", "int8"])
def test_a_history_of_bytes(recipe, tmp_path):
    frames = torch.randint(0, 256, (1, 2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    policy = vc.Policy("history", History().eval(), {"camera": vc.Source("tick", history=2)}, {"camera": frames},
                       outputs=("action", "seen"))
    made = vc.build(policy, target=BOARD, out=tmp_path / "b.vlab", recipe=recipe)
    assert made.accepted.passed
    for path in (made.path / "stages").glob("*.onnx"):
        require_bytes_at_ports(ir.load(path))


# what is in a graph, whoever wrote it

def cast(x: str, y: str, to: int):
    return helper.make_node("Cast", [x], [y], to=to)


def run(model: ir.Model, inputs: dict) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(),
                                        providers=["CPUExecutionProvider"]).run(None, inputs)


def test_an_input_that_nothing_reads_stays_as_it_is(tmp_path):
    model = ir.load(write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])],
                          [("unused", TensorProto.UINT8, [2]), ("x", 1, [2])], [("y", 1, [2])]))
    bytes_for_tensorrt(model)
    assert [v.name for v in model.graph.inputs] == ["unused", "x"] and [n.op_type for n in model.graph] == ["Relu"]
    given = {"unused": np.zeros(2, np.uint8), "x": np.array([-1, 2], np.float32)}
    np.testing.assert_array_equal(run(model, given)[0], [0, 2])


def test_an_input_that_is_handed_out_twice(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0])]
    model = ir.load(write(tmp_path / "m.onnx", nodes, [("x", 2, [2, 3])], [("y", 2, [2, 3]), ("z", 2, [3, 2])]))
    model.graph[0].outputs[0].dtype = model.graph[1].outputs[0].dtype = BYTES
    bytes_for_tensorrt(model)
    require_bytes_at_ports(model)
    x = np.array([[0, 1, 2], [127, 254, 255]], np.uint8)
    y, z = run(model, {"x": x})
    assert y.dtype == z.dtype == np.uint8 and [v.name for v in model.graph.outputs] == ["y", "z"]
    np.testing.assert_array_equal(y, x), np.testing.assert_array_equal(z, x.T)


@pytest.mark.parametrize(("nodes", "kinds"), [([cast("x", "y", 6)], (2, 6)), ([cast("x", "y", 9)], (2, 9)),
                                              ([cast("x", "y", 2)], (6, 2))], ids=["to_i32", "to_bool", "from_i32"])
def test_bytes_are_converted_by_way_of_floats(nodes, kinds, tmp_path):
    """TensorRT converts bytes to and from f32 and f16 alone."""
    load = lambda: ir.load(write(tmp_path / "m.onnx", nodes, [("x", kinds[0], [4])], [("y", kinds[1], [4])]))
    with pytest.raises(EmitError) as error:
        require_supported("s", load(), "10.3")
    assert "FLOAT and FLOAT16 alone" in error.value.why
    model = load()
    bytes_for_tensorrt(model)
    require_supported("s", model, "10.3")
    require_bytes_at_ports(model)
    x = np.array([0, 1, 128, 255], helper.tensor_dtype_to_np_dtype(kinds[0]))
    np.testing.assert_array_equal(run(model, {"x": x})[0], x.astype(helper.tensor_dtype_to_np_dtype(kinds[1])))
