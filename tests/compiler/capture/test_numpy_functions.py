"""NumPy's functions of values of inputs: the numbers, types and aliases that NumPy gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlacompile import Policy, Source
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlart.errors import CaptureError

ROW = np.linspace(-1, 1, 8)


def _check(function) -> None:
    infer = lambda x: {"action": function(x.numpy())}
    policy = Policy("arrays", infer, {"x": Source("observation")}, {"x": torch.randn(1, 8)})
    program = capture(policy)
    for seed in range(3):
        x = torch.randn(1, 8, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            want = policy.infer(x=x.clone())["action"]
        got = execute(program, {"x": x})[0]["action"]
        assert got.shape == want.shape and torch.allclose(got.double(), want.double(), atol=1e-6)


def written_after(convert):
    """Whether a write into what `convert` gives is one into its operand decides the result."""
    def function(x):
        y = x * 1
        z = convert(y)
        z[:, 0] = 5
        return y + z

    return function


TYPES = {
    "class": lambda x: x.astype(np.float32), "name": lambda x: (x * 3).astype("int32") / 2,
    "of Python": lambda x: (x * 3).astype(int) * 0.5, "dtype": lambda x: x.astype(np.dtype("float64")),
    "uncopied": lambda x: x.astype(np.float32, copy=False) * 2, "its own": lambda x: np.zeros(x.shape, x.dtype) + x,
    "asked": lambda x: x * 2 if x.dtype == np.float32 else x, "bool": lambda x: (x > 0).astype(np.float32),
    "number": lambda x: x * np.float64(0.5) + np.float32(2) * x, "of all": lambda x: np.zeros_like(x, np.float64) + x,
}
ARRAYS = {
    "asarray": lambda x: np.asarray(x) * 1, "with type": lambda x: np.asarray(x, dtype=np.float32),
    "array": lambda x: np.array(x) * 2, "contiguous": lambda x: np.ascontiguousarray(x.T).T,
    "copied": lambda x: np.array(x, np.float64, copy=True), "axes": lambda x: np.array(x[0], ndmin=2),
    "of tensors": lambda x: np.asarray(torch.from_numpy(x)),
    "constant": lambda x: x + np.asarray([1.0] * 8, np.float32),
    "back": lambda x: torch.as_tensor(np.asarray(x, np.float32)) + torch.tensor(x),
}
WRITES = {
    "astype copies": written_after(lambda y: y.astype(np.float32)),
    "array copies": written_after(lambda y: np.array(y, np.float32)),
    "asarray does not": written_after(lambda y: np.asarray(y, np.float32)),
    "but to another type": written_after(lambda y: np.asarray(y, float)),
    "nor astype then": written_after(lambda y: y.astype(np.float32, copy=False)),
}
COMPARISONS = {
    "times": lambda x: (x > 0) * x, "equal": lambda x: (x == np.round(x)) * 1.0,
    "where": lambda x: np.where(x > 0, x, 0.0),
    "any": lambda x: (x > 0).any(axis=-1, keepdims=True) * x + (x > 0).mean(),
    "logic": lambda x: np.logical_and(x > 0, x < 1) * x + ~(x > 0) * 2.0,
}


@pytest.mark.parametrize("function", [*TYPES.values(), *ARRAYS.values(), *WRITES.values(), *COMPARISONS.values()],
                         ids=[*TYPES, *ARRAYS, *WRITES, *COMPARISONS])
def test_arrays_of_inputs_are_numpys(function):
    _check(function)


def test_writes_into_copies_and_views_differ():
    """The negative control of the cases above: they are told apart."""
    x = np.zeros((1, 8), np.float32)
    assert (written_after(np.array)(x) != written_after(np.asarray)(x)).any()


def test_a_number_of_an_array_decides_no_branch():
    with pytest.raises(CaptureError, match="decides what is computed") as error:
        _check(lambda x: x if x[0, 0] > 0 else -x)
    assert "test_numpy_functions.py" in error.value.where


def test_numpy_is_left_as_it_was():
    before = [np.array, np.asarray, np.ascontiguousarray, torch.from_numpy]
    _check(lambda x: np.asarray(x, np.float32))
    with pytest.raises(CaptureError):
        _check(np.unwrap)
    assert [np.array, np.asarray, np.ascontiguousarray, torch.from_numpy] == before
    assert np.asarray([1, 2], float).dtype == np.float64 and np.array(3, ndmin=2).shape == (1, 1)
