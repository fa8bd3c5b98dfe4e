"""Which keys a query may see at most, whatever the inputs are: by element, of masks that an input decides in part.

Owns how a mask is taken apart. Must not know which rows are read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import Node

from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.passes.rules.mask_blocks import HIDDEN

_ATEN = torch.ops.aten
_ANDS = frozenset({_ATEN.logical_and.default, _ATEN.bitwise_and.Tensor})
_ORS = frozenset({_ATEN.logical_or.default, _ATEN.bitwise_or.Tensor})
_NOTS = frozenset({_ATEN.logical_not.default, _ATEN.bitwise_not.default})
_FILLS = frozenset({_ATEN.masked_fill.Scalar, _ATEN.masked_fill.Tensor})
_VIEWS = frozenset({_ATEN.unsqueeze.default, _ATEN.expand.default, _ATEN.slice.Tensor})
_DEEPEST = 20  # ops between an attention and what is known of its mask

Known = Callable[[Node], torch.Tensor | None]  # what a node is where no source reaches it


def may_see(attention: Node, mask: Node, known: Known) -> torch.Tensor | None:
    """bool, of the mask's shape: False where a key has the probability 0, whatever the inputs are. None: not known.

    A row that an input empties sees nothing and is filled behind the attention (`guard_empty_rows`): the keys that its
    mask is opened to do not count.
    """
    one = _guarded(attention, mask)
    found = _may_be_true(mask if one is None else one, known, _DEEPEST)
    return None if found is None else found.expand(mask.meta["val"].shape)


def may_be_true(value: Node, known: Known) -> torch.Tensor | None:
    """bool, of a boolean's shape: False where it is so whatever the inputs are. None: not known."""
    found = _may_be_true(value, known, _DEEPEST) if value.meta["val"].dtype == torch.bool else None
    return None if found is None else found.expand(value.meta["val"].shape)


def _guarded(attention: Node, mask: Node) -> Node | None:
    """What a mask was before the rows were opened that it leaves nothing; the results of these are not read."""
    if mask.target not in _ORS:
        return None
    one, empty = mask.args
    opened = empty.target in _NOTS and empty.args[0].target is _ATEN.any.dim and empty.args[0].args[:2] == (one, -1)
    filled = all(u.target in _FILLS and u.args[:2] == (attention, empty) for u in attention.users)
    return one if opened and filled else None


def _may_be_true(value: Node, known: Known, depth: int) -> torch.Tensor | None:
    spend()
    found = known(value)
    if found is not None:
        return found if found.dtype == torch.bool else found > HIDDEN
    if not depth or value.op != "call_function":
        return None
    if value.target in _ANDS and value.meta["val"].dtype == torch.bool:
        parts = [p for n in value.args if (p := _may_be_true(n, known, depth - 1)) is not None]
        return torch.logical_and(*parts) if len(parts) == 2 else next(iter(parts), None)
    if value.target in _ORS and value.meta["val"].dtype == torch.bool:
        parts = [_may_be_true(n, known, depth - 1) for n in value.args]
        return None if any(p is None for p in parts) else torch.logical_or(*parts)
    if value.target in _VIEWS:
        inner = _may_be_true(value.args[0], known, depth - 1)
        if inner is not None:
            return value.target(inner.expand(value.args[0].meta["val"].shape), *value.args[1:])
    return None
