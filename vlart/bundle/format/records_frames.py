"""Records of a frames file: golden vectors; see layout.py."""

from __future__ import annotations

from vlart.bundle.format.record import dims, enum, flag, index, number, rank, real, record, reserved, span, string

FRAME = record(
    "frame",
    "One replay step: write these tensors, step, then compare those.",
    string("label", "for a person"),
    flag("begins", "1: an episode begins with it"),
    span("write", "tensors"),
    span("expect", "tensors"),
)

REFERENCE = record(
    "reference",
    "What the policy gives in full precision for a frame, where the stages compute with less. Nothing is executed by "
    "it.",
    index("frame", "frames"),
    index("tensor", "tensors", "its limits say how far the stages were when they were built"),
)

TENSOR = record(
    "tensor",
    "A named tensor of a frames file; it binds to a plan's source or value by name.",
    string("name"),
    enum("dtype", "dtype"),
    rank(),
    reserved(),
    dims(),
    number("offset", "u64", "byte offset in the blob section, a multiple of ALIGN"),
    number("bytes", "u64", "size of the tensor"),
    real("max_abs", "f32", "expect: largest allowed absolute difference"),
    real("rel_l2", "f32", "expect: largest allowed ||got - want|| / ||want||"),
    real("cosine", "f32", "expect: smallest allowed cosine"),
    reserved("reserved2", "f32"),
)

LIMIT = record(
    "limit",
    "Limits of a tensor whose columns have units of their own; they take the place of its max_abs.",
    index("tensor", "tensors"),
    span("column", "floats", "largest allowed absolute difference, per index of the last dimension"),
    reserved(),
)
