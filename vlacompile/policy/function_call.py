"""Checks of the call of a policy's function: its arguments and the values that it returns.

Errors name the user's own arguments and outputs. Must not know graphs or the exporter.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch._numpy import _ndarray as tnp

from vlart.errors import CaptureError, nearest


def place_of(function: Callable) -> str:
    """"FILE:LINE in NAME" of the Python code behind a function, method, module or partial; "" if there is none."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, torch.nn.Module):
        function = function.forward
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", function)  # noqa: B004  the code of __call__ is needed
    code = getattr(function, "__code__", None)
    return f", {code.co_filename}:{code.co_firstlineno} in {code.co_name}" if code is not None else ""


def check_call(name: str, function: Callable, given: Iterable[str], what: str = "the inference function") -> None:
    """given: names of the keyword arguments of the call. Raises CaptureError if the function does not take exactly
    these; accepts a function whose signature is not known. To be called after a call has failed: a decorator may hide
    the true signature."""
    try:
        known = inspect.signature(function.forward if isinstance(function, torch.nn.Module) else function).parameters
    except (TypeError, ValueError):
        return
    given, kinds = list(given), inspect.Parameter
    by_name = [n for n, p in known.items() if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    needed = [n for n, p in known.items() if p.default is kinds.empty
              and p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    anything = any(p.kind is kinds.VAR_KEYWORD for p in known.values())
    lost, strange = [n for n in needed if n not in given], [n for n in given if n not in by_name and not anything]
    where = f'Policy "{name}"' + place_of(function)
    only = [n for n in given if n in known and known[n].kind is kinds.POSITIONAL_ONLY]
    if only:
        raise CaptureError(f'{what} does not take "{only[0]}" by name', where=where,
                           why="inputs are passed by keyword; this argument is positional-only (before a /)",
                           fix="remove the / from it")
    if strange:
        raise CaptureError(f'{what} does not take "{strange[0]}"', where=where,
                           why=f"its arguments are {', '.join(by_name) or 'none'}; the call passes {', '.join(given)} "
                               f"by keyword",
                           fix=f'use one name for both, "{lost[0]}" or "{strange[0]}"' if lost else
                           f'take "{strange[0]}" as an argument, or remove that source')
    if lost:
        raise CaptureError(f'{what} takes "{lost[0]}", which no source provides', where=where,
                           why=f"the call passes {', '.join(given) or 'nothing'}, by keyword",
                           fix=f'declare "{lost[0]}" as a source with an example, or give the argument a default')


def why_and_fix(error: Exception) -> dict[str, str]:
    """Why a trace failed, and how to fix it."""
    first = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
    if ".numpy() is not supported" in first or "__array__ method not producing an array" in first:
        return {"why": "NumPy copies the memory of a tensor there, whose values are known only on the robot",
                "fix": "convert it with tensor.numpy(), whose result NumPy's functions take, or use torch operations"}
    if isinstance(error, TypeError) and ("positional argument" in first or "keyword argument" in first):
        return {"why": f"TypeError: {first}", "fix": "call that function with the arguments that it takes"}
    return {"why": f"{type(error).__name__}: {first}",
            "fix": "PyTorch's exporter (torch.export, non-strict) cannot trace that line: write it with plain tensor "
                   "operations"}


def named(name: str, function: Callable, values: object, example: str) -> dict:
    """The function's return value as a dict: of what has keys, named fields or is a dataclass. example: a name that it
    should return. Raises CaptureError if the value has no names."""
    if isinstance(values, Mapping) or (hasattr(values, "keys") and hasattr(values, "__getitem__")):
        return dict(values)
    if isinstance(values, tuple) and hasattr(values, "_fields"):  # a NamedTuple
        return dict(zip(values._fields, values, strict=True))
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        return {f.name: getattr(values, f.name) for f in dataclasses.fields(values) if hasattr(values, f.name)}
    first = "the tensor" if isinstance(values,
                                       torch.Tensor) else "its first tensor" if isinstance(values, tuple) else "..."
    raise CaptureError(f"the inference function returns {_a(values)}, not a dict",
                       where=f'Policy "{name}"' + place_of(function),
                       why="outputs are looked up by name", fix=f'return {{"{example}": {first}}}')


def tensors(name: str, function: Callable, values: Mapping[str, object],
            outputs: Iterable[str]) -> dict[str, torch.Tensor]:
    """The outputs among the returned values. A list of tensors [1,...] of one shape (one action per step) becomes
    [1,n,...]. Raises CaptureError for an output that is missing or is not a tensor."""
    found, where = {}, f'Policy "{name}"' + place_of(function)
    for output in outputs:
        if output not in values:
            raise CaptureError(f"the inference function returns no {output}", where=where,
                               why="it returned " + (", ".join(f"{n} ({_a(v)})" for n, v in values.items())
                                                     or "nothing"),
                               fix=_fix_of_missing(output, values))
        value = _as_tensor(values[output])
        parts = list(value) if isinstance(value, (list, tuple)) else []
        if parts and all(isinstance(p, torch.Tensor) for p in parts):
            value = _stacked(output, parts, where)
        if not isinstance(value, torch.Tensor):
            raise CaptureError(f'the output "{output}" is {_a(value)}', where=where, why="outputs are tensors",
                               fix=_fix_of_kind(output, value))
        found[output] = value
    return found


def _as_tensor(value: object) -> object:
    """An array of NumPy's as a tensor, while the function is traced too; anything else unchanged."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else (
        value.tensor if isinstance(value, tnp.ndarray) else value)


def _fix_of_missing(output: str, values: Mapping[str, object]) -> str:
    inside = next((n for n, v in values.items() if isinstance(v, Mapping) and output in v), None)
    if inside is not None:
        return f'return the content of "{inside}" at the top level: {{"{output}": ...}}'
    plain = [n for n, v in values.items() if isinstance(v, torch.Tensor)]
    return f'return a tensor under this name, or choose a returned one: outputs=("{plain[0]}",)' if plain else (
        f'return {{"{output}": ...}}, a tensor under its name')


def _fix_of_kind(output: str, value: object) -> str:
    if isinstance(value, Mapping):
        return f"return its tensors under names of their own, and list them in outputs=; {nearest(output, value)}"
    if isinstance(value, (bool, int, float)):
        return "return it as torch.tensor(...), or leave it out of outputs="
    return "return a tensor under this name, or leave it out of outputs="


def _stacked(output: str, parts: list[torch.Tensor], where: str) -> torch.Tensor:
    kinds = {(tuple(p.shape), p.dtype) for p in parts}
    if len(kinds) > 1 or parts[0].dim() == 0 or parts[0].shape[0] != 1:
        raise CaptureError(f'the output "{output}" is a list of {len(parts)} tensors that cannot be stacked',
                           where=where,
                           why="a list means one value per step, all of the same shape [1,...]; the shapes are "
                               + ", ".join(str(list(p.shape)) for p in parts[:4]),
                           fix="return each under a name of its own, and list the names in outputs=")
    return torch.stack(parts, 1)


def _a(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, torch.Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    return f"a {'numpy.' if type(value).__module__.startswith('numpy') else ''}{type(value).__name__}"
