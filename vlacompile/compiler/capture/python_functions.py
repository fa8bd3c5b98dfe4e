"""Functions of PyTorch that are no ops, as a policy's code calls them while it is traced: copies, NumPy, texts, lists.

Must not know graphs.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch._numpy as tnp
from torch._functorch import predispatch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_any

from vlacompile.compiler.capture import packed_sequences, robot_slices
from vlacompile.compiler.capture.constants import Constants
from vlacompile.compiler.capture.numpy_functions import is_of_inputs, numpy_of_inputs, torch_type
from vlacompile.compiler.capture.robot_slices import dims_of, is_place

_TENSOR = torch.Tensor
# The axis that torch.vmap hides and shows again: the tracer records these calls, whatever they are of.
_BATCHES = {predispatch._add_batch_dim: torch._C._functorch._add_batch_dim,
            predispatch._remove_batch_dim: torch._C._functorch._remove_batch_dim}
_MAKES = (torch.tensor, torch.as_tensor, torch.asarray)


class PythonFunctions(TorchFunctionMode):
    """To be entered within the traced function: modes of the tracer then come after it."""

    def __init__(self, constants: Constants):
        super().__init__()
        self.constants = constants

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is _TENSOR.__setitem__ and self._wrote(*args):
            return None
        if func == _TENSOR.data.__get__:  # it goes around the ops that are recorded
            return args[0].detach()
        packed = packed_sequences.call(func, args, kwargs, self.constants.assertions)
        if packed is not None:
            return packed
        if func in _BATCHES and self.constants.is_constant(args[0]):
            if self.constants.batches:
                with _disable_current_modes(), torch._C.DisableTorchFunction():
                    return _BATCHES[func](*args)
            args = (self.constants.recorded_copy(args[0]), *args[1:])
        if func in _MAKES and tree_any(is_of_inputs, args[0]):
            return _made(args[0], **kwargs)
        if func is torch._assert and args and isinstance(args[0], FakeTensor):  # it computes nothing
            self.constants.assertions.append(str(args[1]) if len(args) > 1 else "")
            return None
        if func in (_TENSOR.item, _TENSOR.tolist) and args and isinstance(args[0], FakeTensor):
            return _numbers(func, args[0])
        if func is _TENSOR.__getitem__:
            args = _selected(*(robot_slices.read(*args) if robot_slices.has_slices(args[1]) else args))
        if func in (torch.narrow, _TENSOR.narrow) and len(args) == 4 and is_place(args[2]):
            return robot_slices.narrow(*args)
        if args and isinstance(args[0], FakeTensor) and func in _OF_INPUTS:
            return _OF_INPUTS[func](*args, **kwargs)
        if "generator" in kwargs:
            with self.constants.draws.by(kwargs["generator"]):
                return func(*args, **kwargs)
        return func(*args, **kwargs)


    def _wrote(self, into: torch.Tensor, index, value) -> bool:
        """Whether what `into[index] = value` does is done."""
        if self.constants.set_items(into, index, value):
            return True
        if not robot_slices.has_places(index):
            return False
        self.constants.to_be_written(into)
        if _is_at_places(index):
            _write(into.__getitem__(index), value)
            return True
        return robot_slices.write(into, index, value)


def _made(data, dtype: torch.dtype | None = None, **layout) -> torch.Tensor:
    """A new tensor of numbers and of tensors of one element each, nested in lists, or of an array."""
    if isinstance(data, tnp.ndarray):
        data = data.tensor
    if isinstance(data, torch.Tensor):
        return data.clone() if dtype is None else data.to(dtype, copy=True)
    elements = [d.reshape(()) if isinstance(d, torch.Tensor) else _made(d) if tree_any(is_of_inputs, d) else
                torch.tensor(d) for d in data]
    common = functools.reduce(torch.promote_types, (e.dtype for e in elements))
    return torch.stack([e.to(dtype or common) for e in elements])


def _numbers(func: Callable, tensor: torch.Tensor):
    """What `item` and `tolist` give: numbers that are known, else tensors without dimensions, with which one computes
    as with numbers (in the tensor's own precision, not Python's)."""
    if func is _TENSOR.tolist and tensor.dim():
        return [_numbers(func, row) for row in tensor.unbind()]
    value = _TENSOR.item(tensor)
    if not isinstance(value, (torch.SymFloat, torch.SymInt, torch.SymBool)):
        return value
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)
    return tensor.reshape(()).to(torch.int64 if whole else tensor.dtype)


def _selected(tensor: torch.Tensor, index) -> tuple:
    """(tensor, index) with the same items, without indices that are tensors of one number: PyTorch reads those as
    Python's numbers. Beside indices that are tensors of several: only then the items are a copy, as here."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not any(isinstance(p, torch.Tensor) and p.dim() for p in parts) or not any(is_place(p) for p in parts):
        return tensor, index
    taken = dims_of(tensor, parts)
    for i in reversed(range(len(parts))):
        if is_place(parts[i]):
            dim = sum(taken[:i])
            place = torch.where(parts[i] < 0, parts[i] + tensor.shape[dim], parts[i])
            tensor = tensor.index_select(dim, place.reshape(1)).squeeze(dim)
            del parts[i]
    return tensor, tuple(parts)


