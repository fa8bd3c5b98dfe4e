"""Large tensors lie in mapped files that nobody else sees; small and foreign ones stay what they are."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vlacompile.files.mapped import SMALLEST_BYTES, folder, is_mapped, mapped, mapped_as, mapped_empty
from vlacompile.hardware.process_memory import anonymous_bytes
from vlart.errors import ConfigError

LARGE = SMALLEST_BYTES // 4


def test_a_large_tensor_is_copied_with_its_numbers_its_shape_and_its_strides():
    tensor = torch.randn(LARGE // 64, 64).t()
    copy = mapped(tensor)
    assert is_mapped(copy) and copy is not tensor
    assert copy.stride() == tensor.stride() and torch.equal(copy, tensor)
    assert mapped(copy) is copy and is_mapped(copy[:3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.bool, torch.float64])
def test_every_dtype(dtype):
    tensor = torch.randint(0, 2, (2 * SMALLEST_BYTES,)).to(dtype)
    assert torch.equal(mapped(tensor), tensor)
    assert is_mapped(mapped_as(tensor, torch.float32)) and torch.equal(mapped_as(tensor, torch.float32), tensor.float())


def test_what_is_small_or_not_in_memory_stays_as_it_is():
    with FakeTensorMode():
        fake = torch.empty(2 * LARGE)
    for tensor in (torch.zeros(8), torch.empty(2 * LARGE, device="meta"), fake, torch.eye(2048).to_sparse()):
        assert mapped(tensor) is tensor


def test_copies_take_no_memory_of_the_process():
    size = 64 << 20
    before = anonymous_bytes()
    kept = mapped_empty((size // 4,), torch.float32).fill_(1.0)
    assert anonymous_bytes() - before < size / 8
    in_memory = torch.full((size // 4,), 1.0)  # the measure sees what is not mapped
    assert anonymous_bytes() - before > size / 2
    assert torch.equal(kept, in_memory)


def test_the_files_have_no_names_even_if_the_process_is_killed(tmp_path):
    code = ("import os, signal; from vlacompile.files.mapped import mapped_empty; import torch; "
            f"t = mapped_empty(({LARGE},), torch.float32).fill_(1); os.kill(os.getpid(), signal.SIGKILL)")
    found = subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False)
    assert found.returncode == -9 and not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_before_anything_is_written(monkeypatch, tmp_path):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert folder() == tmp_path
    with pytest.raises(ConfigError, match="no room on the disk") as refused:
        mapped_empty((LARGE,), torch.float32)
    assert refused.value.where == str(tmp_path) and "TMPDIR" in refused.value.fix
    assert not list(tmp_path.iterdir())
