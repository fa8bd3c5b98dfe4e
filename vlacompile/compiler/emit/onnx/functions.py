"""torch.onnx's table of functions that translate ATen ops, with ours. Must not know stages."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import torch
from onnxscript._framework_apis import torch_2_11 as onnxscript_for_torch
from torch.onnx._internal.exporter import _decomp, _registration

from vlacompile.compiler.emit.onnx.aten_ops import ATEN
from vlacompile.compiler.emit.onnx.quantised_ops import QUANTISED

# torch 2.13 lists onnxscript's functions for every table, and onnxscript 0.7.2 then parses the source of each.
_functions = functools.cache(onnxscript_for_torch.get_torchlib_ops)


@functools.cache
def table(opset: int) -> _registration.ONNXRegistry:
    """The functions for an ONNX opset. torch.onnx makes its table anew for every export, in a third of a second."""
    with quietly(), _listed_once():
        registry = _registration.ONNXRegistry().from_torchlib(opset)
    for target, function in (ATEN | QUANTISED).items():
        registry.register_op(target, function)
    return registry


@functools.cache
def decompositions_beside(opset: int) -> dict[torch._ops.OpOverload, Callable]:
    """{op: PyTorch's decomposition into other ops} of what the table does not have."""
    known = set(_decomp.get_onnx_implemented_overloads(table(opset)))
    return _decomp.create_onnx_friendly_decomposition_table(known)


@contextlib.contextmanager
def _listed_once() -> Iterator[None]:
    listing = onnxscript_for_torch.get_torchlib_ops
    onnxscript_for_torch.get_torchlib_ops = _functions
    try:
        yield
    finally:
        onnxscript_for_torch.get_torchlib_ops = listing


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppresses output and logs of torch.onnx and onnxscript; their errors are exceptions."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [x.level for x in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for x in loggers:
            x.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for x, level in zip(loggers, levels, strict=True):
                x.setLevel(level)
