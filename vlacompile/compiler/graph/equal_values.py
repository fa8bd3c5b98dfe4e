"""Which values of a program are equal: the same op on equal operands, constants of the same content."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch.fx import Node
from torch.utils.weak import WeakTensorKeyDictionary

from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program

# {tensor: (its version when it was read, digest)}: every pass that looks for equal constants asks again
_DIGESTS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def content_key(tensor: torch.Tensor) -> tuple:
    """Equal for tensors of the same dtype, shape and bytes."""
    return str(tensor.dtype), tuple(tensor.shape), digest_of(tensor)


def digest_of(tensor: torch.Tensor) -> bytes:
    """sha256 of the elements in their order; read once, as long as PyTorch alone writes into the tensor."""
    if tensor.is_inference():
        return hashlib.sha256(bytes_of(tensor).data).digest()
    version, digest = _DIGESTS.get(tensor, (None, b""))
    if version != tensor._version:
        digest = hashlib.sha256(bytes_of(tensor).data).digest()
        _DIGESTS[tensor] = tensor._version, digest
    return digest


def bytes_of(tensor: torch.Tensor) -> np.ndarray:
    """u8[n]: the elements in their order. An axis of length one may have any stride, which reshape keeps."""
    return tensor.detach().contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()


def representatives(program: Program) -> dict[Node, Node]:
    """{node: the first node that is equal to it}, itself where none is. What draws random numbers equals nothing."""
    first_equal: dict[Node, Node] = {}
    first: dict[tuple, Node] = {}
    for node in program.graph.nodes:
        first_equal[node] = node
        if node.op == "call_function" and not is_random(node):
            key = (str(node.target), _key(node.args, first_equal), _key(node.kwargs, first_equal))
            first_equal[node] = first.setdefault(key, node)
        elif node.op == "get_attr":
            first_equal[node] = first.setdefault(_constant_key(node.target, program.constants[node.target]), node)
    return first_equal


def _constant_key(name: str, tensor: torch.Tensor) -> tuple:
    """By content; by name where there is none."""
    return ("name", name) if tensor.is_meta else content_key(tensor)


def _key(arg, first_equal: dict[Node, Node]):
    if isinstance(arg, Node):
        return "node", first_equal[arg].name
    if isinstance(arg, (list, tuple)):
        return ("seq", *(_key(a, first_equal) for a in arg))
    if isinstance(arg, dict):
        return ("map", *((k, _key(v, first_equal)) for k, v in sorted(arg.items())))
    return type(arg).__name__, repr(arg)
