"""How a policy's function is called and what it returns: said in its own words where it does not fit.

Owns the checks of arguments and returned values. Must not know graphs or the exporter.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping

import torch

from vlacompile.errors import CaptureError, nearest


def place_of(function: Callable) -> str:
    """"FILE:LINE in NAME" of the code that a function, method, module or partial runs; "" where there is none."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, torch.nn.Module):
        function = function.forward
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", function)  # noqa: B004  its code is wanted
    code = getattr(function, "__code__", None)
    return f", {code.co_filename}:{code.co_firstlineno} in {code.co_name}" if code is not None else ""


def check_call(name: str, function: Callable, given: Iterable[str], what: str = "the inference function") -> None:
    """given: names of what it is called with. Raises CaptureError where the function does not take exactly these;
    nothing is said of one whose signature is not known. For a call that has failed: a decorator may change the
    signature."""
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
                           why="everything is given by name; this argument stands before a /",
                           fix="remove the / from it")
    if strange:
        raise CaptureError(f'{what} does not take "{strange[0]}"', where=where,
                           why=f"its arguments are {', '.join(by_name) or 'none'}; it is given {', '.join(given)}, "
                               f"by name",
                           fix=f'name both "{lost[0]}", or both "{strange[0]}"' if lost else
                           f'take "{strange[0]}" as an argument, or do not give it')
    if lost:
        raise CaptureError(f'{what} takes "{lost[0]}", which it is not given', where=where,
                           why=f"it is given {', '.join(given) or 'nothing'}, by name",
                           fix=f'declare "{lost[0]}" as a source with an example, or give the argument a default')


def why_and_fix(error: Exception) -> dict[str, str]:
    """What stopped a trace, and what to do about it."""
    first = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
    if ".numpy() is not supported" in first:
        return {"why": "there numbers leave PyTorch (.numpy()), and what NumPy makes of them is not seen",
                "fix": "compute with tensors to the end and return the tensor; torch has the same functions"}
    if isinstance(error, TypeError) and ("positional argument" in first or "keyword argument" in first):
        return {"why": f"TypeError: {first}", "fix": "call that function with the arguments that it takes"}
    return {"why": f"{type(error).__name__}: {first}",
            "fix": "PyTorch's exporter (torch.export, not strict) does not take that line: write it with plain tensor "
                   "operations"}


def named(name: str, function: Callable, values: object, example: str) -> dict:
    """What a function returned as a dict. example: a name that it should return. Raises CaptureError for anything that
    has no names."""
    if isinstance(values, Mapping) or (hasattr(values, "keys") and hasattr(values, "__getitem__")):
        return dict(values)
    first = "the tensor" if isinstance(values,
                                       torch.Tensor) else "its first tensor" if isinstance(values, tuple) else "..."
    raise CaptureError(f"the inference function returns {_a(values)}, not a dict",
                       where=f'Policy "{name}"' + place_of(function),
                       why="outputs are found by name", fix=f'return {{"{example}": {first}}}')


def tensors(name: str, function: Callable, values: Mapping[str, object],
            outputs: Iterable[str]) -> dict[str, torch.Tensor]:
    """The outputs of what was returned. A list of tensors [1,...] of one shape, as one action per step, is [1,n,...].
    Raises CaptureError for one that is not there or is no tensor."""
    found, where = {}, f'Policy "{name}"' + place_of(function)
    for output in outputs:
        if output not in values:
            raise CaptureError(f"the inference function returns no {output}", where=where,
                               why="it returned " + (", ".join(f"{n} ({_a(v)})" for n, v in values.items())
                                                     or "nothing"),
                               fix=_fix_of_missing(output, values))
        value = values[output]
        parts = list(value) if isinstance(value, (list, tuple)) else []
        if parts and all(isinstance(p, torch.Tensor) for p in parts):
            value = _stacked(output, parts, where)
        if not isinstance(value, torch.Tensor):
            raise CaptureError(f'the output "{output}" is {_a(value)}', where=where, why="outputs are tensors",
                               fix=_fix_of_kind(output, value))
        found[output] = value
    return found


def _fix_of_missing(output: str, values: Mapping[str, object]) -> str:
    inside = next((n for n, v in values.items() if isinstance(v, Mapping) and output in v), None)
    if inside is not None:
        return f'return what is in "{inside}" itself: {{"{output}": ...}}'
    plain = [n for n, v in values.items() if isinstance(v, torch.Tensor)]
    return f'return it by this name, or choose among what is returned: outputs=("{plain[0]}",)' if plain else (
        f'return {{"{output}": ...}}, a tensor by its name')


def _fix_of_kind(output: str, value: object) -> str:
    kind = type(value)
    if isinstance(value, Mapping):
        return f"return its tensors by names of their own, and list them in outputs=; {nearest(output, value)}"
    if kind.__module__.partition(".")[0] == "numpy":
        return "compute with tensors to the end and return the tensor"
    if isinstance(value, (bool, int, float)):
        return "return torch.tensor(...) of it, or leave it out of outputs="
    return "return a tensor by this name, or leave it out of outputs="


def _stacked(output: str, parts: list[torch.Tensor], where: str) -> torch.Tensor:
    kinds = {(tuple(p.shape), p.dtype) for p in parts}
    if len(kinds) > 1 or parts[0].dim() == 0 or parts[0].shape[0] != 1:
        raise CaptureError(f'the output "{output}" is a list of {len(parts)} tensors that make no one tensor',
                           where=where,
                           why="it is taken for one value per step when all have the same shape [1,...]; they are "
                               + ", ".join(str(list(p.shape)) for p in parts[:4]),
                           fix="return each by a name of its own, and list the names in outputs=")
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
