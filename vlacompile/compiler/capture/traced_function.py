"""What is different for a function while it is traced: libraries do not check the values of arguments, which would
branch on inputs and change no result, and may be told that nothing is being compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.distributions import Distribution

from vlacompile.compiler.capture.constants import Constants
from vlacompile.compiler.capture.python_functions import PythonFunctions, code_beside_tensors


@contextlib.contextmanager
def within_the_function(constants: Constants, eager: bool) -> Iterator[None]:
    """To be entered within the traced function. eager: torch.compiler.is_compiling() is false, as when PyTorch runs
    it."""
    compiling = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = compiling and not eager
    try:
        with constants.draws.within_the_function(), PythonFunctions(constants), code_beside_tensors():
            yield
    finally:
        torch.compiler._is_compiling_flag = compiling


@contextlib.contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Within this context torch.distributions do not compare their parameters with their constraints; the first call of
    the function, before it is traced, did."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
