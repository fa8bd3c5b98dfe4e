"""A file that is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from vlacompile.durable import write_file
from vlacompile.errors import ConfigError


def write_whole(path: str | Path, data: bytes) -> None:
    """Raises ConfigError; what was at `path` then stays."""
    try:
        write_file(Path(path), data)
    except OSError as error:
        raise ConfigError("the file cannot be written", where=str(path), why=str(error.strerror),
                          fix="choose another path") from error
