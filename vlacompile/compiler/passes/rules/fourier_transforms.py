"""Discrete Fourier transforms as products with constant matrices of cosines and sines, computed in float64."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from vlacompile.compiler.passes.rules.complex_numbers import Emitter, Pair, scale

_ATEN = torch.ops.aten
# Numbers beyond which a matrix is too large for a transform (64 MiB in f32).
LONGEST = 4096


def _resized(e: Emitter, x: Node, axis: int, size: int) -> Node:
    """Cut off, or with zeros behind."""
    have = x.meta["val"].shape[axis]
    if have > size:
        return e.do(_ATEN.slice.Tensor, x, axis, 0, size)
    pads = [0, 0] * (x.meta["val"].dim() - 1 - axis) + [0, size - have]
    return x if have == size else e.do(_ATEN.constant_pad_nd.default, x, pads, 0.0)


def _matrix(e: Emitter, n: int, rows: int, columns: int, factor: float, dtype: torch.dtype,
            twice: bool = False) -> Pair:
    """cos and sin of 2 pi r c / n, times factor. twice: rows stand for their mirror images too (irfft)."""
    if n > LONGEST:
        raise NotImplementedError(f"a transform of {n} numbers; the longest has {LONGEST}")
    turns = torch.outer(torch.arange(rows), torch.arange(columns)) % n
    angle = turns.to(torch.float64) * (2 * math.pi / n)
    weight = torch.full((rows, 1), factor, dtype=torch.float64)
    if twice:
        weight[1:(n + 1) // 2] *= 2
    kind = f"{'_twice' if twice else ''}_{str(dtype).split('.')[-1]}"
    name = f"dft_{n}_{rows}_{columns}_{factor:.3g}{kind}".replace(".", "p").replace("-", "m").replace("+", "")
    return Pair(e.constant(f"{name}__cos", (angle.cos() * weight).to(dtype)),
                e.constant(f"{name}__sin", (angle.sin() * weight).to(dtype)))


def _along(e: Emitter, x: Node, matrix: Node, axis: int) -> Node:
    last = x.meta["val"].dim() - 1
    if axis == last:
        return e.do(_ATEN.matmul.default, x, matrix)
    x = e.do(_ATEN.transpose.int, x, axis, last)
    return e.do(_ATEN.transpose.int, e.do(_ATEN.matmul.default, x, matrix), axis, last)


def _axis(x, dim: int) -> tuple[int, int]:
    """(axis, its size)"""
    shape = (x.re if isinstance(x, Pair) else x).meta["val"].shape
    return dim % len(shape), shape[dim]


def transform(e: Emitter, x, n: int | None = None, dim: int = -1, norm: str | None = None, *,
              inverse: bool = False) -> Pair:
    """fft and ifft of a pair or of a real value."""
    axis, size = _axis(x, dim)
    n = size if n is None else n
    real = x.re if isinstance(x, Pair) else x
    m = _matrix(e, n, n, n, scale(norm, n, inverse), real.meta["val"].dtype)
    re = _resized(e, real, axis, n)
    c, s = (_along(e, re, part, axis) for part in m)
    if not isinstance(x, Pair):
        return Pair(c, s if inverse else e.mul(s, -1))
    im = _resized(e, x.im, axis, n)
    ic, js = (_along(e, im, part, axis) for part in m)
    return Pair(e.sub(c, js), e.add(ic, s)) if inverse else Pair(e.add(c, js), e.sub(ic, s))


def to_half_spectrum(e: Emitter, x: Node, n: int | None = None, dim: int = -1, norm: str | None = None) -> Pair:
    """rfft"""
    axis, size = _axis(x, dim)
    n = size if n is None else n
    m = _matrix(e, n, n, n // 2 + 1, scale(norm, n, False), x.meta["val"].dtype)
    x = _resized(e, x, axis, n)
    return Pair(_along(e, x, m.re, axis), e.mul(_along(e, x, m.im, axis), -1))


def from_half_spectrum(e: Emitter, x, n: int | None = None, dim: int = -1, norm: str | None = None) -> Node:
    """irfft"""
    x = e.pair(x)
    axis, size = _axis(x, dim)
    n = 2 * (size - 1) if n is None else n
    m = _matrix(e, n, n // 2 + 1, n, scale(norm, n, True), x.re.meta["val"].dtype, twice=True)
    re, im = (_resized(e, part, axis, n // 2 + 1) for part in x)
    return e.sub(_along(e, re, m.re, axis), _along(e, im, m.im, axis))


def _axes(x, s, dim) -> list[tuple[int, int | None]]:
    """[(axis, length or None)] of a transform of several dimensions."""
    rank = len((x.re if isinstance(x, Pair) else x).meta["val"].shape)
    if dim is None:
        dim = range(rank) if s is None else range(rank - len(s), rank)
    lengths = [None] * len(dim) if s is None else [None if n == -1 else n for n in s]
    return list(zip([d % rank for d in dim], lengths, strict=True))


def _several(inverse: bool, default: tuple | None):
    def rule(e: Emitter, x, s=None, dim=default, norm=None) -> Pair:
        for axis, n in _axes(x, s, dim):
            x = transform(e, x, n, axis, norm, inverse=inverse)
        return x
    return rule


def _several_real(default: tuple | None):
    def rule(e: Emitter, x, s=None, dim=default, norm=None) -> Pair:
        *others, (axis, n) = _axes(x, s, dim)
        x = to_half_spectrum(e, x, n, axis, norm)
        for other, length in others:
            x = transform(e, x, length, other, norm)
        return x
    return rule


def _several_to_real(default: tuple | None):
    def rule(e: Emitter, x, s=None, dim=default, norm=None) -> Node:
        *others, (axis, n) = _axes(x, s, dim)
        for other, length in others:
            x = transform(e, x, length, other, norm, inverse=True)
        return from_half_spectrum(e, x, n, axis, norm)
    return rule


def short_time(e: Emitter, x: Node, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
               window: Node | None = None, normalized: bool = False, onesided: bool | None = None,
               return_complex: bool | None = None, *_, **__):
    """stft of a real value whose ends were padded before: [...,frequency,time]."""
    frames = e.do(_ATEN.unfold.default, x, x.meta["val"].dim() - 1, n_fft, hop_length or n_fft // 4)  # [...,time,n_fft]
    if window is not None:
        before = (n_fft - window.meta["val"].shape[0]) // 2
        after = n_fft - window.meta["val"].shape[0] - before
        if before + after:
            window = e.do(_ATEN.constant_pad_nd.default, window, [before, after], 0.0)
        frames = e.mul(frames, window)
    elif win_length not in (None, n_fft):
        raise NotImplementedError("a window of ones that is shorter than the transform")
    norm = "ortho" if normalized else None
    found = transform(e, frames, norm=norm) if onesided is False else to_half_spectrum(e, frames, norm=norm)
    found = Pair(*(e.do(_ATEN.transpose.int, part, -1, -2) for part in found))
    return found if return_complex else e.do(_ATEN.stack.default, list(found), -1)


FOURIER = {
    _ATEN.stft.default: short_time,
    _ATEN.fft_fft.default: transform,
    _ATEN.fft_ifft.default: lambda e, x, n=None, dim=-1, norm=None: transform(e, x, n, dim, norm, inverse=True),
    _ATEN.fft_rfft.default: to_half_spectrum,
    _ATEN.fft_irfft.default: from_half_spectrum,
    _ATEN.fft_fft2.default: _several(False, (-2, -1)),
    _ATEN.fft_ifft2.default: _several(True, (-2, -1)),
    _ATEN.fft_fftn.default: _several(False, None),
    _ATEN.fft_ifftn.default: _several(True, None),
    _ATEN.fft_rfft2.default: _several_real((-2, -1)),
    _ATEN.fft_rfftn.default: _several_real(None),
    _ATEN.fft_irfft2.default: _several_to_real((-2, -1)),
    _ATEN.fft_irfftn.default: _several_to_real(None),
}
