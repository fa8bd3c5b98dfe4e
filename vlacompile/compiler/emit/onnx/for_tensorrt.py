"""Rewrites of a translated stage, in place, without which TensorRT rejects the ONNX graph or builds a slow engine.

Each docstring says what the compiler does without the rewrite, and which version was tested.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vlacompile.compiler.emit.onnx.bytes_for_tensorrt import MOVES, bytes_for_tensorrt
from vlacompile.compiler.emit.onnx.fired_rule import FiredRule
from vlacompile.compiler.emit.onnx.fusible_attentions import fusible_attentions
from vlacompile.compiler.emit.onnx.integers_for_tensorrt import integers_for_tensorrt
from vlacompile.compiler.emit.onnx.merge_attentions import join_attentions
from vlacompile.compiler.emit.onnx.patches_as_products import patches_as_products
from vlacompile.compiler.emit.onnx.sum_in_fp32 import sum_in_fp32
from vlacompile.compiler.emit.onnx.vectors_for_tensorrt import vectors_for_tensorrt
from vlacompile.recipe.tensorrt_rules import TensorRTRecipe

_F16 = ir.DataType.FLOAT16


def for_tensorrt(model: ir.Model, wanted: TensorRTRecipe) -> tuple[FiredRule, ...]:
    """All rewrites, in their order. wanted: which of those that pay on a board, and are not needed. Returns what they
    did."""
    bytes_for_tensorrt(model)
    dequantise_to_fp16(model)
    own_dequantisations(model)
    several_blocks(model)
    flat_rows(model)
    count_in_numbers(model)
    integers_for_tensorrt(model)
    vectors_for_tensorrt(model)
    join_attentions(model)
    fired = patches_as_products(model) if wanted.patch_products else ()
    fired += fusible_attentions(model) if wanted.fusible_attentions else ()
    fired += sum_in_fp32(model, wanted.fp32_sums)
    for value in [v for v in model.graph.initializers.values() if not v.uses() and not v.is_graph_output()]:
        del model.graph.initializers[value.name]  # scales that are now stored in fp16
    return fired


def dequantise_to_fp16(model: ir.Model) -> None:
    """Removes a Cast to fp16 behind a DequantizeLinear by storing its scale, which determines the output dtype, in
    fp16: products fuse only a dequantisation that they read directly. Scales that are not exact in fp16 are left
    unchanged."""
    for node in [n for n in model.graph if n.op_type == "DequantizeLinear"]:
        casts = [u for u, _ in node.outputs[0].uses() if u.op_type == "Cast" and u.attributes.get_int("to") == _F16
                 and not u.outputs[0].is_graph_output()]
        scale = ir.convenience.get_const_tensor(node.inputs[1])
        if not casts or scale is None or scale.dtype != ir.DataType.FLOAT:
            continue
        half = scale.numpy().astype(np.float16)
        if (half.astype(np.float32) != scale.numpy()).any():
            continue
        if len(casts) < len(node.outputs[0].uses()):  # it is read in f32 too
            node = _beside(model, node)
        node.replace_input_with(1, _constant(model, f"{node.inputs[1].name}__f16", half))
        node.outputs[0].dtype = _F16
        for cast in casts:
            ir.convenience.replace_all_uses_with(cast.outputs[0], node.outputs[0])
            model.graph.remove(cast, safe=True)


def _beside(model: ir.Model, node: ir.Node) -> ir.Node:
    own = ir.Node(node.domain, node.op_type, list(node.inputs), list(node.attributes.values()),
                  name=f"{node.name}__f16")
    own.doc_string = node.doc_string
    out, old = own.outputs[0], node.outputs[0]
    out.name, out.shape, out.type = f"{old.name}__f16", old.shape, _own_type(old)
    model.graph.insert_after(node, own)
    return own


def _own_type(value: ir.Value) -> ir.TensorType | None:
    """A copy: types are modified in place, so two values must not share one."""
    return None if value.dtype is None else ir.TensorType(value.dtype)


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    if name not in model.graph.initializers:
        tensor = ir.tensor(array, name=name)
        model.graph.register_initializer(ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype),
                                                  const_value=tensor))
    return model.graph.initializers[name]


def own_dequantisations(model: ir.Model) -> None:
    """Gives every product that shares a 4-bit or 8-bit weight with others a DequantizeLinear of its own, with copies of
    the values and scales. With a shared one (in an unrolled loop), TensorRT-RTX 1.7.1 ends in a segmentation fault (8
    bits) or an internal error (4 bits), or folds the dequantised weight into the engine. Equal copies are stored once,
    in the bundle and in the engine."""
    for node in [n for n in model.graph if n.op_type == "DequantizeLinear" and n.inputs[0].is_initializer()]:
        uses = list(node.outputs[0].uses())
        for k, (user, i) in enumerate(uses[1:], 1):
            inputs = [None if v is None else _copy(model, v, k) for v in node.inputs]
            own = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), name=f"{node.name}__{k}",
                          metadata_props=dict(node.metadata_props))
            own.doc_string = node.doc_string
            out, old = own.outputs[0], node.outputs[0]
            out.name, out.shape, out.type = f"{old.name}__{k}", old.shape, _own_type(old)
            model.graph.insert_after(node, own)
            user.replace_input_with(i, out)


def _copy(model: ir.Model, value: ir.Value, k: int) -> ir.Value:
    name = f"{value.name}__{k}"
    if name not in model.graph.initializers:
        tensor = value.const_value
        copy = ir.Value(name=name, shape=value.shape, type=value.type, const_value=tensor)
        model.graph.register_initializer(copy)
    return model.graph.initializers[name]


def several_blocks(model: ir.Model) -> None:
    """Splits a 4-bit block that spans its whole dimension into two with the same scale, which are the same numbers:
    TensorRT-RTX 1.7.1 fuses the dequantisation into the product only if there are several blocks."""
    for node in [n for n in model.graph if n.op_type == "DequantizeLinear" and n.attributes.get_int("block_size", 0)]:
        axis, block, scale = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size"), node.inputs[1]
        if scale.const_value.shape[axis] > 1 or block % 2 or node.inputs[0].shape[axis] <= block // 2:
            continue
        node.replace_input_with(1, _constant(model, f"{scale.name}__halves_{axis}",
                                             np.repeat(scale.const_value.numpy(), 2, axis)))
        node.attributes["block_size"] = ir.AttrInt64("block_size", block // 2)


def flat_rows(model: ir.Model) -> None:
    """Reshapes the input of products with a 4-bit weight to a matrix, once for all products that read it. From an input
    with more dimensions TensorRT-RTX 1.7.1 makes a batched product if its rows were only moved there (concatenated
    heads), or merges it with products of other, dequantised weights on the same input; it fuses the dequantisation in
    neither case."""
    flat: dict[ir.Value, ir.Value] = {}
    for node in [n for n in model.graph if n.op_type == "MatMul"]:
        x, y, weight = node.inputs[0], node.outputs[0], node.inputs[1].producer()
        if weight is None or weight.op_type != "DequantizeLinear" or weight.inputs[0].dtype != ir.DataType.INT4 \
                or len(x.shape) < 3 or len(weight.outputs[0].shape) != 2:
            continue
        rows, back = math.prod(x.shape[:-1]), _reshaped(model, y, tuple(y.shape), f"{node.name}__back")
        if x not in flat:
            reshape = _reshaped(model, x, (rows, x.shape[-1]), f"{node.name}__rows")
            model.graph.insert_before(node, reshape)
            flat[x] = reshape.outputs[0]
        node.replace_input_with(0, flat[x])
        y.shape = ir.Shape((rows, y.shape[-1]))
        ir.convenience.replace_all_uses_with(y, back.outputs[0], replace_graph_outputs=True)
        back.replace_input_with(0, y)
        model.graph.insert_after(node, back)
        if back.outputs[0].is_graph_output():  # keep the port's name
            y.name, back.outputs[0].name = f"{node.name}__flat", y.name


def _reshaped(model: ir.Model, value: ir.Value, shape: tuple[int, ...], name: str) -> ir.Node:
    node = ir.node("Reshape", [value, _constant(model, f"{name}_shape", np.array(shape, np.int64))], name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = name, ir.Shape(shape), value.dtype
    return node


def count_in_numbers(model: ir.Model) -> None:
    """Computes running sums of integers in f32 if no sum can reach 2^24, so that they stay exact: TensorRT 10.3
    documents CumSum for floating-point numbers only."""
    for node in [n for n in model.graph if n.op_type == "CumSum"
                 and n.inputs[0].dtype in (ir.DataType.INT32, ir.DataType.INT64)]:
        x, y = node.inputs[0], node.outputs[0]
        largest = _largest(x)
        if largest is None or largest * max(x.shape) >= 1 << 24:
            continue
        kind, shape = x.dtype, y.shape
        numbers = _converted(x, ir.DataType.FLOAT, f"{node.name}__numbers")
        back = _converted(y, kind, f"{node.name}__counts")
        model.graph.insert_before(node, numbers)
        node.replace_input_with(0, numbers.outputs[0])
        y.dtype, back.outputs[0].shape = ir.DataType.FLOAT, shape
        ir.convenience.replace_all_uses_with(y, back.outputs[0], replace_graph_outputs=True)
        back.replace_input_with(0, y)
        model.graph.insert_after(node, back)
        if back.outputs[0].is_graph_output():  # keep the port's name
            y.name, back.outputs[0].name = f"{node.name}__summed", y.name


def _largest(value: ir.Value) -> int | None:
    """An upper bound of its magnitudes; None if unknown."""
    if value.dtype == ir.DataType.BOOL:
        return 1
    if value.const_value is not None:
        return int(np.abs(value.const_value.numpy()).max(initial=0))
    node = value.producer()
    if node is None or node.op_type not in MOVES | {"Cast"}:
        return None
    read = [_largest(v) for v in (node.inputs if node.op_type == "Concat" else node.inputs[:1])]
    return None if None in read else max(read)


def _converted(value: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": kind}, name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = name, value.shape, kind
    return node
