"""Merges attentions with constant queries over the same keys and values into one with all their queries.

An unrolled loop contains them if the queries of its first layer depend on the step alone. TensorRT-RTX 1.7.1 merges
their products of queries and keys by itself, and then fuses none of them; for a single attention it makes one kernel.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlacompile.compiler.emit.onnx.fused_attention import BETWEEN, Attention, attentions

Path = tuple[tuple[ir.Node, int], ...]  # nodes between the two products, each with the index of the input on this path


def join_attentions(model: ir.Model) -> None:
    groups: dict[tuple[ir.Value, ir.Value], list[tuple[Attention, Path]]] = {}
    for found in attentions(model):
        path = path_between(found)
        if (found.first.inputs[0].const_value is not None and path is not None
            and not found.second.outputs[0].is_graph_output()):
            groups.setdefault((found.first.inputs[1], found.second.inputs[1]), []).append((found, path))
    for group in groups.values():
        alike = [g for g in group if _alike(group[0], g)]
        if len(alike) > 1:
            _join(model, alike)


def path_between(found: Attention) -> Path | None:
    """From the first product to the second. None if values between them have other readers, or if a mask differs
    between queries."""
    nodes: list[tuple[ir.Node, int]] = []
    value = found.first.outputs[0]
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return None
        node, position = uses[0]
        if node is found.second:
            return tuple(nodes)
        others = [v for i, v in enumerate(node.inputs) if i != position and v is not None]
        if node.op_type not in BETWEEN | {"Softmax"} or any(len(v.shape) > 1 and v.shape[-2] != 1 for v in others):
            return None
        if node.op_type == "Softmax" and node.attributes.get_int("axis", -1) not in (-1, len(value.shape) - 1):
            return None
        nodes.append((node, position))
        value = node.outputs[0]


def _alike(one: tuple[Attention, Path], other: tuple[Attention, Path]) -> bool:
    def of(path: Path):
        return [(n.op_type, i, [v for k, v in enumerate(n.inputs) if k != i],
                 {a: v.value for a, v in n.attributes.items()})
                for n, i in path]

    (a, first), (b, second) = one, other
    rows = [q.first.inputs[0].shape for q in (a, b)]
    return of(first) == of(second) and [*rows[0][:-2], rows[0][-1]] == [*rows[1][:-2], rows[1][-1]]


def _join(model: ir.Model, group: list[tuple[Attention, Path]]) -> None:
    kept, path = group[0]
    queries = [found.first.inputs[0] for found, _ in group]
    rows = [q.shape[-2] for q in queries]
    name = f"{kept.second.name}__joined"
    tensor = ir.tensor(np.concatenate([q.const_value.numpy() for q in queries], -2), name=f"{name}_queries")
    together = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    sizes = ir.tensor(np.array(rows, np.int64), name=f"{name}_rows")
    sized = ir.Value(name=sizes.name, shape=sizes.shape, type=ir.TensorType(sizes.dtype), const_value=sizes)
    for value in (together, sized):
        model.graph.register_initializer(value)
    kept.first.replace_input_with(0, together)
    whole = kept.second.outputs[0]
    for value in (kept.first.outputs[0], *(n.outputs[0] for n, _ in path), whole):
        value.shape = ir.Shape([*value.shape[:-2], sum(rows), value.shape[-1]])
    split = ir.node("Split", [whole, sized], {"axis": len(whole.shape) - 2}, num_outputs=len(rows), name=name)
    for (found, between), part, count in zip(group, split.outputs, rows, strict=True):
        old = found.second.outputs[0]
        part.name, part.dtype = f"{name}_{old.name}", old.dtype
        part.shape = ir.Shape([*old.shape[:-2], count, old.shape[-1]])
        ir.convenience.replace_all_uses_with(old, part)
        if found is not kept:
            model.graph.remove([found.second, *(n for n, _ in reversed(between)), found.first], safe=True)
    split.replace_input_with(0, whole)
    model.graph.insert_after(kept.second, split)
