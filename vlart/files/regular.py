"""Reads files of a folder that anybody may have written: regular files below it and nothing else, no more of them than
was asked for. Opening another kind of file can wait for ever (a pipe) or never end (a device)."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 20


def open_below(root: Path, relative: str) -> BinaryIO:
    """The regular file at root/relative, to be read. Raises OSError, also where a link is on the way from `root`, or
    the path leaves it."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise OSError(errno.EINVAL, "the path leaves the folder", str(root / relative))
    place = root
    for part in parts:
        place = place / part
        if stat.S_ISLNK(place.lstat().st_mode):
            raise OSError(errno.ELOOP, "its path leads through a symbolic link", str(place))
    if not stat.S_ISREG(place.lstat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(place))
    file = open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")  # noqa: SIM115, PTH123  the caller's
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(place))
    return file


def read_below(root: Path, relative: str, most_bytes: int) -> bytes:
    """Its content. Raises OSError, also for a file of more than most_bytes, which is then not read."""
    with open_below(root, relative) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"it has {size} bytes, at most {most_bytes} are read", str(root / relative))
        return file.read(size)


def sha256_below(root: Path, relative: str, expected_bytes: int) -> str:
    """Of its content. Raises OSError, also for a file of another size, which is then not read."""
    digest = hashlib.sha256()
    with open_below(root, relative) as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected_bytes:
            raise OSError(errno.EINVAL, f"it has {size} bytes, not {expected_bytes}", str(root / relative))
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
