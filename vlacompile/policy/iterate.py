"""`iterate(step, state, K, until=...)`: a loop whose end the data decides.

Owns its meaning in PyTorch and in a trace. There every iteration is recorded, and what an iteration behind the end
gives is replaced by what was there before: the values are those at the end, wherever the loop runs and however far. Two
ops mark what the loop starts from and what it gives; `compiler/graph/loop_end.py` says how a graph has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from vlacompile.policy import type_checks as declared
from vlacompile.policy.function_call import place_of
from vlacompile.policy.iterations import MOST, is_traced, iterations, next_loop
from vlart.errors import CaptureError, RuntimeFailure
from vlart.vocabulary import NOT_ENDED

State = TypeVar("State")  # a tensor, or tuples, lists and dicts of them
_CALL = "vlacompile.iterate(...)"


@torch.library.custom_op("vlacompile::begun", mutates_args=())
def begun(value: torch.Tensor, loop: int, number: int) -> torch.Tensor:
    """What a part of a loop's state is before the first iteration. It is no constant, whatever it is computed from, so
    that the first iteration is recorded as the others are. loop: the number of the loop in its trace. number: of the
    part, so that those that start from the same value are two values there as well."""
    return value.clone()


@begun.register_fake
def _(value: torch.Tensor, loop: int, number: int) -> torch.Tensor:
    return torch.empty_like(value)


@torch.library.custom_op("vlacompile::finished", mutates_args=())
def finished(value: torch.Tensor, over: torch.Tensor, must_end: bool, state: list[torch.Tensor]) -> torch.Tensor:
    """What a part of a loop's state is after the loop. over: bool[1], whether the loop reached its end. must_end: as
    `iterate`'s. state: all parts, so that the last iteration computes what the others do, whatever is read of it."""
    return value.clone()


@finished.register_fake
def _(value: torch.Tensor, over: torch.Tensor, must_end: bool, state: list[torch.Tensor]) -> torch.Tensor:
    return torch.empty_like(value)


def iterate(step: Callable[[int, State], State], state: State, count: int, *,
            until: Callable[[State], torch.Tensor], must_end: bool = False) -> State:
    """`state = step(k, state)` for k = 0, 1, ... until `until(state)` is true, at most `count` times. The last state.

    state: a tensor, or tuples, lists and dicts of tensors. step: gives a state of the same structure, shapes and
    dtypes, and may write into the one that it is given, a copy; k is an int, by which tensors are read (`schedule[k]`).
    until: bool tensor of one element, computed from the state; so there is one sequence, not a batch of them.
    must_end: the state is of no use where `count` iterations did not reach the end. That is an error then, in PyTorch
    and of a robot's replan (LOOP_NOT_ENDED), whose last safe chunk stays.
    """
    declared.whole(count, 1, _CALL, "give the largest number of iterations, at least 1")
    declared.function(step, _CALL)
    declared.function(until, _CALL)
    if is_traced():
        return _recorded(step, state, count, until, must_end)
    for k in range(count):
        state, over = _next(step, k, _each(torch.clone, state), until)
        if bool(over):
            return state
    if must_end:
        raise RuntimeFailure(f"the loop did not end within {count} iterations", where=_CALL + place_of(until),
                             why="it is declared with must_end=True, and its condition never was true",
                             fix="allow more iterations, or leave must_end out where the state is of use all the same",
                             status=NOT_ENDED)
    return state


def _recorded(step: Callable, state: State, count: int, until: Callable, must_end: bool) -> State:
    if count > MOST:
        raise CaptureError(f"a loop of up to {count} iterations", where=_CALL + place_of(step),
                           why=f"a replan may wait for all of them; loops of up to {MOST} are compiled",
                           fix=f"allow at most {MOST}, e.g. with larger steps")
    loop = next_loop()
    numbers = itertools.count(1)
    over = begun(torch.zeros(1, dtype=torch.bool), loop, 0)
    state = _each(lambda part: begun(part, loop, next(numbers)), state)
    for k in iterations(count):
        given = _each(torch.clone, state)  # it may be written into
        new, here = _next(step, k, given, until)
        state = _each(lambda old, own, part, over=over: _held(over, old, own, part), state, given, new)
        over = over | here
    parts: list[torch.Tensor] = []
    _each(parts.append, state)
    return _each(lambda part: finished(part, over, must_end, parts), state)


