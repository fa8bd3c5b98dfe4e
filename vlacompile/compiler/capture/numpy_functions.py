"""NumPy's functions of values of inputs, while a policy's code is traced: torch._numpy has the same on tensors.

Must not know graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch._numpy as tnp
from torch._numpy import _dtypes, _dtypes_impl
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_any

_COPIES = (np.array,)
_AS_ARRAYS = (np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray)


def is_of_inputs(value) -> bool:
    return isinstance(value, (FakeTensor, tnp.ndarray))


def torch_type(dtype) -> torch.dtype:
    """NumPy's type, however it is given, as PyTorch's."""
    return _dtypes.dtype(_own_type(dtype)).torch_dtype


def _own_type(dtype):
    """NumPy's own types by name, which torch._numpy knows; others as they are."""
    numpys = isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic))
    return np.dtype(dtype).name if numpys else dtype


@contextlib.contextmanager
def numpy_of_inputs(made: Callable) -> Iterator[None]:
    """Within this context NumPy's functions take tensors, and arrays that stand for values of inputs. made: the new
    tensor of numbers, tensors and arrays in lists, as torch.tensor makes it."""
    changes = [*((tnp.ndarray, name, value) for name, value in _OF_ARRAYS.items()),
               (FakeTensor, "__array_ufunc__", _ufunc),
               (_dtypes.DType, "__init__", lambda self, arg: _make_type(self, _own_type(arg))),
               (_dtypes_impl, "is_scalar_or_symbolic", _is_python_number),
               (torch, "from_numpy", _from_numpy),
               *((np, f.__name__, _array(f, made)) for f in (*_COPIES, *_AS_ARRAYS))]
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            if value is None:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


def _ufunc(self, ufunc, method, *inputs, **kwargs):
    found = _same(ufunc)(*inputs, **kwargs) if method == "__call__" else NotImplemented
    return found.tensor if isinstance(self, torch.Tensor) and isinstance(found, tnp.ndarray) else found


def _function(self, function, types, args, kwargs):
    return _same(function)(*args, **kwargs)


def _same(function: Callable) -> Callable:
    of = tnp.linalg if getattr(function, "__module__", "") == "numpy.linalg" else tnp
    found = getattr(of, function.__name__, None)
    if found is None:
        raise NotImplementedError(f"numpy.{function.__name__} is not among NumPy's functions that torch has")
    return found


def _astype(self, dtype, order="K", casting="unsafe", subok=True, copy=True):
    return tnp.ndarray(self.tensor.to(torch_type(dtype), copy=copy))


def _from_numpy(array):
    return array.tensor if isinstance(array, tnp.ndarray) else _torch_from_numpy(array)


def _array(original: Callable, made: Callable) -> Callable:
    """A function that makes arrays of whatever is like one."""
    def array(object, dtype=None, *args, copy=original in _COPIES, ndmin=0, **kwargs):
        if not tree_any(is_of_inputs, object):
            given = {"copy": copy, "ndmin": ndmin} if original is np_array else {}
            return original(object, dtype, *args, **given, **kwargs)
        tensor = object.tensor if isinstance(object, tnp.ndarray) else object
        tensor = tensor if isinstance(tensor, torch.Tensor) else made(tensor)
        tensor = tensor.to(tensor.dtype if dtype is None else torch_type(dtype), copy=bool(copy))
        return tnp.ndarray(tensor.reshape((1,) * (ndmin - tensor.dim()) + tuple(tensor.shape)))

    return array


def _is_python_number(x) -> bool:
    """NumPy's own numbers have a type, as arrays have."""
    return _is_number(x) and not isinstance(x, np.generic)


np_array, _torch_from_numpy = np.array, torch.from_numpy
_make_type, _is_number = _dtypes.DType.__init__, _dtypes_impl.is_scalar_or_symbolic
_OF_ARRAYS = {"__array_ufunc__": _ufunc, "__array_function__": _function, "astype": _astype,
              "dtype": property(lambda self: np.dtype(_dtypes.dtype(self.tensor.dtype).name))}
