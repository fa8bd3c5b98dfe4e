"""`OpenBundle`: a bundle that libvlart has open, for as long as one of the sessions that share it is open."""

from __future__ import annotations

import ctypes as c
import os
from pathlib import Path
from typing import Any

from vlart.bundle.plan.binary import read_plan
from vlart.bundle.plan.plan import Plan
from vlart.errors import ConfigError
from vlart.runtime.library import Diag, OpenOptions, check, libvlart


def path_bytes(name: str, path: Any) -> bytes:
    """A path for libvlart, whole: C ends it at its first zero byte. Raises ConfigError for what is no path."""
    try:
        found = os.fsencode(path)
    except (TypeError, ValueError):
        found = b"\0"
    if not found or b"\0" in found:
        raise ConfigError(f"{name} is {path!r}", where="libvlart",
                          why="a path is text, not empty, without zero bytes, or an os.PathLike",
                          fix="give such a path")
    return found


class OpenBundle:
    """path: the directory. Opened for one session; `shared` by more, each of which calls `release` once."""

    def __init__(self, path: Path, verify_files: bool):
        self._library, self._sessions = libvlart(), 1
        directory, diag, size, self.pointer = path_bytes("the bundle", path), Diag(), c.c_size_t(), c.c_void_p()
        check(self._library.vlart_bundle_required_bytes(directory, c.byref(diag), c.byref(size)), diag, str(path))
        self._arena = c.create_string_buffer(size.value)
        options = OpenOptions(skip_file_checksums=int(not verify_files))
        check(self._library.vlart_bundle_open(directory, c.byref(options), self._arena, size.value, c.byref(diag),
                                              c.byref(self.pointer)), diag, str(path))
        self.plan: Plan = self._read_plan(path)

    def _read_plan(self, path: Path) -> Plan:
        """As libvlart checked it, not what is at the path by now."""
        data, size = c.c_void_p(), c.c_size_t()
        check(self._library.vlart_bundle_plan(self.pointer, c.byref(data), c.byref(size)), Diag(), str(path))
        return read_plan(path / "plan.bin", c.string_at(data, size.value))

    def shared(self) -> OpenBundle:
        self._sessions += 1
        return self

    def release(self) -> None:
        self._sessions -= 1
        if self._sessions == 0:
            self._library.vlart_bundle_close(self.pointer)
