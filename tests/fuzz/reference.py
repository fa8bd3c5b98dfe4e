"""A policy in float64, so that what is left is its rounding in the dtype that it was written in; and a policy every one
of whose results is disturbed, as a reduced precision does: how far thresholds and rounding carry it then; and a policy
in which no value hides what it is computed from."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

NARROW = (torch.float32, torch.float16, torch.bfloat16)


def _widened(value: object) -> object:
    if isinstance(value, torch.Tensor) and value.dtype in NARROW:
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value


class InFloat64(TorchDispatchMode):
    """Within it every op computes in float64, and what it makes is float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*tree_map(_widened, args), **tree_map(_widened, kwargs or {}))
        return tree_map(_widened, made)


class Disturbed(TorchDispatchMode):
    """Within it every floating-point result of an op that computes is off by a random share of the largest number; a
    negative share: by the opposite. Roundings to whole numbers are exact."""

    def __init__(self, share: float):
        super().__init__()
        self.share, self.generator = share, torch.Generator().manual_seed(3)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        computes = not func.is_view and not func._schema.is_mutable and func.overloadpacket not in _ROUNDINGS and any(
            isinstance(a, torch.Tensor) and a.is_floating_point() for a in args)
        return tree_map(self._off, made) if computes else made

    def _off(self, value: object) -> object:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
            return value
        largest = value.abs().nan_to_num(0.0, 0.0).max().float()
        noise = torch.rand(value.shape, generator=self.generator) * 2 - 1
        return value + (noise * largest * self.share).to(value.dtype)


class NothingHidden(TorchDispatchMode):
    """Within it what is computed from `inputs` depends on its operands also where their values hide it: a comparison
    and an argmax come from the bits of what they read, element by element and row by row; what clips, saturates or
    loses the sign lets a share of its operand through, and so do x - x, x * x, masks of infinity, and a softmax and a
    norm, which over one element are constant (a compiler keeps their operand: one that is no number makes the result
    none)."""

    def __init__(self, inputs: Iterable[torch.Tensor], salt: int = 0):
        super().__init__()
        self.salt = salt  # other bits of the same numbers
        self._reached = WeakTensorKeyDictionary(dict.fromkeys(inputs, True))

    def __enter__(self):
        self._fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # the layers themselves, not one op for all of them
        self._plain = sdpa_kernel(SDPBackend.MATH)
        self._plain.__enter__()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self._plain.__exit__(*raised)
        torch.backends.mha.set_fastpath_enabled(self._fast)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if not any(t in self._reached for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)):
            return made
        made = self._shown(func, args, made)
        for t in (*tree_leaves(made), *(args[:1] if func._schema.is_mutable else ())):
            if isinstance(t, torch.Tensor):
                self._reached[t] = True
        return made

    def _shown(self, func, args, made):
        x, name = args[0] if args else None, func.overloadpacket
        if (not isinstance(x, torch.Tensor) or not isinstance(made, (torch.Tensor, tuple)) or func.is_view
                or func._schema.is_mutable):
            return made
        if isinstance(made, tuple):  # of a layer of norms, its result and statistics
            return (self._shown(func, args, made[0]), *made[1:]) if name in (_ATEN.native_layer_norm,
                                                                             _ATEN.native_group_norm) else made
        read = [a for a in args if isinstance(a, torch.Tensor)]
        if made.dtype is torch.bool and any(r.dtype is not torch.bool for r in read):
            salt = zlib.crc32(f"{name}{self.salt}".encode())  # not the same for `x > 0` and `isfinite(x)`
            return (_mixed(sum(map(_bits, read)) ^ salt) & 1).bool().expand(made.shape)
        if name in (_ATEN.argmax, _ATEN.argmin):
            dim = args[1] if len(args) > 1 else None
            bits = _bits(x).sum() if dim is None else _bits(x).sum(dim, *args[2:])
            return _mixed(bits).remainder(x.numel() if dim is None else x.shape[dim])
        if made.is_floating_point() and name in _MASKS and bool(made.isneginf().any()):
            return torch.where(made.isneginf(), _finite(x).expand(made.shape) - 1, made)
        of_itself = name in (_ATEN.sub, _ATEN.div, _ATEN.mul) and len(read) == 2 and read[0] is read[1]
        if made.is_floating_point() and (name in _OWN or of_itself):
            return made + SHOWN * _finite(x).to(made.dtype)
        if made.is_floating_point() and name in _OF_BOTH:
            return made + SHOWN * sum(map(_finite, read)).to(made.dtype)
        if made.is_floating_point() and str(name) in _OF_ROWS:
            dims = (args[2] if str(name) == "aten.linalg_vector_norm" else
                    list(range(-len(args[1]), 0)) if name is _ATEN.native_layer_norm else
                    list(range(1, x.dim())) if name is _ATEN.native_group_norm else args[1])
            shown = _finite(x).mean(dims, keepdim=made.dim() == x.dim())
            return made + SHOWN * shown.to(made.dtype)
        return made


SHOWN = 0.5  # the share of an operand that shows
_ATEN = torch.ops.aten
_OWN = frozenset({_ATEN.clamp, _ATEN.clamp_min, _ATEN.clamp_max, _ATEN.relu, _ATEN.hardtanh, _ATEN.sign, _ATEN.tanh,
                  _ATEN.sigmoid, _ATEN.abs, _ATEN.pow, _ATEN.cos, _ATEN.cosh})
_OF_BOTH = frozenset({_ATEN.hypot, _ATEN.maximum, _ATEN.minimum})
_ROUNDINGS = frozenset({_ATEN.round, _ATEN.floor, _ATEN.ceil, _ATEN.trunc})
_MASKS = frozenset({_ATEN.add, _ATEN.masked_fill, _ATEN.where})
_OF_ROWS = frozenset(f"aten.{name}" for name in ("_softmax", "_log_softmax", "_safe_softmax", "native_layer_norm",
                                                 "native_group_norm", "var", "std", "linalg_vector_norm"))


def _finite(x: torch.Tensor) -> torch.Tensor:
    return x.float().nan_to_num(0.0, 0.0, 0.0)


def _bits(x: torch.Tensor) -> torch.Tensor:
    """A number per element that says little else about it."""
    return _mixed((x.float().contiguous().view(torch.int32) if x.is_floating_point() else x).long())


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    for _ in range(3):
        bits = (bits ^ (bits >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    return bits ^ (bits >> 16)
