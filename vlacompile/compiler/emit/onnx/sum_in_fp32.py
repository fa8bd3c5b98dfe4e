"""Products of fp16 numbers that are summed in f32."""

from __future__ import annotations

import math

import onnx_ir as ir

from vlacompile.compiler.emit.onnx.fired_rule import FiredRule
from vlacompile.compiler.emit.onnx.fused_attention import attentions, fused_attentions

_HALF, _SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
_PRODUCTS = ("MatMul", "Gemm")
# A long product of few rows: a log has K = 44800, where sums in fp16 doubled the error of the actions at the same
# speed, as such a product waits for its weights.
LONG, FEW_ROWS = 8192, 16
_WORTH = {"all": "published: 1.3 to 3.1 % slower, error of the actions down to a quarter; the model has no term",
          "long": "published: as fast, error of the actions halved; the model has no term"}


def sum_in_fp32(model: ir.Model, which: str) -> tuple[FiredRule, ...]:
    """Casts the operands of fp16 products to f32 and the result back, in place. The operands are fp16 numbers, so that
    their products are exact in f32, and sums round as tensor cores that accumulate in f32 do; TensorRT 10 otherwise
    chooses kernels that accumulate in fp16, and has no flag against it. TensorRT-RTX 1.7.1 makes one kernel of it that
    reads and writes fp16, with the weights in fp16.

    which: "all"; "long": those of at least LONG terms and at most FEW_ROWS rows; "none". Attentions that are fused stay
    as they are, since casts would part them, and so do products with a weight that is stored in fewer bits, which fuse
    what they read directly.

    Before:
        %y = MatMul(%x f16, %w f16) f16
    After:
        %x_wide = Cast(%x) f32
        %w_wide = Cast(%w) f32
        %y_wide = MatMul(%x_wide, %w_wide) f32
        %y = Cast(%y_wide) f16
    """
    if which == "none":
        return ()
    fused = {*fused_attentions(model)}
    kept = {n for a in attentions(model) if a.second in fused for n in (a.first, a.second)}
    wide: dict[ir.Value, ir.Value] = {}
    count = 0
    for node in [n for n in model.graph if n.op_type in _PRODUCTS and n not in kept]:
        given = [v for v in node.inputs if v is not None]
        if any(v.dtype != _HALF or _is_dequantised(v) for v in given) or (which == "long" and not _is_long(node)):
            continue
        for i, value in enumerate(node.inputs):
            if value is not None:
                node.replace_input_with(i, _widened(model, node, value, wide))
        _narrow_result(model, node)
        count += 1
    return (FiredRule("tensorrt.fp32_sums", count, _WORTH[which]),) if count else ()


def _is_dequantised(value: ir.Value) -> bool:
    while (node := value.producer()) is not None and node.op_type in ("Transpose", "Reshape"):
        value = node.inputs[0]
    return node is not None and node.op_type == "DequantizeLinear"


def _is_long(node: ir.Node) -> bool:
    left = node.inputs[0].shape
    turned = node.attributes.get_int("transA", 0)
    return left[-2 if turned else -1] >= LONG and math.prod(node.outputs[0].shape[:-1]) <= FEW_ROWS


def _widened(model: ir.Model, node: ir.Node, value: ir.Value, wide: dict[ir.Value, ir.Value]) -> ir.Value:
    """`value` in f32: one cast for all products that read it."""
    if value not in wide:
        wide[value] = _cast(value, _SINGLE, f"{value.name}__wide", node)
        model.graph.insert_before(node, wide[value].producer())
    return wide[value]


def _narrow_result(model: ir.Model, node: ir.Node) -> None:
    result = node.outputs[0]
    narrow = _cast(result, _HALF, f"{result.name}__narrow", node)
    ir.convenience.replace_all_uses_with(result, narrow, replace_graph_outputs=True)
    narrow.producer().replace_input_with(0, result)
    result.type = ir.TensorType(_SINGLE)
    model.graph.insert_after(node, narrow.producer())
    if narrow.is_graph_output():  # keep the port's name
        result.name, narrow.name = f"{result.name}__wide", result.name


def _cast(value: ir.Value, to: ir.DataType, name: str, like: ir.Node) -> ir.Value:
    node = ir.node("Cast", [value], {"to": to}, name=name)
    node.doc_string = like.doc_string
    made = node.outputs[0]
    made.name, made.shape, made.type = name, value.shape, ir.TensorType(to)
    return made
