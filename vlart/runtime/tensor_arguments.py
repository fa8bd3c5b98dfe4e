"""What callers give as a source's content, as libvlart takes it: NumPy arrays, torch tensors, and what becomes one."""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from typing import Any

import numpy as np

from vlart.errors import RuntimeFailure
from vlart.vocabulary import DTYPES, NUMPY_DTYPES, dtype_name

# A source declared in a dtype that no engine accepts may be written in that dtype as well.
_TAKEN = frozenset({("float64", "f32"), ("float16", "f32"), ("uint16", "i32"), ("int16", "i32"), ("int8", "i32")})


def _numpy_array(name: str, array: Any, where: Path) -> np.ndarray:
    """A torch tensor (torch itself is not needed at run time) of a dtype that NumPy lacks: as float32, if it is one of
    floating-point numbers."""
    try:
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            lacking = array.is_floating_point() and not hasattr(np, str(array.dtype).removeprefix("torch."))
            array = (array.float() if lacking else array).resolve_conj().resolve_neg().numpy()
        array = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:  # of NumPy's and torch's conversions
        raise RuntimeFailure(f'"{name}" was given a {type(array).__name__}', where=str(where), status="WRONG_DTYPE",
                             why=str(error).partition("\n")[0] or "it is no tensor",
                             fix="give a NumPy array or a torch tensor of the source's dtype") from error
    return array.astype(np.float32) if array.dtype.name in _WIDENED else array


_WIDENED = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # of the package ml_dtypes


def tensor_arguments(name: str, array: Any, where: Path, wanted: str) -> tuple:
    """(address, bytes, dtype, rank, dims) for a call of libvlart. wanted: the source's dtype in the plan. A contiguous
    NumPy array of that dtype is passed without a copy. Keep `array` alive until the call returns."""
    array = _numpy_array(name, array, where)
    if (array.dtype.name, wanted) in _TAKEN:
        with np.errstate(over="ignore"):  # what becomes infinite is refused as that
            array = array.astype(NUMPY_DTYPES[wanted])
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    dtype = dtype_name(array.dtype.str)
    if dtype is None:
        raise RuntimeFailure(f'"{name}" was given {array.dtype}', where=str(where), status="WRONG_DTYPE",
                             why=f"known: {', '.join(NUMPY_DTYPES)}", fix="convert the array")
    dims = (c.c_uint64 * max(1, array.ndim))(*array.shape)
    dims.array = array  # keeps it alive as long as the arguments
    return c.c_void_p(array.ctypes.data), array.nbytes, DTYPES[dtype], array.ndim, dims
