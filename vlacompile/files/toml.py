"""TOML files, by path or among those that are shipped, as frozen dataclasses."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from vlart.errors import ConfigError, nearest
from vlart.files.tables import from_table


def load_toml(cls: type, name_or_path: str, folder: str, kind: str | None = None) -> Any:
    """Read `cls` from a file path, or by name from the shipped `folder` ("recipes" or "targets"). kind: the noun in
    error messages; None: the name of the class.

    Raises ConfigError for an unknown name, an unreadable file, an unknown key or a wrong type.
    """
    kind = kind or cls.__name__.lower()
    path = Path(name_or_path)
    if path.suffix == ".toml":
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the {kind}", where=where, why=str(error),
                              fix=f"give the path of a {kind} file, or one of: {', '.join(shipped(folder))}") from error
    else:
        known = shipped(folder)
        if name_or_path not in known:
            raise ConfigError(f'no {kind} is called "{name_or_path}"', where=f"{folder}/",
                              why=nearest(name_or_path, known),
                              fix=f"list them with `vlacompile {folder}`, or give the path of a .toml file")
        where, text = f"{folder}/{name_or_path}.toml", known[name_or_path].read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the {kind} is not valid TOML", where=where, why=str(error),
                          fix="correct that line") from error
    return from_table(cls, table, where)


def shipped(folder: str) -> dict[str, Path]:
    """{name: file} of the shipped TOML files of "recipes" or "targets"."""
    package = Path(__file__).parents[1]
    place = package.parent / folder  # a source tree
    if not (package.parent / "pyproject.toml").is_file():
        place = package / folder  # an installed wheel
    return {f.stem: f for f in sorted(place.glob("*.toml"))}
