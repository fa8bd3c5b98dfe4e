"""Modules whose weights have shapes and types but no content: a policy of any size can be traced and staged.

Buffers, example inputs and the numbers in a model's code stay real, so that what is computed from them alone, as masks
and timesteps, is known. A weight without content becomes a constant on the meta device: its identity is its name, and
what is folded from it is only a shape.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.weak import WeakIdKeyDictionary


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Inside, every parameter that a module is given loses its content. Storage is asked for and given back one
    parameter at a time; what a module's own code fills with random numbers is filled for that moment."""
    mode, register, apply = FakeTensorMode(allow_non_fake_inputs=True), nn.Module.register_parameter, nn.Module._apply
    converted = WeakIdKeyDictionary()  # a weight that two modules share stays shared

    def empty(tensor: torch.Tensor, requires_grad: bool) -> nn.Parameter:
        with mode:
            like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        return nn.Parameter(like, requires_grad=requires_grad)

    def register_without_content(self, name, param):
        if param is not None and not isinstance(param, FakeTensor):
            param = converted.setdefault(param, empty(param, param.requires_grad))
        register(self, name, param)

    def apply_without_content(self, fn, recurse=True):
        """PyTorch's own swaps tensors in place, which weights without content do not allow (torch 2.13)."""
        for child in self.children() if recurse else ():
            child._apply(fn)
        for name, param in self._parameters.items():
            if isinstance(param, FakeTensor):
                new = fn(param.detach())
                if new.dtype != param.dtype:
                    self._parameters[name] = converted.setdefault(param, empty(new, param.requires_grad))
        for name, buffer in self._buffers.items():
            self._buffers[name] = fn(buffer) if buffer is not None else None
        return self

    nn.Module.register_parameter, nn.Module._apply = register_without_content, apply_without_content
    try:
        assert isinstance(nn.Linear(1, 1).weight, FakeTensor)
        yield
    finally:
        nn.Module.register_parameter, nn.Module._apply = register, apply


def without_content(tensor: torch.Tensor) -> torch.Tensor:
    """A weight made inside `weightless` as a constant on the meta device; anything else as it is."""
    if not isinstance(tensor, FakeTensor):
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
