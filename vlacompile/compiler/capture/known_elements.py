"""Which elements of recorded values no input reaches, and their content: a trace in progress is run a second time, on
weights and zeros, beside masks of what is known.

A copy of an input that is overwritten whole, the constant end of a concatenation, and whatever is computed from weights
are known although they were recorded. Needed where traced code branches on such a value, which is rare: nothing is
computed before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import get_proxy_slot, has_proxy_slot
from torch.fx.node import map_arg
from torch.utils._python_dispatch import _disable_current_modes

_ATEN = torch.ops.aten
# Of the first operand only shape and dtype are read.
BY_SHAPE = frozenset({
    _ATEN.full_like.default, _ATEN.ones_like.default, _ATEN.zeros_like.default,
    _ATEN.new_full.default, _ATEN.new_ones.default, _ATEN.new_zeros.default})
# Ops whose result has elements of the first operand, or of a list of operands, wherever those come to lie.
_MOVES = frozenset({
    _ATEN.view, _ATEN._unsafe_view, _ATEN.reshape, _ATEN.select, _ATEN.slice, _ATEN.permute, _ATEN.transpose, _ATEN.t,
    _ATEN.unsqueeze, _ATEN.squeeze, _ATEN.expand, _ATEN.clone, _ATEN.alias, _ATEN.detach, _ATEN.cat, _ATEN.stack,
    _ATEN.diagonal, _ATEN.flip, _ATEN.roll, _ATEN.unbind, _ATEN.split, _ATEN.split_with_sizes, _ATEN.chunk,
    _ATEN.narrow, _ATEN.flatten, _ATEN.unflatten, _ATEN.contiguous, _ATEN.repeat, _ATEN.concat, _ATEN.movedim,
    _ATEN.expand_as, _ATEN.view_as, _ATEN.lift_fresh_copy, _ATEN.as_strided, _ATEN.unfold})
_ELEMENTWISE = frozenset({_ATEN.where, _ATEN.to, _ATEN._to_copy, _ATEN.masked_fill, _ATEN.masked_fill_})
_OVERWRITTEN = frozenset({_ATEN.copy_, _ATEN.fill_, _ATEN.zero_})


class KnownElements:
    """Follows one trace. values: {node: its content, zeros where unknown}; known: {node: bool mask of its shape}.
    Values and masks are written in place as the trace does it, views of them too. written: whether it writes into any;
    before that, what is unknown as a whole takes no memory: of an encoder of pictures that is all."""

    def __init__(self) -> None:
        self.values: dict[Node, object] = {}
        self.known: dict[Node, object] = {}
        self.written = False

    def content(self, tracer, weights: tuple[torch.Tensor, ...], value: torch.Tensor) -> torch.Tensor | None:
        """A copy of the recorded tensor as it is now; None if one of its elements is not known. weights: the tensors
        behind the first placeholders of the trace."""
        if not has_proxy_slot(value, tracer):
            return None
        node = get_proxy_slot(value, tracer).proxy.node
        given = dict(zip((n for n in tracer.graph.nodes if n.op == "placeholder"), weights, strict=False))
        if not self.written and any(_writes(n) for n in tracer.graph.nodes):
            self.written = True
            self.values.clear()
            self.known.clear()
        with _disable_current_modes(), torch.no_grad():
            for n in tracer.graph.nodes:
                if n not in self.values:
                    try:
                        self.values[n], self.known[n] = self._of(n, tracer.root, given)
                    except Exception:  # noqa: BLE001  a size that an input decides, or an op that zeros do not suit
                        self.values[n], self.known[n] = self._unknown(n)
            if isinstance(self.known[node], torch.Tensor) and bool(self.known[node].all()):
                return self.values[node].clone()
        return None

    def _of(self, n: Node, root: torch.nn.Module, given: dict[Node, torch.Tensor]) -> tuple:
        val = n.meta.get("val")
        if n.op == "placeholder" and n in given and not isinstance(given[n], FakeTensor):
            return given[n], self._mask(given[n], True)
        if n.op == "get_attr" and isinstance(getattr(root, n.target), torch.Tensor):
            return getattr(root, n.target), self._mask(getattr(root, n.target), True)
        if n.target is operator.getitem:
            return self.values[n.args[0]][n.args[1]], self.known[n.args[0]][n.args[1]]
        if not isinstance(n.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in n.target.tags:
            return self._unknown(n)
        operands = [self.known[i] for i in n.all_input_nodes]
        packet = n.target.overloadpacket
        if not self.written and operands and packet is not _ATEN.where and (
                all if packet in _MOVES else any)(map(_is_unknown, operands)) and n.target not in BY_SHAPE:
            return self._unknown(n)
        if packet in _OVERWRITTEN:
            source = next((self.known[a] for a in n.args[1:2] if isinstance(a, Node)), torch.tensor(True))
            self.known[n.args[0]].copy_(source)
            return self._run(n, self.values), self.known[n.args[0]]
        if packet in _MOVES and (self.written or not all(_all(k) for k in operands)):
            return self._run(n, self.values), self._run(n, self.known)
        if n.target in BY_SHAPE or all(_all(k) for k in operands):
            return self._run(n, self.values), self._mask(val, True)
        if (torch.Tag.pointwise in n.target.tags or packet in _ELEMENTWISE) and isinstance(val, torch.Tensor):
            mask = self._elementwise(n)
            if n.target._schema.is_mutable:
                self.known[n.args[0]].copy_(mask)
                mask = self.known[n.args[0]]
            return self._run(n, self.values), mask
        return self._unknown(n)

    def _unknown(self, n: Node) -> tuple:
        for i in n.all_input_nodes if _writes(n) else ():
            _forget(self.known[i])
        val = n.meta.get("val")
        return self._zeros(val), self._mask(val, False)

    def _zeros(self, val):
        found = _filled(val, lambda v: torch.zeros((), dtype=v.dtype), self.written)
        return val if found is None else found

    def _mask(self, val, known: bool):
        found = _filled(val, lambda _: torch.tensor(known), self.written)
        return torch.tensor(known) if found is None else found

    def _elementwise(self, n: Node) -> torch.Tensor:
        shape = tuple(n.meta["val"].shape)
        masks = [self.known[i].expand(shape) for i in n.all_input_nodes]
        if n.target.overloadpacket is _ATEN.where and len(n.args) == 3:
            one, other = (self.known[a] if isinstance(a, Node) else torch.tensor(True) for a in n.args[1:])
            condition, one, other = (m.expand(shape) for m in (self.known[n.args[0]], one, other))
            return condition & torch.where(self.values[n.args[0]].expand(shape), one, other)
        return torch.stack(masks).all(0)

    @staticmethod
    def _run(n: Node, operands: dict[Node, object]):
        return n.target(*map_arg(n.args, operands.__getitem__), **map_arg(n.kwargs, operands.__getitem__))


def _writes(n: Node) -> bool:
    return bool(getattr(getattr(n.target, "_schema", None), "is_mutable", False))


def _filled(val, number: Callable[[torch.Tensor], torch.Tensor], own: bool):
    """Tensors of the shapes of `val`, all elements one number; own: each in memory of its own."""
    if isinstance(val, torch.Tensor):
        whole = number(val).expand(_shape(val))
        return whole.clone(memory_format=torch.contiguous_format) if own else whole
    return type(val)(_filled(v, number, own) for v in val) if isinstance(val, (list, tuple)) else None


def _is_unknown(known) -> bool:
    """Whether no element is known, as far as that is seen without looking at each."""
    return isinstance(known, torch.Tensor) and known.untyped_storage().nbytes() == 1 and known.numel() > 0 \
        and not bool(known.reshape(-1)[0])


def _shape(val: torch.Tensor) -> tuple[int, ...]:
    return tuple(1 if isinstance(d, torch.SymInt) else d for d in val.shape)


def _all(known) -> bool:
    return all(map(_all, known)) if isinstance(known, (list, tuple)) else bool(known.all())


def _forget(known) -> None:
    for mask in known if isinstance(known, (list, tuple)) else (known,):
        mask.zero_()
