"""TOML -> frozen dataclasses, strictly: an unknown key or a wrong type is an error that says where."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, NoReturn

from vlacompile.errors import ConfigError, nearest


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


def from_table(cls: type, table: dict, where: str, prefix: str = "") -> Any:
    """Build the dataclass `cls`; nested tables become nested dataclasses, lists become tuples."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise ConfigError(f'unknown key "{prefix}{key}"', where=where, why=nearest(key, fields),
                              fix="correct or remove the key")
    required = [n for n, f in fields.items()
                if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    for name in required:
        if name not in table:
            raise ConfigError(f'key "{prefix}{name}" is missing', where=where, why="it has no default",
                              fix=f"add {name} = ...")
    values = {k: _convert(hints[k], v, where, prefix + k) for k, v in table.items()}
    return cls(**values)


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            _refuse(key, where, value, "a table")
        return from_table(hint, value, where, key + ".")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert(next(a for a in args if a is not type(None)), value, where, key)
    if origin is tuple:
        if not isinstance(value, list):
            _refuse(key, where, value, "a list")
        return tuple(_convert(args[0], v, where, key) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        _refuse(key, where, value, {"str": "a string", "int": "a whole number", "float": "a number",
                                    "bool": "true or false"}[hint.__name__])
    return value


def _refuse(key: str, where: str, value: object, wanted: str) -> NoReturn:
    raise ConfigError(f'"{key}" has the wrong type', where=where, why=f"{value!r} is not {wanted}",
                      fix=f"give {wanted}")
