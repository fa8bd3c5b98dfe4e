"""Work of a bundle's stages, kernel by kernel, read from their ONNX graphs.

Owns shapes -> operations and bytes. Must not know machines: `roofline.py` converts work to time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from vlart.bundle.directory import Bundle
from vlart.bundle.plan.plan import Stage
from vlart.errors import BundleError
from vlart.vocabulary import COMPILED

SCHEME_OF = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.INT8: "int8",
             TensorProto.UINT8: "int8",
             TensorProto.INT4: "int4", TensorProto.UINT4: "int4"}
BITS = {TensorProto.INT4: 4, TensorProto.UINT4: 4}
# Ops that only rename or rescale a weight before a product.
CARRIES_WEIGHT = ("DequantizeLinear", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Slice",
                  "Split", "Identity")
CUTS = ("Slice", "Split")
PRODUCTS = ("MatMul", "Gemm", "DynamicQuantizeMatMul", "MatMulNBits")
# Shape arithmetic and views: an engine launches no kernel for them.
VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Identity", "Constant", "Shape", "Split", "Slice", "Transpose", "Concat",
         "DequantizeLinear", "QuantizeLinear")


@dataclass(frozen=True)
class Kernel:
    """One matrix product. kind: linear, conv, depthwise, attention (of two activations) or embedding. rows: uses of
    each weight. operations: 2 per multiply-add. weights, stored: number and bytes, including scales, read by one call.
    moved: bytes of activations read and written."""

    name: str
    kind: str
    scheme: str
    rows: int
    operations: int
    stored: int
    moved: int
    weights: int


@dataclass(frozen=True)
class StageWork:
    """One run of a stage's engine; a loop's body runs `iterations` times. small: other kernels, such as norms and sums,
    which an engine may fuse into the products. constants: bytes that the engine holds. live: peak bytes of live
    activations."""

    stage: str
    iterations: int
    kernels: tuple[Kernel, ...]
    small: int
    constants: int
    live: int

    def of(self, field: str) -> int:
        """The sum of a field over all kernels and iterations."""
        return self.iterations * sum(getattr(k, field) for k in self.kernels)


def work_of(bundle: Bundle) -> tuple[StageWork, ...]:
    """The work of every stage, in the plan's order. For a stage without an ONNX file (compiled by TVM), the plan's own
    totals; for one that is looked up, none.
    Raises BundleError if a stage cannot be read."""
    plan, found = bundle.plan, []
    for stage in plan.stages:
        if stage.backend == "library":
            found.append(StageWork(stage.name, stage.iterations, (), 0, 0, 0))
            continue
        if stage.backend in COMPILED or stage.artefact is None:
            found.append(_from_plan(stage))
            continue
        path = bundle.path / plan.files[stage.artefact].path
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's errors have no common class
            raise BundleError("a stage cannot be read", where=str(path), why=f"{type(error).__name__}: {error}",
                              fix="build the bundle again") from error
        found.append(_Reader(model).work(stage))
    return tuple(found)


def _from_plan(stage: Stage) -> StageWork:
    kernel = Kernel(stage.name, "linear", "fp32", 1, stage.flops, stage.weight_bytes, 0, stage.weight_bytes // 4)
    return StageWork(stage.name, stage.iterations, (kernel,), 0, stage.weight_bytes, 0)


class _Reader:
    """One stage's graph: types of all values, the weights among them, and the products."""

    def __init__(self, model: onnx.ModelProto):
        self.nodes = list(model.graph.node)
        self.types: dict[str, tuple[int, tuple[int, ...]]] = {}
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim)
        self.weights = {i.name: (i.data_type, tuple(i.dims)) for i in model.graph.initializer}
        self.types |= self.weights
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.ends = {v.name for v in (*model.graph.input, *model.graph.output)}
        self.stored_as = self._fp16_beside_products()

    def _fp16_beside_products(self) -> dict[str, str]:
        """{value in f32: the fp16 value that it is stored as} of products that only sum in f32, which an engine makes
        one kernel of with the casts around them."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        found: dict[str, str] = {}
        for node in [n for n in self.nodes if n.op_type in ("MatMul", "Gemm")]:
            before = [self.makers.get(n) for n in node.input if n]
            behind = readers.get(node.output[0], [])
            casts = [m for m in (*before, *behind) if m is not None and m.op_type == "Cast"]
            narrow = [*(m.input[0] for m in casts[:len(before)]), *(m.output[0] for m in casts[len(before):])]
            if len(behind) == 1 and len(casts) == len(before) + 1 and all(
                    self.types.get(n, (0,))[0] == TensorProto.FLOAT16 for n in narrow):
                found |= {m.output[0]: m.input[0] for m in casts[:-1]} | {node.output[0]: narrow[-1]}
        return found

    def work(self, stage: Stage) -> StageWork:
        kernels = [k for n in self.nodes if (k := self._kernel(n)) is not None]
        small = sum(n.op_type not in (*PRODUCTS, "Conv", "Gather", "GatherBlockQuantized", *VIEWS)
                    and not (n.op_type == "Cast" and {*n.input, *n.output} & {*self.stored_as}) for n in self.nodes)
        return StageWork(stage.name, stage.iterations, tuple(kernels), small, sum(map(self._bytes, self.weights)),
                         self._live())

    def _kernel(self, node: onnx.NodeProto) -> Kernel | None:
        if node.op_type in ("Gather", "GatherBlockQuantized"):
            weight = self._weight(node.input[0])
            return None if weight is None or len(weight[1]) < 2 else self._made(node, "embedding", weight, 0)
        if node.op_type == "Conv":
            return self._conv(node)
        if node.op_type not in PRODUCTS:
            return None
        out, left = self._dims(node.output[0]), self._dims(node.input[0])
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        operations = 2 * math.prod(out) * left[-2 if turned else -1]
        weight = self._weight(node.input[1])
        if weight is None or self._weight(node.input[0]) is not None:
            return self._made(node, "attention", None, operations)
        return self._made(node, "linear", weight, operations, math.prod(out[:-1]))

    def _shape(self, node: onnx.NodeProto, weight: tuple[int, tuple[int, ...]]) -> tuple[int, ...]:
        if node.op_type == "MatMulNBits":  # the weight is stored in packed blocks
            sizes = {a.name: a.i for a in node.attribute}
            return sizes["N"], sizes["K"]
        return weight[1][-2:]

    def _conv(self, node: onnx.NodeProto) -> Kernel:
        weight = self._weight(node.input[1])
        if weight is None:
            raise BundleError("a convolution with a computed weight", where=f'node "{node.name}"',
                              why="its cost is not modelled", fix="profile the bundle by measuring it")
        out, inner = self._dims(node.output[0]), weight[1][1:]
        depthwise = weight[1][1] == 1 and self._dims(node.input[0])[1] > 1
        rows = math.prod(out) // max(out[1], 1)
        return self._made(node, "depthwise" if depthwise else "conv", weight,
                          2 * math.prod(out) * math.prod(inner), rows)

    def _made(self, node: onnx.NodeProto, kind: str, weight, operations: int, rows: int = 1) -> Kernel:
        activations = [self.stored_as.get(n, n) for n in (*node.input, node.output[0])
                       if n and self._weight(n) is None]
        moved = sum(self._bytes(n) for n in activations)
        if weight is None:
            scheme, numbers, stored = SCHEME_OF.get(self.types[activations[-1]][0], "fp32"), 0, 0
        else:
            scheme = "int4" if node.op_type in ("MatMulNBits",
                                                "GatherBlockQuantized") else SCHEME_OF.get(weight[0], "fp32")
            numbers = math.prod(self._shape(node, weight)) if kind == "linear" else math.prod(weight[1])
            stored = self._stored(node)
        if kind == "embedding":  # only the copied rows
            numbers *= 2 if node.op_type == "GatherBlockQuantized" and weight[0] == TensorProto.UINT8 else 1
            of = max(weight[1][0], 1)
            rows = min(of, math.prod(self._dims(node.output[0])[:-1]))
            stored, numbers = stored * rows // of, numbers * rows // of
        return Kernel(node.name or node.output[0], kind, scheme, rows, operations, stored, moved, numbers)

    def _stored(self, node: onnx.NodeProto) -> int:
        """Bytes of weights, scales and biases behind the node's operands; for a split weight, the node's part."""

        def walk(name: str, share: float) -> float:
            if name in self.weights:
                return share * self._bytes(name)
            if self._weight(name) is None:
                return 0.0
            maker = self.makers[name]
            if maker.op_type in CUTS:
                share *= math.prod(self._dims(name)) / math.prod(self._dims(maker.input[0]))
                return walk(maker.input[0], share)
            return sum(walk(n, share) for n in maker.input)

        return int(sum(walk(n, 1.0) for n in dict.fromkeys(node.input)))

    def _weight(self, name: str) -> tuple[int, tuple[int, ...]] | None:
        """(type, dims at the product) of the constant behind a value; None: it is an activation."""
        at = name
        while at not in self.weights:
            maker = self.makers.get(at)
            if maker is None or maker.op_type not in CARRIES_WEIGHT:
                return None
            at = maker.input[0]
        return self.weights[at][0], self._dims(name)

    def _dims(self, name: str) -> tuple[int, ...]:
        return self.types[name][1]

    def _bytes(self, name: str) -> int:
        code, dims = self.types.get(name, (TensorProto.FLOAT, ()))
        bits = BITS.get(code) or 8 * onnx.helper.tensor_dtype_to_np_dtype(code).itemsize
        return math.ceil(math.prod(dims) * bits / 8)

    def _live(self) -> int:
        """Peak bytes of live values, in the order of the nodes; memory shared by a view is counted twice."""
        last = {name: i for i, node in enumerate(self.nodes) for name in node.input}
        ends: dict[int, list[str]] = {}
        for name, i in last.items():
            ends.setdefault(i, []).append(name)
        alive, peak = 0, 0
        inner = {n for node in self.nodes for n in node.output if n in last and n not in self.ends
                 and n not in self.stored_as and self._weight(n) is None
                 and node.op_type not in ("Reshape", "Squeeze", "Unsqueeze", "Identity")}
        for i, node in enumerate(self.nodes):
            alive += sum(self._bytes(n) for n in node.output if n in inner)
            peak = max(peak, alive)
            alive -= sum(self._bytes(n) for n in ends.get(i, ()) if n in inner)
        return peak
