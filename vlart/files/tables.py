"""Nested tables, as a TOML or a YAML file has them -> frozen dataclasses, strictly: an unknown key or a wrong type is
an error that says where."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from vlart.errors import ConfigError, nearest

Where = str | Callable[[str], str]  # a file, or what says where in it a key is, as "a.b.c"


def from_table(cls: type, table: Mapping[str, Any], where: Where, prefix: str = "") -> Any:
    """Build the dataclass `cls`; nested tables become nested dataclasses or, where a field is a Mapping, dicts of them;
    lists become tuples. Raises ConfigError."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise ConfigError(f'unknown key "{prefix}{key}"', where=_place(where, f"{prefix}{key}"),
                              why=nearest(key, fields), fix="correct or remove the key")
    required = [n for n, f in fields.items()
                if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    for name in required:
        if name not in table:
            raise ConfigError(f'key "{prefix}{name}" is missing', where=_place(where, prefix.removesuffix(".")),
                              why="it has no default", fix=f"add {name}")
    values = {k: _convert(hints[k], v, where, prefix + k) for k, v in table.items()}
    return cls(**values)


def _place(where: Where, key: str) -> str:
    return where if isinstance(where, str) else where(key)


def _convert(hint: Any, value: Any, where: Where, key: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_table(hint, _table(value, where, key), where, key + ".")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert(next(a for a in args if a is not type(None)), value, where, key)
    if origin is tuple:
        if not isinstance(value, list):
            _refuse(key, where, value, "a list")
        return tuple(_convert(args[0], v, where, key) for v in value)
    if origin is Mapping:
        return {k: _convert(args[1], v, where, f"{key}.{k}") for k, v in _table(value, where, key).items()}
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f'"{key}" is {value!r}', where=_place(where, key), why=nearest(value, args),
                              fix=f"choose one of {', '.join(args)}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f'"{key}" is too large', where=_place(where, key), why=str(error),
                              fix="give a number of at most 308 digits") from error
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        _refuse(key, where, value, {"str": "a string", "int": "a whole number", "float": "a number",
                                    "bool": "true or false"}[hint.__name__])
    return value


def _table(value: object, where: Where, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        _refuse(key, where, value, "a table")
    return value


def _refuse(key: str, where: Where, value: object, wanted: str) -> NoReturn:
    raise ConfigError(f'"{key}" has the wrong type', where=_place(where, key), why=f"{value!r} is not {wanted}",
                      fix=f"give {wanted}")
