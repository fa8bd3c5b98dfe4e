"""What `flax.serialization.msgpack_serialize` makes of a tree of tensors, for tests without Flax."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import torch


def packed(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """{names of keys, joined by dots: tensor}"""
    tree: dict = {}
    for name, tensor in tensors.items():
        *folders, last = name.split(".")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = tensor
    return _value(tree)


def streamed(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """One after the other, as the checkpoints of large models in JAX: (keys, bytes of the tensor)."""
    found = b""
    for name, tensor in tensors.items():
        keys, inner = name.split("."), _value(tensor)
        found += b"\x92\xdc" + struct.pack(">H", len(keys)) + b"".join(_text(k) for k in keys)
        found += b"\xc6" + struct.pack(">I", len(inner)) + inner
    return found


def _value(value) -> bytes:
    if isinstance(value, dict):
        return b"\xdf" + struct.pack(">I", len(value)) + b"".join(_text(k) + _value(v) for k, v in value.items())
    shape = b"\xdc" + struct.pack(">H", value.dim()) + b"".join(b"\xce" + struct.pack(">I", n) for n in value.shape)
    elements = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    inner = b"\x93" + shape + _text(str(value.dtype).removeprefix("torch.")) + b"\xc6" + struct.pack(
        ">I", len(elements)) + elements
    return b"\xc9" + struct.pack(">Ib", len(inner), 1) + inner


def _text(text: str) -> bytes:
    return b"\xdb" + struct.pack(">I", len(text.encode())) + text.encode()
