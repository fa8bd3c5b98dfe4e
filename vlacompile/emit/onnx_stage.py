"""Stage -> ONNX: `torch.onnx` translates the ops, this file fixes names, strips provenance and takes
the large constants out so that a bundle stores each of them once."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch.fx import GraphModule

from vlacompile.errors import EmitError
from vlacompile.staging.stages import StageGraph

OPSET = 20
IR_VERSION = 10
# Constants below this size stay inside the ONNX file: shape arithmetic needs them there.
EXTERNAL_BYTES = 1024
# The operands that are stored outside: weights, and what cuts packed ones. ONNX Runtime 1.32 may transpose any other
# constant in place (where it moves a Transpose past a Concat or an Add) and then reads the one that libvlart hands over
# as if it had been transposed.
OUTSIDE = {"MatMul": (0, 1), "Gemm": (0, 1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2), "Gather": (0,),
           "LayerNormalization": (1, 2), "InstanceNormalization": (1, 2), "BatchNormalization": (1, 2, 3, 4),
           "Split": (0,), "Slice": (0,), "Transpose": (0,), "Squeeze": (0,)}


@dataclass(frozen=True)
class OnnxStage:
    """model: without the large constants. initializers: {name in the model: tensor}, to be stored
    outside; `externalise` says where before the model is serialised."""

    name: str
    model: ir.Model
    initializers: dict[str, np.ndarray]


def emit_onnx(stage: StageGraph) -> OnnxStage:
    """Translate one stage. Raises EmitError naming the stage and the op that has no translation."""
    root = torch.nn.Module()
    for name, tensor in stage.constants.items():
        root.register_buffer(name, tensor)
    module = GraphModule(root, stage.graph)
    val = {n.name: n.meta["val"] for n in stage.graph.nodes if n.op == "placeholder"}
    args = tuple(torch.zeros(tuple(val[p.name].shape), dtype=val[p.name].dtype) for p in stage.inputs)
    outputs = [p.name if p.name not in val else f"{p.name}_out" for p in stage.outputs]
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module, args, dynamo=True, opset_version=OPSET, input_names=[p.name for p in stage.inputs],
                output_names=outputs, optimize=True, verbose=False)
    except Exception as error:  # torch.onnx raises its own and its translators' errors
        raise _explain(stage, error) from error
    return _finish(stage, program.model)


def _explain(stage: StageGraph, error: Exception) -> EmitError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    line = next((x.strip() for x in str(cause).splitlines() if x.strip()), type(cause).__name__)
    node = next((n for n in stage.graph.nodes if n.op == "call_function" and str(n.target) in str(error)), None)
    trace = (node.meta.get("stack_trace") or "").strip().splitlines() if node is not None else []
    where = f'stage "{stage.name}"' + (f", {trace[-2].strip()}: {trace[-1].strip()}" if len(trace) > 1 else "")
    return EmitError("the stage cannot be written as ONNX", where=where, why=f"{type(cause).__name__}: {line}",
                     fix="rewrite that line with ops that torch.onnx translates "
                     "(https://docs.pytorch.org/docs/stable/onnx_export.html)")


def _finish(stage: StageGraph, model: ir.Model) -> OnnxStage:
    model.ir_version = IR_VERSION
    _strip(model)
    given = [v.name for v in model.graph.inputs]
    assert given == [p.name for p in stage.inputs], f"{stage.name}: ports {given}"
    initializers = {}
    for name, value in list(model.graph.initializers.items()):
        array = value.const_value.numpy()
        if array.nbytes >= EXTERNAL_BYTES and all(i in OUTSIDE.get(node.op_type, ()) for node, i in value.uses()):
            initializers[name] = np.ascontiguousarray(array)
    return OnnxStage(stage.name, model, initializers)


def _strip(model: ir.Model) -> None:
    """Remove what names the machine or the run, so that equal inputs give equal bytes."""
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
    """Serialise with the large constants at `offsets` (bytes) of `file_name`, which lies beside it."""
    for name, array in stage.initializers.items():
        value = stage.model.graph.initializers[name]
        value.const_value = ir.ExternalTensor(
            location=file_name, offset=offsets[name], length=array.nbytes, dtype=value.const_value.dtype,
            shape=ir.Shape(array.shape), name=name, base_dir="")
    return ir.to_proto(stage.model).SerializeToString(deterministic=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and logs; its errors come as exceptions."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [x.level for x in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for x in loggers:
            x.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for x, level in zip(loggers, levels, strict=True):
                x.setLevel(level)
