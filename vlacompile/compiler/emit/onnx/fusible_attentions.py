"""Attentions in the nearest form that TensorRT fuses, where that moves fewer bytes than an unfused one's logits."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vlacompile.compiler.emit.onnx.fired_rule import FiredRule
from vlacompile.compiler.emit.onnx.fused_attention import NARROWEST, Attention, attentions, is_fused, obstacles
from vlacompile.compiler.emit.onnx.merge_attentions import Path, path_between
from vlacompile.compiler.emit.onnx.node_writer import NodeWriter

WIDTH = 16  # of a head that is too narrow: the next for which tensor cores have tiles
_WORTH = "fused by TensorRT-RTX 1.7.1"


def fusible_attentions(model: ir.Model) -> tuple[FiredRule, ...]:
    """Two rewrites, in place, both exact. A head that is too narrow is padded with zeros, which add nothing to a
    product of queries and keys, and columns to the result that are cut off. Queries of a single head are divided into
    two that read the same keys and values, unless a mask differs between them.

    Before:
        %s = MatMul(%q [1,4,64,8], %k [1,4,8,64]); %p = Softmax(%s); %y = MatMul(%p, %v [1,4,64,8])
    After:
        %s = MatMul(Pad(%q) [1,4,64,16], Pad(%k) [1,4,16,64]); %p = Softmax(%s); %y = Slice(MatMul(%p, Pad(%v)))
    """
    count = saved = 0
    for found in attentions(model):
        less = 0 if is_fused(found) else 2 * _saved(found)
        if less <= 0:
            continue
        why = obstacles(found)
        path = path_between(found)
        if why == {"head too narrow"}:
            _widen(model, found)
        elif why == {"one head"} and path is not None and _halves(found):
            _divide(model, found, path)
        else:
            continue
        count, saved = count + 1, saved + less
    return (FiredRule("tensorrt.fusible_attentions", count, _WORTH, saved),) if count else ()


def _saved(found: Attention) -> int:
    size = lambda v: math.prod(v.shape)
    q, (*_, depth, _) = found.first.inputs[0], found.first.inputs[1].shape
    operands = [q, found.first.inputs[1], found.second.inputs[1], found.second.outputs[0]]
    return numbers_saved(size(found.first.outputs[0]), sum(map(size, operands)), depth)


def numbers_saved(logits: int, operands: int, depth: int) -> int:
    """Numbers that are written and read less: unfused, the logits are written and read twice; rewritten, the operands
    are written and read once more. depth: of a head's queries."""
    larger = WIDTH / depth if depth < NARROWEST else 2.0
    return int(4 * logits - 2 * larger * operands)


def _halves(found: Attention) -> bool:
    return len(found.first.inputs[0].shape) > 2 and found.first.inputs[0].shape[-2] % 2 == 0


def _widen(model: ir.Model, found: Attention) -> None:
    first, second = found.first, found.second
    write = NodeWriter(model, first)
    if first.inputs[0].shape[-1] < NARROWEST:
        first.replace_input_with(0, _padded(write, first.inputs[0], -1))
        first.replace_input_with(1, _padded(write, first.inputs[1], -2))
    width = second.inputs[1].shape[-1]
    if width >= NARROWEST:
        return
    write = NodeWriter(model, second)
    values = _padded(write, second.inputs[1], -1)
    old = second.outputs[0]
    whole = write.op("MatMul", second.inputs[0], values, dtype=old.dtype, shape=[*old.shape[:-1], WIDTH])
    begin, end, axis = (write.constant(np.array([n], np.int64)) for n in (0, width, len(old.shape) - 1))
    write.stands_for_node(write.op("Slice", whole, begin, end, axis, dtype=old.dtype, shape=old.shape))


def _padded(write: NodeWriter, value: ir.Value, axis: int) -> ir.Value:
    shape = [int(n) for n in value.shape]
    pads = np.zeros(2 * len(shape), np.int64)
    pads[len(shape) + axis % len(shape)] = WIDTH - shape[axis]
    shape[axis] = WIDTH
    return write.op("Pad", value, write.constant(pads), dtype=value.dtype, shape=shape)


def _divide(model: ir.Model, found: Attention, path: Path) -> None:
    first, second = found.first, found.second
    write = NodeWriter(model, first)

    def halved(shape) -> list[int]:
        *lead, one, rows, columns = (int(n) for n in shape)
        return [*lead, 2 * one, rows // 2, columns]

    def shaped(w: NodeWriter, value: ir.Value, shape: list[int], op: str = "Reshape") -> ir.Value:
        return w.op(op, value, w.constant(np.array(shape, np.int64)), dtype=value.dtype, shape=shape)

    def both(w: NodeWriter, value: ir.Value) -> ir.Value:
        *lead, _, rows, columns = (int(n) for n in value.shape)
        return shaped(w, value, [*lead, 2, rows, columns], "Expand")

    first.replace_input_with(0, shaped(write, first.inputs[0], halved(first.inputs[0].shape)))
    first.replace_input_with(1, both(write, first.inputs[1]))
    for value in (first.outputs[0], *(n.outputs[0] for n, _ in path)):
        value.shape = ir.Shape(halved(value.shape))
    write = NodeWriter(model, second)
    old = second.outputs[0]
    made = write.op("MatMul", second.inputs[0], both(write, second.inputs[1]), dtype=old.dtype, shape=halved(old.shape))
    write.stands_for_node(shaped(write, made, [int(n) for n in old.shape]))
