"""Modules whose weights have shapes and dtypes but no content, so that a policy of any size can be traced and staged.

Buffers, example inputs and the numbers in a model's code stay real, so that values computed only from them, such as
masks and timesteps, are known. A weight without content becomes a constant on the meta device: it is identified by its
name, and folding it yields only a shape.
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
    """Within this context, every parameter that a module registers loses its content. At most one parameter has storage
    at a time, while the module's own code initialises it."""
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
        """PyTorch's own _apply swaps tensors in place, which fake tensors do not allow (torch 2.13)."""
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
    """A parameter made within `weightless` as a constant on the meta device; any other tensor unchanged."""
    if not isinstance(tensor, FakeTensor):
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
