"""Derivatives that a function takes while it is traced, as samplers that are guided by a gradient do.

The tracer records ops before autograd sees them, and autograd saves what it needs of their parts: of a `linear` a view
of its weight, which nothing has recorded. Ops of which a derivative may be asked are therefore recorded in parts, and
results are found again by their memory.

Must not know policies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch._functorch import eager_transforms
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map_only

WITHIN_VMAP = "a derivative within torch.vmap"


def is_taken_apart(func, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether an op of these operands is recorded in parts."""
    return (torch.is_grad_enabled() and isinstance(func, torch._ops.OpOverload) and func._can_decompose()
            and any(t.requires_grad for t in tensors))


def in_parts(mode, func, args: tuple, kwargs: dict):
    """The op, its parts recorded by `mode`; NotImplemented if it has none."""
    with mode, sdpa_kernel(SDPBackend.MATH):  # of the fused attentions, the derivatives have no other ops
        if func is torch.ops.aten.batch_norm.default and not args[5]:  # its derivative reads nothing but these
            return _batch_norm(*args[:5], args[7])
        return func.decompose(*args, **kwargs)


def _batch_norm(x, weight, bias, mean, variance, eps: float):
    weight, bias, mean, scale = (t if t is None else t.reshape(-1, *(1,) * (x.dim() - 2)) for t in
                                 (weight, bias, mean, torch.rsqrt(variance + eps)))
    x = (x - mean) * (scale if weight is None else scale * weight)
    return x if bias is None else x + bias


class SavedResults:
    """What an op's derivative is computed from may be its result: autograd then reads another tensor in its memory."""

    def __init__(self) -> None:
        self._recorded: dict[tuple, torch.Tensor] = {}

    def note(self, results) -> None:
        """After an op was recorded."""
        if torch.is_grad_enabled():
            self._recorded.update((_place(t), t) for t in tree_leaves(results) if isinstance(t, FakeTensor))

    def recorded(self, tensor: FakeTensor) -> torch.Tensor | None:
        """The tensor that was recorded at this place in memory."""
        return self._recorded.get(_place(tensor))


def _place(t: torch.Tensor) -> tuple:
    return t.untyped_storage()._cdata, t.storage_offset(), tuple(t.shape), t.stride(), t.dtype


@contextlib.contextmanager
def by_autograd(module: torch.nn.Module) -> Iterator[None]:
    """Within this context torch.func.vjp and grad use autograd: their own wrappers hide from the tracer what it knows
    of a tensor. Weights ask for no derivatives: layers of which none is asked by an input are recorded whole."""
    asking = [p for p in module.parameters() if p.requires_grad]
    kept = {name: getattr(eager_transforms, name) for name in _BY_AUTOGRAD}
    for p in asking:
        p.requires_grad_(False)
    vars(eager_transforms).update(_BY_AUTOGRAD)
    try:
        yield
    finally:
        vars(eager_transforms).update(kept)
        for p in asking:
            p.requires_grad_(True)


def ask_nothing(inputs: Sequence[torch.Tensor]) -> None:
    """After a function may have called requires_grad_() of its inputs, which the exporter does not expect."""
    for t in inputs:
        if t.is_leaf:
            t.requires_grad_(False)


@contextlib.contextmanager
def _level() -> Iterator[bool]:
    """Instead of a level of wrappers: whether derivatives are taken around this transform too."""
    yield torch.is_grad_enabled()


def _alias(values, around: bool):
    """Other tensors of the same values, for which a transform asks."""
    def alias(t: torch.Tensor) -> torch.Tensor:
        if torch._C._functorch.is_functorch_wrapped_tensor(t):
            raise NotImplementedError(WITHIN_VMAP)
        return t.view_as(t) if t.requires_grad else t.detach()

    return tree_map_only(torch.Tensor, alias, values)


def _result(values, around: bool):
    return values if around else tree_map_only(torch.Tensor, torch.Tensor.detach, values)


def _grad(outputs, inputs, grad_outputs=None, retain_graph: bool = False, create_graph: bool = True):
    """A transform within another reads parts of the same graph. What a derivative starts from is a constant; autograd's
    own would be made like the result, and what follows from it alone would count as computed from that."""
    if grad_outputs is None:
        results = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        if all(isinstance(t, torch.Tensor) and t.dim() == 0 for t in results):
            outputs, grad_outputs = results, [torch.ones((), dtype=t.dtype) for t in results]
    return _autograd_grad(outputs, inputs, grad_outputs, True, create_graph)


_autograd_grad = eager_transforms._autograd_grad
_BY_AUTOGRAD = {"grad_increment_nesting": _level, "_wrap_all_tensors": _alias, "_undo_create_differentiable": _result,
                "_autograd_grad": _grad}
