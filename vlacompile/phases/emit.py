"""Phase 6: every stage in the form that its engine reads: ONNX, or compiled ahead of time by TVM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlacompile.compiler.emit.onnx.model_text import model_text
from vlacompile.compiler.emit.onnx.onnx_stage import OnnxStage, emit_onnx
from vlacompile.compiler.emit.tensorrt.support import require_supported
from vlacompile.compiler.emit.tvm.bundle import Compiled, compile_ahead
from vlacompile.compiler.passes.legalise_types import coarsest
from vlacompile.phases.choose_precision import Precise
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlacompile.phases.verify_staging import Verified
from vlacompile.recipe.recipe import HOST_ENGINES


@dataclass(frozen=True)
class Emitted:
    """onnx: {stage: its graph}, including those compiled by TVM. compiled: TVM's libraries."""

    onnx: Mapping[str, OnnxStage]
    compiled: Compiled = field(default_factory=Compiled)

    def text(self) -> str:
        """The ONNX graph of every stage, one line per node."""
        return "\n".join(model_text(name, stage.model) for name, stage in self.onnx.items())


@phase(Phase.EMIT)
def emit(inputs: Inputs, verified: Verified, precise: Precise, *, progress: Progress) -> Emitted:
    """Raises EmitError, with the policy's line, for ops that a stage's engine does not have."""
    target, onnx = inputs.target, {}
    stored_in_fp16 = coarsest(verified.staging.program) != "f32"
    for s in precise.staged.stages:
        if s.name not in precise.emitted:
            continue
        progress(f"export {s.name} to ONNX")
        ahead = s.name in precise.compiled
        fp16 = stored_in_fp16 and precise.engines[s.name] in HOST_ENGINES
        onnx[s.name] = emit_onnx(s, "onnxruntime" if ahead else target.backend, fp16, inputs.recipe.tensorrt)
        if target.software is not None and not ahead:
            require_supported(s.name, onnx[s.name].model, target.software.tensorrt)
    compiled = compile_ahead({n: e for n, e in onnx.items() if n in precise.compiled}, precise.recipe.stages,
                             inputs.schedules, target, progress)
    return Emitted(onnx, compiled)
