"""Crash-safe writes: after a power failure a file has its old content or its new content, never a part.

Owns the order of writing, syncing and renaming. Must not know the content.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from vlart.errors import ConfigError
from vlart.files.pieces import Content, chunks_of

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def sync(path: Path) -> None:
    """Flush a file or directory to the medium (fsync). Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes) -> None:
    """Atomic: write a temporary file beside `path`, fsync, rename. On OSError the file at `path` is unchanged."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_whole(path: str | Path, data: bytes) -> None:
    """write_file for a path that a user chose, where nothing is or a file. On ConfigError what is at `path` is
    unchanged."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is no file" if not path.is_dir() else "it is a directory")
        write_file(path, data)
    except OSError as error:
        raise ConfigError("the file cannot be written", where=str(path), why=str(error.strerror),
                          fix="choose another path") from error


def write_tree(folder: Path, contents: Mapping[str, Content]) -> None:
    """{relative path: content} into a new folder, everything synced. Raises OSError."""
    folder.mkdir(parents=True)
    for relative, data in contents.items():
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in chunks_of(data):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    for below in (p for p in folder.rglob("*") if p.is_dir()):
        sync(below)
    sync(folder)


def put_tree(new: Path, out: Path) -> None:
    """Move the synced folder `new` to `out`; a folder that was at `out` is at `new` afterwards. Raises OSError."""
    if out.exists():
        _exchange(new, out)
    else:
        new.rename(out)
    sync(out.parent)


def _exchange(a: Path, b: Path) -> None:
    """Atomic if the system has renameat2; else three renames, and a crash between them leaves `b` under another
    name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), str(b))
    aside = b.with_name(f"{b.name}.old{os.getpid()}")
    b.rename(aside)
    try:
        a.rename(b)
    except OSError:
        aside.rename(b)
        raise
    aside.rename(a)
