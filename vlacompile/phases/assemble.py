"""Phase 7: the plan, and the bytes of every file of the bundle. Nothing is written to disk yet."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch

from vlacompile.bundle.plan.plan import Plan
from vlacompile.bundle.plan.text import plan_text
from vlacompile.compiler.assemble.assemble import Parts
from vlacompile.compiler.assemble.assemble import assemble as put_together
from vlacompile.compiler.emit.tvm.bundle import for_this_processor
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.staging.known_instructions import KnownInstruction, compile_instructions
from vlacompile.phases.choose_precision import Precise
from vlacompile.phases.emit import Emitted
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlacompile.phases.verify_staging import Verified
from vlacompile.verify.frames import Frame, frames_bytes

PACKAGES = ("vlacompile", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Assembled:
    """plan, contents: of the bundle, {path in it: bytes}. local: the same for this machine's processor, if the bundle
    has stages compiled for another; None: this machine runs the bundle itself. provenance: the inputs that determine
    the bundle. frames, known: expected results of a replay."""

    plan: Plan
    contents: Mapping[str, bytes] = field(repr=False)
    local: tuple[Plan, Mapping[str, bytes]] | None = field(repr=False)
    provenance: Mapping = field(repr=False)
    frames: tuple[Frame, ...] = field(repr=False)
    known: tuple[KnownInstruction, ...] = field(repr=False)

    def text(self) -> str:
        """The plan, as in the bundle's plan.txt."""
        return plan_text(self.plan)


@phase(Phase.ASSEMBLE)
def assemble(inputs: Inputs, verified: Verified, precise: Precise, emitted: Emitted, *,
             progress: Progress) -> Assembled:
    """Raises ConfigError if lanes, actions or guards of the recipe do not fit the policy."""
    progress("lay out the bundle")
    policy, frames = inputs.policy, precise.frames
    known = compile_instructions(inputs.spoken, precise.staged, frames[0])
    texts = () if inputs.only_spoken else inputs.texts
    parts = Parts(precise.engines, emitted.compiled.files, policy.decoder, policy.guidance, policy.calibration, texts,
                  known, frames_bytes(list(frames)))
    made = put_together(precise.staged, emitted.onnx, inputs.target, precise.recipe, parts)
    local = None
    if emitted.compiled.local:  # this machine cannot run the target's code
        contents = {**made.contents, **emitted.compiled.local}
        local = for_this_processor(made.plan, contents), contents
    return Assembled(made.plan, made.contents, local, _provenance(inputs, verified, precise, emitted), frames, known)


def _provenance(inputs: Inputs, verified: Verified, precise: Precise, emitted: Emitted) -> dict:
    """The inputs that determine the bundle, without times, paths or host names: equal inputs give equal bytes."""
    staging = verified.staging
    return {
        "policy": inputs.policy.name,
        "outputs": list(inputs.policy.outputs),
        "weights_sha256": _digest(staging.program),
        "target": asdict(inputs.target),
        "recipe": asdict(precise.recipe),
        "notes": [*staging.notes, *(t.note for t in inputs.texts), *precise.notes, *emitted.compiled.notes],
        "precision": precise.facts,
        "recorded_observations": len(inputs.policy.calibration),
        "staged_parity": {name: asdict(metrics) for name, metrics in verified.parity.items()},
        "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
        "tvm": emitted.compiled.reports,
    }


def _digest(program: Program) -> str:
    """sha256 of the traced policy's constants, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(program.constants.items()):
        digest.update(name.encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
