"""What ops of complex numbers do to their real and imaginary parts. Each rule emits ops of real tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import ProgramEditor

_ATEN = torch.ops.aten


class Pair(NamedTuple):
    """A complex value: two real ones of the same shape, or of the same parts."""

    re: Node
    im: Node


class Emitter:
    """Emits in place of `node`. constant(name, tensor): a node that holds it."""

    def __init__(self, editor: ProgramEditor, node: Node):
        self.editor, self.node = editor, node

    def do(self, target, *args, **kwargs) -> Node:
        return self.editor.emit(target, args, kwargs, like=self.node)

    def add(self, a, b) -> Node:
        return self.do(_ATEN.add.Tensor, a, b)

    def sub(self, a, b) -> Node:
        return self.do(_ATEN.sub.Tensor, a, b)

    def mul(self, a, b) -> Node:
        """Of a node with a node or a number."""
        a, b = (a, b) if isinstance(a, Node) else (b, a)
        return self.do(_ATEN.mul.Tensor, a, b)

    def zeros(self, like: Node) -> Node:
        return self.do(_ATEN.zeros_like.default, like)

    def pair(self, x) -> Pair:
        """Of a pair, a real value, or a number."""
        if isinstance(x, Pair):
            return x
        return Pair(x, self.zeros(x)) if isinstance(x, Node) else Pair(complex(x).real, complex(x).imag)

    def constant(self, name: str, tensor: torch.Tensor) -> Node:
        return self.editor.constant(name, tensor)

    def absolute(self, z: Pair) -> Node:
        """Without squares that overflow: large * sqrt(1 + (small / large)^2)."""
        a, b = self.do(_ATEN.abs.default, z.re), self.do(_ATEN.abs.default, z.im)
        large, small = self.do(_ATEN.maximum.default, a, b), self.do(_ATEN.minimum.default, a, b)
        none = self.do(_ATEN.eq.Scalar, large, 0)
        ratio = self.do(_ATEN.div.Tensor, small, self.do(_ATEN.masked_fill.Scalar, large, none, 1.0))
        return self.mul(large, self.do(_ATEN.sqrt.default, self.add(self.mul(ratio, ratio), 1.0)))

    def turn(self, length, angle: Node) -> Pair:
        """The pair of that length and angle."""
        ends = (self.do(_ATEN.cos.default, angle), self.do(_ATEN.sin.default, angle))
        return Pair(*ends) if length is None else Pair(*(self.mul(length, e) for e in ends))


def product(e: Emitter, target, a, b, *rest) -> Pair:
    """Of any op that is linear in both."""
    if not isinstance(a, Pair) and not isinstance(a, complex):
        b = e.pair(b)
        return Pair(e.do(target, a, b.re, *rest), e.do(target, a, b.im, *rest))
    if not isinstance(b, Pair) and not isinstance(b, complex):
        a = e.pair(a)
        return Pair(e.do(target, a.re, b, *rest), e.do(target, a.im, b, *rest))
    a, b = e.pair(a), e.pair(b)
    return Pair(e.sub(e.do(target, a.re, b.re, *rest), e.do(target, a.im, b.im, *rest)),
                e.add(e.do(target, a.re, b.im, *rest), e.do(target, a.im, b.re, *rest)))


def _bilinear(e: Emitter, a, b, *rest) -> Pair:
    return product(e, e.node.target, a, b, *rest)


def _linear(e: Emitter, x, w, bias=None) -> Pair:
    y = product(e, _ATEN.linear.default, x, w)
    return y if bias is None else _added(e, y, bias)


def _einsum(e: Emitter, equation: str, operands, path=None) -> Pair:
    if len(operands) != 2:
        raise NotImplementedError("an einsum of complex numbers has two operands")
    call = lambda a, b: e.do(_ATEN.einsum.default, equation, [a, b])
    a, b = operands
    if not isinstance(a, Pair):
        return Pair(call(a, b.re), call(a, b.im))
    if not isinstance(b, Pair):
        return Pair(call(a.re, b), call(a.im, b))
    return Pair(e.sub(call(a.re, b.re), call(a.im, b.im)), e.add(call(a.re, b.im), call(a.im, b.re)))


def _added(e: Emitter, a, b, *, alpha=1) -> Pair:
    if isinstance(alpha, complex):
        raise NotImplementedError("a complex alpha")
    a, b = (e.pair(x) if isinstance(x, (Pair, complex)) else Pair(x, None) for x in (a, b))
    target = e.node.target if e.node.target in _SUMS else _ATEN.add.Tensor
    re = e.do(target, a.re, b.re, **({} if alpha == 1 else {"alpha": alpha}))
    minus = e.node.target is _ATEN.sub.Tensor
    if b.im is None:
        return Pair(re, _spread(e, a.im, re))
    if a.im is None:
        return Pair(re, _spread(e, _scaled(e, b.im, -alpha if minus else alpha), re))
    return Pair(re, (e.sub if minus else e.add)(a.im, _scaled(e, b.im, alpha)))


def _scaled(e: Emitter, x, factor):
    """Of a node or a number."""
    return (x if factor == 1 else e.mul(x, factor)) if isinstance(x, Node) else x * factor


def _subtracted(e: Emitter, b: Pair, a, alpha=1) -> Pair:
    """a - alpha b"""
    return _added(e, Pair(*(_scaled(e, part, -alpha) for part in b)), a)


def _spread(e: Emitter, im: Node, re: Node) -> Node:
    """The imaginary part in the shape of the real one, which a real operand may have broadcast."""
    if not isinstance(im, Node):
        return e.do(_ATEN.full_like.default, re, im)
    wanted = re.meta["val"].shape
    return im if im.meta["val"].shape == wanted else e.do(_ATEN.expand.default, im, list(wanted))


def _divided(e: Emitter, a, b) -> Pair:
    if not isinstance(b, (Pair, complex)):
        return Pair(e.do(_ATEN.div.Tensor, a.re, b), e.do(_ATEN.div.Tensor, a.im, b))
    return product(e, _ATEN.mul.Tensor, a, _reciprocal(e, b)) if isinstance(b, Pair) else _times(e, a, 1 / b)


def _times(e: Emitter, a, b) -> Pair:
    return product(e, _ATEN.mul.Tensor, a, b)


def _reciprocal(e: Emitter, z: Pair) -> Pair:
    """conj(z) / |z|^2, divided twice so that the square does not overflow."""
    size = e.absolute(z)
    once = Pair(*(e.do(_ATEN.div.Tensor, p, size) for p in z))
    return Pair(e.do(_ATEN.div.Tensor, once.re, size), e.mul(e.do(_ATEN.div.Tensor, once.im, size), -1))


def _power(e: Emitter, z: Pair, exponent) -> Pair:
    if not isinstance(exponent, (int, float)) or exponent != int(exponent) or not 1 <= exponent <= 16:
        raise NotImplementedError("a power of complex numbers has a whole exponent from 1 to 16")
    out = z
    for _ in range(int(exponent) - 1):
        out = _times(e, out, z)
    return out


def _angle(e: Emitter, z: Pair) -> Node:
    return e.do(_ATEN.atan2.default, z.im, z.re)


def _exp(e: Emitter, z: Pair) -> Pair:
    return e.turn(e.do(_ATEN.exp.default, z.re), z.im)


def _sgn(e: Emitter, z: Pair) -> Pair:
    size = e.absolute(z)
    size = e.do(_ATEN.masked_fill.Scalar, size, e.do(_ATEN.eq.Scalar, size, 0), 1.0)
    return Pair(*(e.do(_ATEN.div.Tensor, p, size) for p in z))


def _cast(e: Emitter, x, *, dtype=None, **_):
    if dtype is not None and not dtype.is_complex:
        return e.do(_ATEN._to_copy.default, x.re, dtype=dtype)
    part = None if dtype is None else torch.empty(0, dtype=dtype).real.dtype
    to = lambda n: n if part is None or n.meta["val"].dtype == part else e.do(_ATEN._to_copy.default, n, dtype=part)
    return Pair(*map(to, x)) if isinstance(x, Pair) else e.pair(to(x))


def _conjugate(e: Emitter, z):
    return Pair(z.re, e.mul(z.im, -1)) if isinstance(z, Pair) else z


RULES: dict[torch._ops.OpOverload, Callable] = {
    _ATEN.view_as_real.default: lambda e, z: e.do(_ATEN.stack.default, list(z), -1),
    _ATEN.view_as_complex.default: lambda e, x: Pair(*(e.do(_ATEN.select.int, x, -1, i) for i in (0, 1))),
    _ATEN.complex.default: lambda e, re, im: Pair(re, im),
    _ATEN.polar.default: lambda e, length, angle: e.turn(length, angle),
    _ATEN.real.default: lambda e, z: z.re,
    _ATEN.imag.default: lambda e, z: z.im,
    _ATEN.abs.default: lambda e, z: e.absolute(z),
    _ATEN.angle.default: _angle,
    _ATEN._conj.default: _conjugate,
    _ATEN._conj_physical.default: _conjugate,
    _ATEN.conj_physical.default: _conjugate,
    _ATEN.conj.default: _conjugate,
    _ATEN.add.Tensor: _added,
    _ATEN.sub.Tensor: _added,
    _ATEN.rsub.Scalar: _subtracted,
    _ATEN.rsub.Tensor: _subtracted,
    _ATEN.mul.Tensor: _times,
    _ATEN.mul.Scalar: _times,
    _ATEN.div.Tensor: _divided,
    _ATEN.div.Scalar: _divided,
    _ATEN.reciprocal.default: _reciprocal,
    _ATEN.square.default: lambda e, z: _times(e, z, z),
    _ATEN.pow.Tensor_Scalar: _power,
    _ATEN.exp.default: _exp,
    _ATEN.log.default: lambda e, z: Pair(e.do(_ATEN.log.default, e.absolute(z)), _angle(e, z)),
    _ATEN.sgn.default: _sgn,
    _ATEN._to_copy.default: _cast,
    _ATEN.linear.default: _linear,
    _ATEN.einsum.default: _einsum,
    _ATEN.zeros_like.default: lambda e, z, **_: Pair(e.zeros(z.re), e.zeros(z.re)),
    _ATEN.ones_like.default: lambda e, z, **_: Pair(e.do(_ATEN.ones_like.default, z.re), e.zeros(z.re)),
    **dict.fromkeys((_ATEN.matmul.default, _ATEN.mm.default, _ATEN.bmm.default, _ATEN.dot.default, _ATEN.outer.default,
                     _ATEN.kron.default, _ATEN.tensordot.default, _ATEN.mv.default), _bilinear),
}
_SUMS = frozenset({_ATEN.add.Tensor, _ATEN.sub.Tensor})
_VIEWS = frozenset({_ATEN.view.default, _ATEN._unsafe_view.default})
# What does the same to both parts: it moves numbers, or is linear in all that it reads but indices and conditions.
BOTH = frozenset(getattr(_ATEN, name) for name in (
    "view reshape _unsafe_view _reshape_alias transpose permute t swapaxes movedim moveaxis slice select narrow "
    "unsqueeze squeeze expand expand_as broadcast_to view_as flatten unflatten clone contiguous alias detach "
    "lift_fresh_copy repeat tile repeat_interleave split split_with_sizes chunk unbind sum mean neg negative gather "
    "index index_select take_along_dim roll flip cat concat stack where slice_scatter select_scatter index_put copy "
    "diagonal tril triu cumsum resolve_conj resolve_neg fft_fftshift fft_ifftshift diff".split()))


def both(e: Emitter, args, kwargs) -> Pair:
    """The op of `e.node` on each part. A real operand among complex ones has no imaginary part."""
    def part(a, which: int):
        if isinstance(a, Pair):
            return a[which]
        if isinstance(a, (list, tuple)):
            return type(a)(part(x, which) for x in a)
        if which and isinstance(a, Node) and a.meta["val"].is_floating_point():
            return e.zeros(a)
        return a

    target = _ATEN.reshape.default if e.node.target in _VIEWS else e.node.target  # the parts have other strides
    return Pair(*(e.do(target, *part(tuple(args), i), **kwargs) for i in (0, 1)))


def scale(norm: str | None, n: int, inverse: bool) -> float:
    if norm == "ortho":
        return 1 / math.sqrt(n)
    return 1 / n if inverse == (norm in (None, "backward")) else 1.0
