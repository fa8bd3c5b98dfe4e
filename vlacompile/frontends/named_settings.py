"""`NAME,key=value,...`: a name of a table, and what differs from its row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vlart.errors import ConfigError, nearest

MOST = 1 << 14  # of a count: a chunk or a prompt that is longer fits no memory
MOST_EVALUATIONS = 1000  # of a policy's network per chunk: as many as its diffusion was trained with; each is traced
FLAGS = {"yes": True, "no": False}


def parse(text: str, option: str, keys: Iterable[str]) -> tuple[str | None, dict[str, str]]:
    """(name or None, {key: value}). Raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    name = parts.pop(0) if parts and "=" not in parts[0] else None
    found: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not value or key in found or key not in keys:
            raise ConfigError(f'"{part}" is not key=value', where=f"{option} {text}",
                              why="it occurs twice" if key in found else nearest(key, keys),
                              fix=f"give {option} NAME,key=value,... with keys of {', '.join(keys)}")
        found[key] = value
    return name, found


def row_of(name: str, table: Mapping[str, dict], option: str) -> dict:
    """Raises ConfigError for a name that the table does not have."""
    if name not in table:
        raise ConfigError(f'"{name}" is not in the table', where=f"{option} {name}", why=nearest(name, table),
                          fix=f"give one of {', '.join(sorted(table))}, or spell it out with key=value")
    return table[name]


def number(text: str, key: str, option: str, most: int = MOST) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(most)) or not 1 <= int(text) <= most:
        raise ConfigError(f"{key}={text} is no whole number of 1 to {most}", where=option,
                          why="it counts something, of which more fit no memory, or no patience",
                          fix=f"give {key}=N of at least 1 and at most {most}")
    return int(text)


def choice(text: str, key: str, option: str, values: Iterable[str]) -> str:
    if text not in values:
        raise ConfigError(f"{key}={text} is not known", where=option, why=nearest(text, values),
                          fix=f"give {key}={' or '.join(values)}")
    return text
