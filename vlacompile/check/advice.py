"""From the node that the compiler names to the line of the model that it comes from, and to the rewrite that would
help."""

from __future__ import annotations

import onnx_ir as ir

from vlacompile.check.compile import Refusal
from vlacompile.compiler.emit.tensorrt.support import BYTES, OTHERWISE, REWRITES

# What the compiler says, in part -> what to do about it. The first that fits.
_BY_WORDS = (
    ("Non-zero zero point", "quantise symmetrically: TensorRT knows no zero points"),
    ("fp8", "Orin has no FP8: use int8, or int4 for weights alone"),
    ("FP8", "Orin has no FP8: use int8, or int4 for weights alone"),
    ("UInt8", BYTES),
    ("UINT8", BYTES),
    ("DOUBLE", "compute in f32: TensorRT has no f64"),
    ("_M_range_check", "give every use of a dequantised weight a DequantizeLinear of its own"),
)
_BY_KIND = {
    "crashed": "give the stage to another engine ([stages] tvm = [...]), or write its layers in fp16 by a rule, "
               "to find "
               "the one at fault",
    "timeout": "split the stage ([stages] min_flops), or allow more time with --seconds",
    "rejected": OTHERWISE,
    "not built": "write its layers in fp16 by a rule, to find the one at fault",
}


def advice(model: ir.Model, refusal: Refusal) -> str:
    for words, fix in _BY_WORDS:
        if words in refusal.why:
            return fix
    op = refusal.op or (n.op_type if (n := _named(model, refusal.node)) is not None else "")
    return REWRITES.get(op, _BY_KIND[refusal.kind])


def origin(model: ir.Model, name: str) -> str:
    """The line of the model's source that a node comes from, as the emitter wrote it down; "" where nothing is
    known."""
    node = _named(model, name)
    return "" if node is None or not node.doc_string else node.doc_string


def _named(model: ir.Model, name: str) -> ir.Node | None:
    return next((n for n in model.graph if name and n.name == name), None)
