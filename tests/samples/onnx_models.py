"""The small policies as ONNX files with their sidecars."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from vlacompile.policy.policy import Policy


class _Positional(torch.nn.Module):
    def __init__(self, policy: Policy):
        super().__init__()
        self.module, self.names, self.wanted = policy.observe, tuple(policy.example_inputs), policy.outputs

    def forward(self, *inputs):
        values = self.module(**dict(zip(self.names, inputs, strict=True)))
        return tuple(values[n] for n in self.wanted)


def export(policy: Policy, path: Path, opset: int = 20, dynamo: bool = True, **settings) -> Path:
    """The policy as torch.onnx writes it (weights beside it with dynamo), and its sidecar."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(_Positional(policy).eval(), tuple(policy.example_inputs.values()), path, dynamo=dynamo,
                              opset_version=opset, input_names=list(policy.example_inputs),
                              output_names=list(policy.outputs), verbose=False, **settings)
    finally:
        logging.disable(logging.NOTSET)
    sidecar(policy, path)
    return path


def sidecar(policy: Policy, path: Path) -> None:
    lines = []
    for name, source in policy.sources.items():
        lines += [f'[inputs."{name}"]', f'update = "{source.update}"']
        if policy.example_inputs[name].dtype == torch.int64:
            lines.append("range = [0, 49]")
    path.with_suffix(".sources.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def original(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What onnxruntime makes of the file itself."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