def _held(over: torch.Tensor, old: torch.Tensor, given: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """`new`, or behind the end `old`. given: the copy of `old` that the iteration was given."""
    if new is given and not new.is_inference() and new._version == 0:
        return old
    return torch.where(over if new.dim() else over.reshape(()), old, new)


def _each(function: Callable, *states: Any) -> Any:
    """`function` of every part of states of one structure."""
    first = states[0]
    if isinstance(first, torch.Tensor):
        return function(*states)
    if isinstance(first, dict):
        return {key: _each(function, *(s[key] for s in states)) for key in first}
    parts = [_each(function, *parts) for parts in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)


def _next(step: Callable, k: int, state: State, until: Callable) -> tuple[State, torch.Tensor]:
    """(the state after an iteration, bool[1]: whether that was the last)"""
    new = step(k, state)
    types, found = _types(state, place_of(step)), _types(new, place_of(step))
    if found != types:
        name = next(n for n in (*types, *found) if types.get(n) != found.get(n))
        raise CaptureError(
            f"an iteration makes {name} {found.get(name, 'nothing')}, and it was {types.get(name, 'nothing')}",
            where=f"{_CALL}{place_of(step)}",
            why="how often a loop runs is known on the robot alone, and what it gives has one shape",
            fix="give it room for all iterations before the loop, and write row k: torch.where(rows[k], new, old)"
            if name in types and name in found else "return all parts of the state that step is given, and no more")
    if not is_traced():
        return new, _condition(until(new), place_of(until))
    with _Doubles() as doubles:
        over = until(new)
    if doubles.compared:
        raise CaptureError("the end of a loop is decided in float64", where=f"{_CALL}{place_of(until)}",
                           why="engines compute in float32, in which it may be true in another iteration",
                           fix="decide it in float32, in PyTorch as well, e.g. state.error.float() < 1e-6")
    return new, _condition(over, place_of(until))


class _Doubles(TorchFunctionMode):
    """Whether within it numbers in float64 are compared."""

    compared = False

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.bool and any(
                isinstance(x, torch.Tensor) and x.dtype == torch.float64 for x in args):
            self.compared = True
        return found


def _condition(found: object, place: str) -> torch.Tensor:
    if not isinstance(found, torch.Tensor) or found.dtype != torch.bool or found.numel() != 1:
        kind = _type(found) if isinstance(found, torch.Tensor) else type(found).__name__
        raise CaptureError(f"the end of a loop is {kind}", where=f"vlacompile.iterate(until=...){place}",
                           why="after each iteration one bool says whether it was the last",
                           fix="return a bool tensor of one element, e.g. (token == END).all()")
    return found.reshape(1)


def _type(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _types(state: object, place: str, name: str = "state") -> dict[str, str]:
    """{part of the state: its type}"""
    if isinstance(state, torch.Tensor):
        return {name: _type(state)}
    if isinstance(state, dict):
        parts: list[tuple[str, object]] = [(f"{name}[{key!r}]", value) for key, value in state.items()]
    elif isinstance(state, (tuple, list)):
        parts = [(f"{name}[{i}]", value) for i, value in enumerate(state)]
    else:
        raise CaptureError(f"{name} is {type(state).__name__}", where=f"{_CALL}{place}",
                           why="what a loop changes is a tensor, or a tuple, list or dict of such",
                           fix="make a tensor of it, and put several into a tuple")
    return {n: t for part, value in parts for n, t in _types(value, place, part).items()}
