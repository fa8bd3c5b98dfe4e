"""The nn.Modules that a policy's functions use, so that every weight has a name. Must not know policies or graphs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType

import torch


def modules_of(*functions: Callable | None) -> dict[str, torch.nn.Module]:
    """{name: nn.Module} of the modules that functions use: the function itself, `self`, closure cells, partial
    arguments and referenced globals. A submodule of another one is not listed separately."""
    found: dict[str, torch.nn.Module] = {}
    seen: set[int] = set()

    def visit(name: str, value, depth: int) -> None:
        if id(value) in seen or depth > 4:
            return
        if isinstance(value, torch.nn.Module):
            seen.add(id(value))
            found[name.replace(".", "_")] = value
        elif inspect.ismethod(value):
            visit(name, value.__self__, depth)
            visit(name, value.__func__, depth + 1)
        else:
            seen.add(id(value))
            for k, v in _parts(name, value):
                visit(k, v, depth + 1)

    for function in functions:
        if function is not None:
            visit(getattr(function, "__name__", "policy"), function, 0)
    inner = {id(m) for top in found.values() for m in top.modules() if m is not top}
    return {name: module for name, module in found.items() if id(module) not in inner}


def _parts(name: str, value) -> Iterator[tuple[str, object]]:
    """(name, value) of everything that a function, a container or an object refers to."""
    if isinstance(value, functools.partial):
        yield name, value.func
        yield from ((f"{name}_{i}", a) for i, a in enumerate(value.args))
        yield from value.keywords.items()
    elif inspect.isfunction(value):
        yield from _variables(value)
    elif isinstance(value, Mapping):
        yield from ((f"{name}_{k}", v) for k, v in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"{name}_{i}", v) for i, v in enumerate(value))
    elif hasattr(value, "__dict__") and not inspect.ismodule(value) and not inspect.isclass(value):
        for k, v in vars(value).items():
            if isinstance(v, (torch.nn.Module, Mapping, list, tuple)):
                yield k, v


def _variables(function: FunctionType) -> Iterator[tuple[str, object]]:
    """The free variables and globals of a function. inspect.getclosurevars fails on an empty cell: a variable that the
    outer function never set."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        yield name, value
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _global_names(code: CodeType) -> Iterator[str]:
    """Global names in the code, including nested functions such as comprehensions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)
