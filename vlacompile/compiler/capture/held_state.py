"""State of a policy's modules and functions besides weights: attributes, buffers, containers, closure cells, globals.

Detects whether a call changed it, and restores it. Must not know graphs.
"""

from __future__ import annotations

import copy
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping

import torch
from torch import nn

_CONTAINERS = (dict, list, set, deque)
_PLAIN = (int, float, str, bool, type(None))
_MANY = 64  # at most so many elements of a container are compared
_APART = frozenset({"_parameters", "_modules"})


class _Cells(MutableMapping):
    """The variables of an outer function that a function reads, as a dict."""

    def __init__(self, function: types.FunctionType):
        self.cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter([n for n, c in self.cells.items() if _is_set(c)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, name: str):
        return self.cells[name].cell_contents

    def __setitem__(self, name: str, value) -> None:
        self.cells[name].cell_contents = value

    def __delitem__(self, name: str) -> None:
        del self.cells[name].cell_contents


def _is_set(cell) -> bool:
    try:
        cell.cell_contents  # noqa: B018  raises ValueError for an empty cell
    except ValueError:
        return False
    return True


class Held:
    """modules: those that a policy uses. functions: the policy's own, which may be methods or modules."""

    def __init__(self, modules: Mapping[str, nn.Module], functions: tuple[Callable | None, ...]):
        self.places: list[tuple[MutableMapping, frozenset[str] | None]] = [
            (vars(m), None) for top in modules.values() for m in top.modules()]
        for function in functions:
            function = getattr(function, "__func__", function)
            if isinstance(function, types.FunctionType):
                self.places.append((_Cells(function), None))
                self.places.append((function.__globals__, frozenset(function.__code__.co_names)))
        self.save()

    def _items(self, place: MutableMapping, names: frozenset[str] | None) -> list[tuple[str, object]]:
        return [(k, v) for k, v in list(place.items()) if (names is None or k in names) and k not in _APART
                and isinstance(v, (*_CONTAINERS, *_PLAIN, torch.Tensor))]

    def save(self) -> None:
        """Takes the snapshot that `restore` brings back and that `changed` compares with."""
        self.saved = [{k: (v, _copied(v)) for k, v in self._items(*p)} for p in self.places]
        self.before = self.marks()

    def marks(self) -> list[dict[str, object]]:
        return [{k: _mark(v) for k, v in self._items(*p)} for p in self.places]

    def changed(self) -> bool:
        return self.marks() != self.before

    def narrow(self) -> None:
        """From now on watches only what changed since the snapshot."""
        kept = [i for i, (new, old) in enumerate(zip(self.marks(), self.before, strict=True)) if new != old]
        self.places, self.saved, self.before = ([of[i] for i in kept] for of in (self.places, self.saved, self.before))

    def restore(self) -> None:
        for (place, names), saved in zip(self.places, self.saved, strict=True):
            for k, _ in self._items(place, names):
                if k not in saved:
                    del place[k]
            for k, (value, content) in saved.items():
                _put_back(value, content)
                if place.get(k) is not value:
                    place[k] = value


def _copied(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if not value.is_meta else None
    if isinstance(value, dict):
        return {k: (v, _copied(v)) if isinstance(v, torch.Tensor) else (v, None) for k, v in value.items()}
    return copy.copy(value)


def _put_back(value, content) -> None:
    if isinstance(value, torch.Tensor) and content is not None and not torch.equal(value, content):
        with torch.no_grad():
            value.copy_(content)
    elif isinstance(value, dict):
        for v, tensor in content.values():
            if tensor is not None:
                _put_back(v, tensor)
        kept = {k: v for k, (v, _) in content.items()}
        if value != kept if not any(isinstance(v, torch.Tensor) for v in (*value.values(), *kept.values())) else (
                list(map(id, value.values())) != list(map(id, kept.values()))):
            value.clear()
            value.update(kept)
    elif isinstance(value, list):
        value[:] = content
    elif isinstance(value, set):
        value.clear()
        value.update(content)
    elif isinstance(value, deque):
        value.clear()
        value.extend(content)


def _mark(value, depth: int = 0):
    """A value that differs if `value` was replaced or modified in place."""
    if isinstance(value, torch.Tensor):
        return id(value), None if value.is_inference() else value._version
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping) and depth < 4:
        return tuple((str(k), _mark(v, depth + 1)) for k, v in list(value.items())[:_MANY])
    if isinstance(value, (*_CONTAINERS, tuple)) and depth < 4:
        return len(value), tuple(_mark(v, depth + 1) for v in list(value)[:_MANY])
    return id(value)
