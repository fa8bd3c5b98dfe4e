"""Calls `torch.onnx` for one stage: without output, and with its table of functions cached. Must not know stages."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx_ir as ir
import torch
from onnxscript._framework_apis import torch_2_11 as onnxscript_for_torch

from vlacompile.compiler.emit.onnx.aten_ops import ATEN
from vlacompile.compiler.emit.onnx.quantised_ops import QUANTISED
from vlacompile.compiler.emit.onnx.simplify import simplify

# torch 2.13 lists onnxscript's functions at every export, and onnxscript 0.7.2 then parses the source of each: a third
# of a second, most of the time for a small stage.
_functions = functools.cache(onnxscript_for_torch.get_torchlib_ops)


def export(module: torch.nn.Module, args: tuple[torch.Tensor, ...], opset: int, inputs: Sequence[str],
           outputs: Sequence[str]) -> ir.Model:
    """inputs, outputs: names of the ports. Raises whatever torch.onnx and its translators raise."""
    with quietly(), functions_listed_once(), torch.no_grad():
        model = torch.onnx.export(module, args, dynamo=True, opset_version=opset, input_names=list(inputs),
                                  output_names=list(outputs), optimize=False, verbose=False,
                                  custom_translation_table=ATEN | QUANTISED).model
        simplify(model)
    return model


@contextlib.contextmanager
def functions_listed_once() -> Iterator[None]:
    listing = onnxscript_for_torch.get_torchlib_ops
    onnxscript_for_torch.get_torchlib_ops = _functions
    try:
        yield
    finally:
        onnxscript_for_torch.get_torchlib_ops = listing


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppresses progress output and logs of the exporter; its errors are exceptions."""
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
