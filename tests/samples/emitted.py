"""A policy's stages as ONNX, run by ONNX Runtime as they are, without a bundle: quick enough for random programs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.emit.onnx.translatable import require_translatable
from vlacompile.compiler.emit.tensorrt.support import require_supported
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.policy.policy import Policy, as_taken
from vlacompile.recipe.recipe import load_recipe

TARGETS = {"onnxruntime": "host", "tensorrt": "orin-nano-8gb+jetpack-6.2"}


class Emitted:
    """Raises what a build raises. For the dialect "tensorrt" each op is one that TensorRT 10.3 has."""

    def __init__(self, policy: Policy, dialect: str):
        self.policy = policy
        self.staged = stage(capture(policy), load_target(TARGETS[dialect]), load_recipe(None)).staged
        require_translatable(self.staged)
        self.models = {s.name: emit_onnx(s, dialect).model for s in self.staged.stages}
        if dialect == "tensorrt":
            for name, model in self.models.items():
                require_supported(name, model, "10.3")
        self._sessions = {name: _session(model) for name, model in self.models.items()}

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        values = {n: as_taken(t).numpy() for n, t in inputs.items()}
        values |= {n: t.numpy() for n, t in self.staged.constants.items()}
        for s in self.staged.stages:
            given = {p.name: values[p.value] for p in s.inputs}
            values |= dict(zip((p.value for p in s.outputs), self._sessions[s.name].run(None, given), strict=True))
        return {n: values[n] for n in self.policy.outputs}


def _session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options,
                                        providers=["CPUExecutionProvider"])


def require_equal(policy: Policy, dialect: str, frames: list[Mapping[str, torch.Tensor]], tolerance: float = 0) -> None:
    """Every output is PyTorch's: equal, or within a share of its largest number."""
    emitted = Emitted(policy, dialect)
    for inputs in frames:
        with torch.no_grad():
            want = policy.infer(**{n: t.clone() for n, t in inputs.items()})
        got = emitted.run(inputs)
        for name in policy.outputs:
            expected = as_taken(want[name]).numpy()
            limit = tolerance * max(1.0, float(np.abs(expected).max(initial=0))) if tolerance else 0
            np.testing.assert_allclose(got[name].reshape(expected.shape), expected, rtol=0, atol=limit, err_msg=name)
