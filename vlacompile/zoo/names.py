"""How systems of the survey are named as a SOURCE, and which there are. Must not import PyTorch: command lines read it
before they know whether they need it."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from vlart.errors import SourceError, nearest

PREFIX = "zoo:"
TINY, REAL = "tiny", "real"
SIZES = (TINY, REAL)
SYSTEMS = Path(__file__).with_name("systems")


def is_zoo(source: str) -> bool:
    return source.startswith(PREFIX)


def module_names() -> list[str]:
    """Names of the systems' modules, without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules([str(SYSTEMS)]))


def dashed(module: str) -> str:
    """As after the prefix."""
    return module.replace("_", "-")


def module_of(name: str) -> str:
    """The module of a system or of one of its variants, which need not exist. Raises SourceError, which names the
    closest one."""
    text = name.replace("-", "_")
    owner = next((m for m in sorted(module_names(), key=len, reverse=True)
                  if text == m or text.startswith(m + "_")), None)
    if owner is None:
        raise unknown(name, [dashed(m) for m in module_names()])
    return owner


def unknown(name: str, known: list[str]) -> SourceError:
    return SourceError(f'the zoo has no "{name}"', where=f"SOURCE {PREFIX}{name}", why=nearest(name, known),
                       fix="see `vlacompile zoo`")


def parse(source: str) -> tuple[str, str]:
    """`zoo:NAME[@SIZE]` as name and size, "" if there is none. Raises SourceError for a size or a system that there is
    not; whether there is such a variant is known to the catalogue alone."""
    name, at, size = source.removeprefix(PREFIX).partition("@")
    module_of(name)
    if at and size not in SIZES:
        raise SourceError(f'"{size}" is not a size', where=f"SOURCE {source}", why=nearest(size, SIZES),
                          fix=f"give {PREFIX}{name}@{TINY}, or {PREFIX}{name} for the real size")
    return name, size
