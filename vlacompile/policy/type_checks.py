"""Type checks of a user's declarations in Python, so that a mistake is reported where it was made.

Owns the messages. Must not know what the declarations are for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import NoReturn

import torch

from vlart.errors import SourceError


def refuse(what: str, where: str, why: str, fix: str) -> NoReturn:
    raise SourceError(what, where=where, why=why, fix=fix)


def whole(value: object, least: int, where: str, fix: str) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        refuse(f"{_shown(value)} is not a whole number of {least} or more", where, f"it is {_kind(value)}", fix)


def positive(value: object, where: str, fix: str) -> None:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < math.inf:
        refuse(f"{_shown(value)} is not a positive number", where, f"it is {_kind(value)}", fix)


def mapping(value: object, where: str, of: type | None, fix: str) -> None:
    """of: the type of the values; None: any."""
    if not isinstance(value, Mapping):
        refuse(f"{_shown(value)} is not a dict", where, f"it is {_kind(value)}", fix)
    for name, item in value.items():
        if not isinstance(name, str) or not name:
            refuse(f"{_shown(name)} is not a name", where, "names are non-empty strings", fix)
        if of is not None and not isinstance(item, of):
            refuse(f'"{name}" is {_kind(item)}', where, f"it must be a {of.__name__}", fix)


def instance(value: object, of: type | tuple[type, ...], where: str, fix: str) -> None:
    """None is accepted: not given."""
    if value is not None and not isinstance(value, of):
        wanted = of if isinstance(of, type) else of[0]
        refuse(f"{_shown(value)} is not a {wanted.__name__}", where, f"it is {_kind(value)}", fix)


def function(value: object, where: str) -> None:
    if not callable(value):
        refuse(f"{_shown(value)} is not callable", where, f"it is {_kind(value)}",
               "give the function itself, a method, or a nn.Module")


def names(value: object, where: str) -> None:
    if isinstance(value, str):
        refuse(f'outputs is the string "{value}"', where, "it would be iterated letter by letter",
               f'give a tuple: outputs=("{value}",)')
    if not isinstance(value, (tuple, list)) or not all(isinstance(n, str) and n for n in value):
        refuse(f"outputs is {_shown(value)}", where, "it must list the names of returned tensors",
               'give a tuple of names, e.g. outputs=("action",)')


def example(name: str, value: object, where: str, dtypes: Mapping[torch.dtype, str]) -> None:
    what, every = f'example input "{name}" is {_kind(value)}', "inputs are tensors of " + ", ".join(dtypes.values())
    if isinstance(value, Mapping):
        refuse(what, where, "every source is one tensor",
               f"declare {', '.join(map(repr, map(str, value))) or 'its tensors'} as sources of their own, and build "
               f'"{name}" from them in the function')
    if isinstance(value, (list, tuple)):
        refuse(what, where, "every source is one tensor", "declare its tensors as sources of their own, or stack them")
    if type(value).__module__.partition(".")[0] == "numpy":
        refuse(what, where, every, "give torch.as_tensor(...) of it; a session accepts NumPy arrays as they are")
    if not isinstance(value, torch.Tensor) or value.dtype not in dtypes:
        refuse(what, where, every, "give a torch.Tensor of the dtype that the robot will write")
    if value.device.type != "cpu" or value.layout is not torch.strided:
        refuse(f'example input "{name}" is on {value.device}, {str(value.layout).removeprefix("torch.")}', where,
               "the robot writes plain arrays in CPU memory", "give example.cpu(), or .to_dense() of it")


def _kind(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype}"
    package = "numpy." if type(value).__module__.partition(".")[0] == "numpy" else ""
    return f"a {package}{type(value).__name__}"


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 and "\n" not in text else _kind(value)
