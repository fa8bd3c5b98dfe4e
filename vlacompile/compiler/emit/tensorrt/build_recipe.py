"""How TensorRT must build a stage's engine on the board, and the limits that the result must keep: the plan's `build`
records.

Derived from the nodes of the artefact. Must not know TensorRT's log, nor how precisions were chosen.
"""

from __future__ import annotations

import onnx_ir as ir

from vlacompile.compiler.emit.onnx.fused_attention import fused_attentions
from vlacompile.compiler.emit.onnx.onnx_stage import OnnxStage
from vlacompile.compiler.fit.engine_memory import ENGINE_BYTES
from vlacompile.compiler.fit.liveness import live_peak
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.hardware.board import MIB
from vlacompile.hardware.target import Target
from vlart.bundle.plan.plan import Build, BuildBoard

LEVEL = 3  # builder optimisation level, TensorRT's default
BUILD_WORKSPACE_BYTES = 512 * MIB  # limit for tactics while building; the engine allocates only what its own need
WEIGHTS_SLACK = 0.05  # share of the packed weights: padding to tiles
ACTIVATIONS_FACTOR = 1.5  # over the peak of live values: format conversions, and fragmentation of buffers
PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
REDUCTIONS = ("Softmax", "LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization",
              "ReduceMean", "ReduceSum", "ReduceMax")
# Upper bound of the workspace of an engine's GEMMs (TensorRT-RTX 1.7.1); compiler/fit/engine_memory.py has the typical
# size.
WORKSPACE_MOST = 8 * MIB
PLAN_KERNELS = 125  # for code_bytes: with up to so many kernels a plan has at most ENGINE_BYTES; above, in proportion


def build_of(stage: StageGraph, emitted: OnnxStage) -> Build:
    """The build record of one emitted stage: limits that its engine must keep."""
    weights = packed_bytes(emitted)
    slack = int(WEIGHTS_SLACK * weights)
    return Build(
        flags=("strongly_typed", "no_tf32"), level=LEVEL, aux_streams=0, workspace_bytes=BUILD_WORKSPACE_BYTES,
        weight_bytes=weights, engine_bytes_min=weights - slack,
        engine_bytes_max=weights + slack + code_bytes(emitted.model),
        activation_bytes=int(ACTIVATIONS_FACTOR * live_peak(stage.graph, fp16=False)) + WORKSPACE_MOST,
        int8_gemms=len(int8_products(emitted.model)), int4_dequants=len(int4_products(emitted.model)),
        attentions=len(fused_attentions(emitted.model)))


def board_of(target: Target) -> BuildBoard:
    """The board and the software that engines are built with, for a target with a board."""
    assert target.board is not None and target.software is not None
    name, software = target.name.split("@")[0], target.software
    return BuildBoard(name, target.board.gpu.compute_capability, software.name.removeprefix("jetpack-"), software.l4t,
                      software.tensorrt, f"{name}.tensorrt-{software.tensorrt}.timing")


def packed_bytes(emitted: OnnxStage) -> int:
    """Bytes of all constants, each distinct one once, two 4-bit values per byte."""
    seen: dict[tuple, int] = {}
    for value in emitted.model.graph.initializers.values():
        tensor = value.const_value
        seen[tensor.dtype, tuple(tensor.shape), tensor.tobytes()] = tensor.nbytes
    return sum(seen.values())


def code_bytes(model: ir.Model) -> int:
    """An upper bound of an engine's bytes besides its weights: the code of its kernels. There are about as many kernels
    as products, reductions and quantised activations, with which other ops are fused. (TensorRT-RTX 1.7.1: 8.6 MB with
    195 of them, 9.8 MB with 480, 8.4 MB with 144 in int8, 14.7 MB with 289, 20.8 MB with more than 593; up to 73,
    never more than 8 MB.)"""
    kernels = sum(n.op_type in (*PRODUCTS, *REDUCTIONS)
                  or (n.op_type == "QuantizeLinear" and n.inputs[0].const_value is None)
                  for n in model.graph)
    return int(ENGINE_BYTES * max(1, kernels / PLAN_KERNELS))


def int8_products(model: ir.Model) -> tuple[ir.Node, ...]:
    """Products with both operands dequantised from 8 bits."""
    return tuple(n for n in model.graph if n.op_type in PRODUCTS
                 and all(_stored_as(v) == ir.DataType.INT8 for v in n.inputs[:2]))


def int4_products(model: ir.Model) -> tuple[ir.Node, ...]:
    """Products whose weight is dequantised from 4 bits in several blocks; a single block is never fused."""
    return tuple(n for n in model.graph if n.op_type in PRODUCTS
                 and any(_stored_as(v) == ir.DataType.INT4 and _blocks(v) > 1 for v in n.inputs[:2]))


def _blocks(value: ir.Value | None) -> int:
    """Number of blocks along the dimension in which a weight is scaled block-wise."""
    node = None if value is None else value.producer()
    axis = 0 if node is None else node.attributes.get_int("axis", 1)
    return 1 if node is None else node.inputs[1].const_value.shape[axis]


def _stored_as(value: ir.Value | None) -> ir.DataType | None:
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    source = node.inputs[0]
    before = source.producer()
    if before is not None and before.op_type == "QuantizeLinear":
        zero = before.inputs[2] if len(before.inputs) > 2 else None
        return ir.DataType.UINT8 if zero is None else zero.dtype or zero.const_value.dtype
    return source.dtype
