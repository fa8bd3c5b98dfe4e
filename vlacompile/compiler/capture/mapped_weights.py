"""Modules whose weights lie in mapped files from the moment on at which the module is made.

Must not know where the weights come from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn

from vlacompile.files.mapped import mapped


@contextlib.contextmanager
def mapped_weights() -> Iterator[None]:
    """Within this context, every parameter that a module registers, and what becomes of it when the module is
    converted to another dtype, lies in a mapped file."""
    register, apply = nn.Module.register_parameter, nn.Module._apply

    def register_mapped(self, name, param):
        if param is not None:
            _move(param)
        register(self, name, param)

    def apply_mapped(self, fn, recurse=True):
        found = apply(self, fn, recurse)
        _move_all(self)
        return found

    nn.Module.register_parameter, nn.Module._apply = register_mapped, apply_mapped
    try:
        yield
    finally:
        nn.Module.register_parameter, nn.Module._apply = register, apply


def map_weights(modules: Iterable[nn.Module]) -> None:
    """Moves what is still in memory: buffers, and weights that were assigned in another way."""
    for module in modules:
        for part in module.modules():
            _move_all(part)


def _move_all(module: nn.Module) -> None:
    """The parameters and buffers of the module itself."""
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None:
            _move(tensor)


def _move(tensor) -> None:
    moved = mapped(tensor)
    if moved is not tensor:
        tensor.data = moved