def _is_at_places(index) -> bool:
    """Whether an index gives a view of the tensor, at a place that the robot alone knows."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is ... or (isinstance(p, (int, slice, np.integer)) and not isinstance(p, bool))
               or is_place(p) for p in parts) and any(isinstance(p, torch.Tensor) for p in parts)


def _write(view: torch.Tensor, value) -> None:
    """As `into[index] = value` does with the view that the index gives."""
    if not isinstance(value, torch.Tensor):
        view.fill_(value)
        return
    while value.dim() > view.dim() and value.shape[0] == 1:
        value = value[0]
    view.copy_(value)


def _covariances(x: torch.Tensor, *, correction: int = 1, fweights=None, aweights=None) -> torch.Tensor:
    """torch.cov, whose own code looks at weights that may be missing."""
    if fweights is not None or aweights is not None or x.is_complex() or x.dim() > 2:
        return _COV(x, correction=correction, fweights=fweights, aweights=aweights)
    x = (x if x.is_floating_point() else x.float()).reshape(-1 if x.dim() > 1 else 1, x.shape[-1] if x.dim() else 1)
    x = x - x.mean(1, keepdim=True)
    return (x @ x.mT / max(x.shape[1] - correction, 0)).squeeze()


def _correlations(x: torch.Tensor) -> torch.Tensor:
    if x.is_complex() or x.dim() > 2:
        return _CORRCOEF(x)
    c = _covariances(x)
    if not c.dim():
        return c / c
    deviations = c.diagonal().sqrt()
    return (c / deviations[:, None] / deviations).clamp(-1, 1)


_COV, _CORRCOEF = torch.cov, torch.corrcoef
_OF_INPUTS: dict[Callable, Callable] = {
    _TENSOR.__deepcopy__: lambda tensor, memo: memo.setdefault(id(tensor), tensor.clone()),
    torch.cov: _covariances, _TENSOR.cov: _covariances, torch.corrcoef: _correlations, _TENSOR.corrcoef: _correlations,
    _TENSOR.numpy: lambda tensor, force=False: tnp.ndarray(tensor),
    _TENSOR.__array__: lambda tensor, dtype=None: tnp.ndarray(
        tensor if dtype is None else tensor.to(torch_type(dtype))),
    _TENSOR.__format__: lambda tensor, spec: f"<value of an input, {spec}>"}


@contextlib.contextmanager
def code_beside_tensors() -> Iterator[None]:
    """Within this context NumPy's functions and scripted modules are called with values of inputs."""
    def call(module, *args, **kwargs):  # the tracer calls forward() of a script with the module itself as first operand
        return module._c._get_method("forward")(*args, **kwargs)

    scripts = torch.jit.RecursiveScriptModule
    scripts.__call__ = call
    try:
        with numpy_of_inputs(_made):
            yield
    finally:
        del scripts.__call__
