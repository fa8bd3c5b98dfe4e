"""Records of a frames file: golden vectors; see layout.py."""

from __future__ import annotations

from vlacompile.bundle.format.record import record, span

FRAME = record(
    "frame",
    "One replay step: write these tensors, step, then compare those.",
    ("label", "u32", "string for a person"),
    ("reserved", "u32", "zero"),
    *span("write", "tensors"),
    *span("expect", "tensors"),
)

REFERENCE = record(
    "reference",
    "What the policy gives in full precision for a frame, where the stages compute with less. Nothing is executed by it.",
    ("frame", "u32", "frame"),
    ("tensor", "u32", "tensor; its limits say how far the stages were when they were built"),
)

TENSOR = record(
    "tensor",
    "A named tensor of a frames file; it binds to a plan's source or value by name.",
    ("name", "u32", "string"),
    ("dtype", "u32", "dtype"),
    ("rank", "u32", "0..MAX_RANK"),
    ("reserved", "u32", "zero"),
    ("dims", "u64[8]", "dims[0..rank); the rest is 1"),
    ("offset", "u64", "byte offset in the blob section, a multiple of ALIGN"),
    ("bytes", "u64", "size of the tensor"),
    ("max_abs", "f32", "expect: largest allowed absolute difference"),
    ("rel_l2", "f32", "expect: largest allowed ||got - want|| / ||want||"),
    ("cosine", "f32", "expect: smallest allowed cosine"),
    ("reserved2", "f32", "zero"),
)
