"""Tensors in mapped files, so that a build's own memory stays small whatever its weights take.

Mapped pages are the system's to write back and to drop; memory of the process is not. A file loses its name as soon as
it is mapped: nothing is left of a process that ends, however it ends. Must not know what the tensors hold.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensor

from vlacompile.files.heap import GivenBack
from vlart.errors import ConfigError

SMALLEST_BYTES = 1 << 20  # smaller tensors stay in memory
_COPIED = GivenBack(64 << 20)
# Survives a restart, so it is a disk; the folder for temporary files is often one in memory.
_DISK = Path("/var/tmp")
MAKE_ROOM = "free room there, or name a folder of another disk: TMPDIR=/path vlacompile build ..."


def folder() -> Path:
    """Where the files are."""
    given = Path(tempfile.gettempdir())
    return given if "TMPDIR" in os.environ or not os.access(_DISK, os.W_OK) else _DISK


def is_mapped(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().filename is not None


def mapped(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in a mapped file; the tensor itself if it is small, mapped already, or not in the memory of the
    processor. Raises ConfigError where the disk is full."""
    if not _is_plain(tensor) or tensor.numel() * tensor.element_size() < SMALLEST_BYTES or is_mapped(tensor):
        return tensor
    copy = mapped_empty(tensor.shape, tensor.dtype)
    strides = torch.empty_like(tensor, device="meta").stride()
    copy = copy if strides == copy.stride() else copy.as_strided(tensor.shape, strides)
    with torch.no_grad():
        copy.copy_(tensor.detach())
    _COPIED.after(copy.numel() * copy.element_size())  # the caller drops what was copied before
    return copy


def mapped_as(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in another dtype, in a mapped file if it is large."""
    if not _is_plain(tensor) or tensor.dtype == dtype or tensor.numel() * dtype.itemsize < SMALLEST_BYTES:
        return tensor.to(dtype)
    with torch.no_grad():
        return mapped_empty(tensor.shape, dtype).copy_(tensor.detach())


def mapped_empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Zeros in a mapped file; in memory if they are few. Raises ConfigError where the disk is full."""
    count = torch.Size(shape).numel()
    size = count * dtype.itemsize
    if size < SMALLEST_BYTES:
        return torch.zeros(shape, dtype=dtype)
    try:
        fd, path = tempfile.mkstemp(prefix="vlacompile-", dir=folder())
        try:
            os.posix_fallocate(fd, 0, size)  # a write to a mapped page that the disk has no room for kills the process
            return torch.from_file(path, shared=True, size=count, dtype=dtype).view(shape)
        finally:
            os.close(fd)
            Path(path).unlink()
    except OSError as error:
        raise ConfigError(f"{size / 1e6:.0f} MB of weights have no room on the disk", where=str(folder()),
                          why=str(error.strerror), fix=MAKE_ROOM) from error


def _is_plain(tensor: torch.Tensor) -> bool:
    return (type(tensor) in (torch.Tensor, torch.nn.Parameter) and not isinstance(tensor, FakeTensor)
            and tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.is_quantized
            and not tensor.is_conj() and not tensor.is_neg() and not tensor.is_inference())
