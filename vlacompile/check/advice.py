"""Maps the node that the compiler names to the line of the model that it comes from, and to a rewrite that would
help."""

from __future__ import annotations

import onnx_ir as ir

from vlacompile.check.compile import Refusal
from vlacompile.compiler.emit.tensorrt.support import BYTES, OTHERWISE, REWRITES

# Part of the compiler's message -> advice. The first match counts.
_BY_WORDS = (
    ("Non-zero zero point", "quantise symmetrically: TensorRT has no zero points"),
    ("fp8", "Orin has no FP8: use int8, or int4 for weights only"),
    ("FP8", "Orin has no FP8: use int8, or int4 for weights only"),
    ("UInt8", BYTES),
    ("UINT8", BYTES),
    ("DOUBLE", "compute in f32: TensorRT has no f64"),
    ("_M_range_check", "give every use of a dequantised weight a DequantizeLinear of its own"),
)
_BY_KIND = {
    "crashed": "give the stage to another engine ([stages] tvm = [...]), or set its layers to fp16 by a rule of the "
               "recipe, to find the one at fault",
    "timeout": "split the stage ([stages] min_flops), or allow more time with --seconds",
    "rejected": OTHERWISE,
    "not built": "set its layers to fp16 by a rule of the recipe, to find the one at fault",
}


def advice(model: ir.Model, refusal: Refusal) -> str:
    fault = refusal.why.partition("but must have type")[0]  # behind it: every type that the op does support
    for words, fix in _BY_WORDS:
        if words in fault:
            return fix
    op = refusal.op or (n.op_type if (n := _named(model, refusal.node)) is not None else "")
    return REWRITES.get(op, _BY_KIND[refusal.kind])


def origin(model: ir.Model, name: str) -> str:
    """The source line of the model that a node comes from, as recorded by the emitter; "" if it is not
    known."""
    node = _named(model, name)
    return "" if node is None or not node.doc_string else node.doc_string


def _named(model: ir.Model, name: str) -> ir.Node | None:
    return next((n for n in model.graph if name and n.name == name), None)
