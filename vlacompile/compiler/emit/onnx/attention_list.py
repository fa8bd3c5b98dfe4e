"""Which attentions of a stage TensorRT fuses into one kernel, which it does not and why, and by whom that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from vlacompile.compiler.emit.onnx.fused_attention import Attention, attentions, obstacles

WELL_FUSED = 256  # width of a head with which others gained nothing from a kernel of their own
SHORT = 128  # queries or keys
COPIED = "fed by a transpose"
# TensorRT 10.16.2 on Orin Nano, in a public log (eetmie/jetson-orin-nano-vla): a flash attention that reads the
# projection's layout took 0.48 ms where TensorRT's own took 0.71 (1024 tokens, heads of 64), and 0.10 where it took
# 0.16 (a short decoder); none was faster for heads of 256, or for 1025 tokens of 64.


@dataclass(frozen=True)
class AttentionFact:
    """obstacles: why TensorRT-RTX 1.7.1 does not fuse it, found by trial; empty: it does. doubts: of one that it fuses,
    for what others saw TensorRT 10.16 be slow. logits_bytes: what an unfused one writes and reads twice."""

    node: str
    heads: int
    queries: int
    keys: int
    width: int
    obstacles: tuple[str, ...]
    doubts: tuple[str, ...]
    logits_bytes: int


def attention_list(model: ir.Model) -> tuple[AttentionFact, ...]:
    return tuple(_fact(a) for a in attentions(model))


def _fact(found: Attention) -> AttentionFact:
    logits, q = found.first.outputs[0], found.first.inputs[0]
    *batch, queries, keys = (int(n) for n in logits.shape)
    operands = (*found.first.inputs, found.second.inputs[1])
    copied = any((n := v.producer()) is not None and n.op_type == "Transpose" for v in operands)
    shape = math.prod(batch), queries, keys, int(q.shape[-1])
    why, half = obstacles(found), logits.dtype == ir.DataType.FLOAT16
    if all(map(_only_sums_in_fp32, (found.first, found.second))) and len(why) > 1:
        why, half = why - {"not in fp16"}, True  # it is summed so because of the others
    return fact_of(found.second.name, shape, why, copied, half)


def _only_sums_in_fp32(product: ir.Node) -> bool:
    """Whether its operands are fp16 numbers that are cast for it: an engine reads and writes fp16 there."""
    casts = [v.producer() for v in product.inputs if v is not None]
    return all(n is not None and n.op_type == "Cast" and n.inputs[0].dtype == ir.DataType.FLOAT16 for n in casts)


def fact_of(node: str, shape: tuple[int, int, int, int], why: frozenset[str], copied: bool, half: bool) \
        -> AttentionFact:
    """shape: heads, queries, keys, width. copied: a transpose feeds it. half: its logits are in fp16."""
    heads, queries, keys, width = shape
    doubts = () if why or width >= WELL_FUSED else (*[COPIED] * copied, *["short"] * (min(queries, keys) < SHORT))
    return AttentionFact(node, heads, queries, keys, width, tuple(sorted(why)), doubts,
                         heads * queries * keys * (2 if half else 4))
