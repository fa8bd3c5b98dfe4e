"""Embeddings of patches as products of matrices."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vlacompile.compiler.emit.onnx.fired_rule import FiredRule
from vlacompile.compiler.emit.onnx.node_writer import NodeWriter

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def patches_as_products(model: ir.Model) -> tuple[FiredRule, ...]:
    """Writes a convolution whose kernel is as large as its step, over an image that it divides, as a product of the
    patches with a matrix, in place: the same terms, summed in another order. TensorRT has old kernels for such
    convolutions, with few channels and large kernels. A convolution with a quantised weight stays.

    Before:
        %y = Conv(%x [B,C,H,W], %w [O,C,p,p], %b) [B,O,H/p,W/p]
        %flat = Reshape(%y) [B,O,N]
        %z = Transpose(%flat) [B,N,O]
    After:
        %parts = Reshape(%x) [B,C,H/p,p,W/p,p]
        %rows = Transpose(%parts) [B,H/p,W/p,C,p,p]
        %patches = Reshape(%rows) [B,N,C*p*p]
        %product = MatMul(%patches, %w__patches [C*p*p,O]) [B,N,O]
        %z = Add(%product, %b) [B,N,O]
    """
    found = [n for n in model.graph if n.op_type == "Conv" and _cuts_patches(n)]
    operations = sum(_operations(n) for n in found if n.inputs[0].dtype == ir.DataType.FLOAT16)
    for node in found:
        _write(model, node)
    worth = "published: 0.8 ms of a replan"
    return (FiredRule("tensorrt.patch_products", len(found), worth, conv_operations=operations),) if found else ()


def _operations(node: ir.Node) -> int:
    return 2 * math.prod(node.outputs[0].shape) * math.prod(node.inputs[1].shape[1:])


def _cuts_patches(node: ir.Node) -> bool:
    x, w = node.inputs[:2]
    size = w.shape[2:]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    constants = [v for v in (w, bias) if v is not None]
    if x.dtype not in _FLOATS or any(not v.is_initializer() for v in constants) or x.shape[1] != w.shape[1]:
        return False
    plain = (node.attributes.get_int("group", 1) == 1
             and not any(node.attributes.get_ints("pads", [0]))
             and node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
             and set(node.attributes.get_ints("dilations", [1])) == {1})
    strides = list(node.attributes.get_ints("strides", [1] * len(size)))
    return (plain and math.prod(size) > 1 and strides == list(size)
            and all(n % p == 0 for n, p in zip(x.shape[2:], size, strict=True)))


def _write(model: ir.Model, node: ir.Node) -> None:
    write, (x, w) = NodeWriter(model, node), node.inputs[:2]
    batch, channels, *image = (int(n) for n in x.shape)
    outputs, size = int(w.shape[0]), [int(n) for n in w.shape[2:]]
    counts = [n // p for n, p in zip(image, size, strict=True)]
    rank, rows = len(size), math.prod(counts)
    parts = [batch, channels, *(d for pair in zip(counts, size, strict=True) for d in pair)]
    order = [0, *(2 + 2 * i for i in range(rank)), 1, *(3 + 2 * i for i in range(rank))]

    def shaped(value: ir.Value, shape: list[int]) -> ir.Value:
        return write.op("Reshape", value, write.constant(np.array(shape, np.int64)), dtype=value.dtype, shape=shape)

    def turned(value: ir.Value, perm: list[int]) -> ir.Value:
        return write.op("Transpose", value, dtype=value.dtype, shape=[value.shape[i] for i in perm], perm=perm)

    patches = shaped(turned(shaped(x, parts), order), [batch, rows, channels * math.prod(size)])
    product = write.op("MatMul", patches, _matrix(model, w, outputs), dtype=x.dtype, shape=[batch, rows, outputs])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        product = write.op("Add", product, node.inputs[2], dtype=x.dtype, shape=product.shape)
    tokens = _as_tokens(node, rows)
    if tokens is not None:
        NodeWriter(model, tokens).stands_for_node(product)
        model.graph.remove([*{u for u, _ in node.outputs[0].uses()}], safe=True)
        model.graph.remove(node, safe=True)
        return
    write.stands_for_node(turned(shaped(product, [batch, *counts, outputs]), [0, rank + 1, *range(1, rank + 1)]))


def _matrix(model: ir.Model, w: ir.Value, outputs: int) -> ir.Value:
    """The kernels [O,C,p,p] as columns of a matrix [C*p*p,O]."""
    name = f"{w.name}__patches"
    if name not in model.graph.initializers:
        tensor = ir.tensor(np.ascontiguousarray(w.const_value.numpy().reshape(outputs, -1).T), name=name)
        model.graph.register_initializer(ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype),
                                                  const_value=tensor))
    return model.graph.initializers[name]


def _as_tokens(node: ir.Node, rows: int) -> ir.Node | None:
    """The transpose that makes rows [B,N,O] of the result, where nothing else reads it."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0][0].op_type != "Reshape":
        return None
    flat = uses[0][0].outputs[0]
    readers = list(flat.uses())
    if flat.is_graph_output() or len(readers) != 1 or readers[0][0].op_type != "Transpose":
        return None
    given = [int(node.outputs[0].shape[0]), int(node.outputs[0].shape[1]), rows]
    last = readers[0][0]
    same = [int(n) for n in flat.shape] == given and list(last.attributes.get_ints("perm", [])) == [0, 2, 1]
    return last if same else None
