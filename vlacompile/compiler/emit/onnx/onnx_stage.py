"""Stage -> ONNX: `torch.onnx` translates the ops; this file sets names, strips provenance and moves large constants to
external data, so that a bundle stores each of them once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlacompile.compiler.emit.onnx.equal_ranks import equal_ranks
from vlacompile.compiler.emit.onnx.fired_rule import FiredRule
from vlacompile.compiler.emit.onnx.for_tensorrt import for_tensorrt
from vlacompile.compiler.emit.onnx.functions import quietly
from vlacompile.compiler.emit.onnx.lower_ops import lower_ops
from vlacompile.compiler.emit.onnx.simplify import simplify
from vlacompile.compiler.emit.onnx.store_fp16 import store_fp16
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.emit.onnx.translate import LINE, NotTranslated, translate
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.policy.source_lines import lines_of_trace, source_line
from vlacompile.recipe.tensorrt_rules import TensorRTRecipe
from vlart.errors import EmitError

OPSETS = {"onnxruntime": 20, "tensorrt": 21}  # 4-bit integers and block-wise scales need 21
IR_VERSION = 10
# Smaller constants stay inside the ONNX file, where shape arithmetic needs them.
EXTERNAL_BYTES = 1024
# Operands stored as external data: weights, and constants of ops that unpack them. ONNX Runtime 1.32 may transpose any
# other constant in place (when it moves a Transpose past a Concat or an Add) and then reads the one that libvlart
# provides as if it were transposed.
OUTSIDE = {"MatMul": (0, 1), "Gemm": (0, 1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2), "Gather": (0,),
           "LayerNormalization": (1, 2), "InstanceNormalization": (1, 2), "BatchNormalization": (1, 2, 3, 4),
           "Split": (0,), "Slice": (0,), "Transpose": (0,), "Squeeze": (0,), "DequantizeLinear": (0, 1),
           "Cast": (0,), "DynamicQuantizeMatMul": (1, 2, 4), "MatMulNBits": (1, 2, 5), "GatherBlockQuantized": (0, 2)}


@dataclass(frozen=True)
class OnnxStage:
    """model: without the large constants. initializers: {name in the model: tensor}, to be stored as external data in
    C order, whatever their strides: a weight that is only transposed is no copy of it. `externalise` sets their offsets
    before the model is serialised. own: those that the engine itself loads. fired: what rules of emission did."""

    name: str
    model: ir.Model
    initializers: dict[str, np.ndarray]
    own: frozenset[str] = frozenset()
    fired: tuple[FiredRule, ...] = ()


def emit_onnx(stage: StageGraph, dialect: str = "onnxruntime", fp16_weights: bool = False,
              tensorrt: TensorRTRecipe = TensorRTRecipe()) -> OnnxStage:
    """Translates one stage for the engine `dialect`. fp16_weights: see `store_fp16`. tensorrt: of that dialect. Raises
    EmitError with the stage and the op that has no translation."""
    val = {n.name for n in stage.graph.nodes if n.op == "placeholder"}
    outputs = [p.name if p.name not in val else f"{p.name}_out" for p in stage.outputs]
    try:
        graph = lower_ops(stage.graph, is_translated, decompositions())
        model = translate(graph, stage.constants, OPSETS[dialect], [p.name for p in stage.inputs], outputs)
    except NotTranslated as error:
        raise _explain(stage, error) from error
    with quietly():
        simplify(model)
    return _finish(stage, model, dialect, fp16_weights, tensorrt)


def _explain(stage: StageGraph, error: NotTranslated) -> EmitError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    line = next((x.strip() for x in str(cause).splitlines() if x.strip()), type(cause).__name__)
    where = lines_of_trace(error.node.meta["stack_trace"])
    return EmitError("the stage cannot be exported to ONNX",
                     where=f'stage "{stage.name}"' + (f", {where}" if where else ""),
                     why=f"{type(cause).__name__}: {line}",
                     fix="rewrite that line with ops that torch.onnx translates "
                     "(https://docs.pytorch.org/docs/stable/onnx_export.html)")


def _finish(stage: StageGraph, model: ir.Model, dialect: str, fp16_weights: bool,
            tensorrt: TensorRTRecipe) -> OnnxStage:
    model.ir_version = IR_VERSION
    origins = {n: source_line(n.metadata_props.get(LINE, "")) for n in model.graph}
    _strip(model)
    if dialect == "tensorrt":
        for node, line in origins.items():
            node.doc_string = line or None
    _four_bits(model)
    _pad_in_convolutions(model)
    fired = for_tensorrt(model, tensorrt) if dialect == "tensorrt" else ()
    if fp16_weights:
        store_fp16(model)
    equal_ranks(model)
    given = [v.name for v in model.graph.inputs]
    assert given == [p.name for p in stage.inputs], f"{stage.name}: ports {given}"
    initializers = {}
    for name, value in list(model.graph.initializers.items()):
        array = value.const_value.numpy()
        if array.nbytes >= EXTERNAL_BYTES and all(i in OUTSIDE.get(node.op_type, ()) for node, i in value.uses()):
            four = value.const_value.dtype == ir.DataType.INT4  # unknown to NumPy: stored as packed bytes
            initializers[name] = np.frombuffer(value.const_value.tobytes(), np.uint8).copy() if four else array
    own = _four_bit(model, initializers)
    own |= {n for n in initializers if any(_feeds_convolution(node) for node, _ in model.graph.initializers[n].uses())}
    return OnnxStage(stage.name, model, initializers, frozenset(own), fired)


def _four_bit(model: ir.Model, names: Iterable[str]) -> set[str]:
    """Names of 4-bit constants. The plan has no such dtype, so the engine itself must load them."""
    return {n for n in names if model.graph.initializers[n].const_value.dtype == ir.DataType.INT4}


def _feeds_convolution(node: ir.Node) -> bool:
    """ONNX Runtime 1.32 cannot share packed weights of quantised convolutions between sessions, and rejects them when
    they are provided from outside."""
    return node.op_type == "DequantizeLinear" and any(n.op_type == "Conv" for n, _ in node.outputs[0].uses())


def _four_bits(model: ir.Model) -> None:
    """Packs block-quantised weights to 4 bits: PyTorch has no 4-bit integers and holds them in 8."""
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and node.attributes.get_int("block_size", 0):
            value = node.inputs[0]
            packed = ir.tensor(value.const_value.numpy().astype(ml_dtypes.int4), name=value.name)
            value.const_value, value.dtype = packed, packed.dtype


def _pad_in_convolutions(model: ir.Model) -> None:
    """Fuses zero padding of a convolution's input into the convolution, which in PyTorch cannot have asymmetric
    padding: between quantised layers, engines do not do this by themselves."""
    for conv in [n for n in model.graph if n.op_type == "Conv"]:
        pad = conv.inputs[0].producer()
        if pad is None or pad.op_type != "Pad" or len(conv.inputs[0].uses()) != 1 or len(pad.inputs) > 3:
            continue
        known = [None if v is None else ir.convenience.get_const_tensor(v) for v in pad.inputs[1:]]
        if pad.attributes.get_string("mode", "constant") != "constant" or known[0] is None or (
                len(known) > 1 and (known[1] is None or known[1].numpy().any())):
            continue
        before, after = np.split(known[0].numpy(), 2)
        own = conv.attributes.get_ints("pads", [0] * 2 * (len(before) - 2))
        if before[:2].any() or after[:2].any() or conv.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            continue
        pads = [int(a + b) for a, b in zip(own, (*before[2:], *after[2:]), strict=True)]
        conv.attributes["pads"] = ir.AttrInt64s("pads", pads)
        conv.replace_input_with(0, pad.inputs[0])
        model.graph.remove(pad, safe=True)


def _strip(model: ir.Model) -> None:
    """Removes data that identifies the machine or the run, so that equal inputs give equal bytes."""
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "vlacompile", None
    for holder in (model.graph, *model.functions.values()):
        holder.metadata_props.clear()
        holder.doc_string = None
        for value in (*holder.inputs, *holder.outputs):
            value.metadata_props.clear()
            value.doc_string = None
        for node in holder:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
        value.doc_string = None


def externalise(stage: OnnxStage, file_name: str, offsets: dict[str, int]) -> bytes:
    """Serialises the model with its large constants at `offsets` (bytes) of the external data file `file_name`, in the
    same folder."""
    for name, array in stage.initializers.items():
        value = stage.model.graph.initializers[name]
        value.const_value = ir.ExternalTensor(
            location=file_name, offset=offsets[name], length=array.nbytes, dtype=value.const_value.dtype,
            shape=value.const_value.shape, name=name, base_dir="")
    return ir.to_proto(stage.model).SerializeToString(deterministic=True)
