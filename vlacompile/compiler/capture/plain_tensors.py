"""Buffers as plain attributes, which tracing takes for constants.

Must not know graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensor


@dataclass(frozen=True)
class Plain:
    """A buffer that is a plain attribute for now. name: its path from the outermost module."""

    name: str
    owner: torch.nn.Module
    attribute: str
    tensor: torch.Tensor

    @property
    def assigned(self) -> bool:
        """Whether the attribute was given another tensor since."""
        return vars(self.owner).get(self.attribute) is not self.tensor


@contextlib.contextmanager
def plain_tensors(module: torch.nn.Module, kept: frozenset[str]) -> Iterator[list[Plain]]:
    """Within this context, buffers are plain attributes. kept: names of those that stay registered."""
    found = [Plain(f"{path}.{name}", owner, name, tensor)
             for path, owner in module.named_modules() for name, tensor in owner._buffers.items()
             if tensor is not None and f"{path}.{name}" not in kept and _is_plain(tensor)]
    order = [(owner._buffers, dict(owner._buffers)) for owner in {id(p.owner): p.owner for p in found}.values()]
    for p in found:
        del p.owner._buffers[p.attribute]
        vars(p.owner)[p.attribute] = p.tensor
    try:
        yield found
    finally:
        for p in found:
            vars(p.owner).pop(p.attribute, None)
        for registered, before in order:
            registered.clear()
            registered.update(before)


def _is_plain(tensor: torch.Tensor) -> bool:
    return not isinstance(tensor, FakeTensor) and tensor.layout is torch.strided and not tensor.is_meta
