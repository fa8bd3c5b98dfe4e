"""Phase 7: the plan, and the bytes of every file of the bundle. Nothing is written to disk yet."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from vlacompile.compiler.assemble.assemble import Parts
from vlacompile.compiler.assemble.assemble import assemble as put_together
from vlacompile.compiler.assemble.choose_engines import EngineChoice, choose_engines
from vlacompile.compiler.emit.onnx.attention_list import attention_list
from vlacompile.compiler.emit.tvm.bundle import for_this_processor
from vlacompile.compiler.graph.equal_values import bytes_of
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.staging.known_instructions import KnownInstruction, compile_instructions
from vlacompile.phases.choose_precision import Precise
from vlacompile.phases.emit import Emitted
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlacompile.phases.verify_staging import Verified
from vlacompile.recipe.precision_recipe import AUTO
from vlart.bundle.directory import ENCODED
from vlart.bundle.plan.plan import Plan
from vlart.bundle.plan.text import plan_text
from vlart.files.pieces import Content
from vlart.runtime.library import openvino_library
from vlart.verify.frames import Frame, frames_bytes
from vlart.verify.metrics import Metrics

PACKAGES = ("vlacompile", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Assembled:
    """plan, contents: of the bundle, {path in it: content}. local: the same for this machine's processor, if the bundle
    has stages compiled for another; None: this machine runs the bundle itself. provenance: the inputs that determine
    the bundle. frames, known: expected results of a replay."""

    plan: Plan
    contents: Mapping[str, Content] = field(repr=False)
    local: tuple[Plan, Mapping[str, Content]] | None = field(repr=False)
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
    policy, frames = verified.staging.policy(inputs.policy), precise.frames
    known = compile_instructions(inputs.spoken, precise.staged, frames[0])
    texts = () if inputs.only_spoken else inputs.texts
    parts = Parts(precise.engines, emitted.compiled.files, policy.decoder, policy.guidance, policy.calibration, texts,
                  known, golden=frames_bytes(list(frames)), buckets=policy.buckets)
    made = put_together(precise.staged, emitted.onnx, inputs.target, precise.recipe, parts)
    chosen = EngineChoice()
    if precise.recipe.stages.engine == AUTO:
        chosen = choose_engines(made.plan, made.contents, frames, inputs.policy.outputs, installed_engines(),
                                precise.recipe.stages.threads, progress)
    plan = chosen.applied(made.plan)
    local = None
    if emitted.compiled.local:  # this machine cannot run the target's code
        contents = {**made.contents, **emitted.compiled.local}
        local = for_this_processor(plan, contents), contents
    return Assembled(plan, made.contents, local, _provenance(inputs, verified, precise, emitted, chosen), frames, known)


def installed_engines() -> tuple[str, ...]:
    """The engines of this machine besides ONNX Runtime."""
    return ("openvino",) if openvino_library() else ()


def _provenance(inputs: Inputs, verified: Verified, precise: Precise, emitted: Emitted, chosen: EngineChoice) -> dict:
    """The inputs that determine the bundle, without times, paths or host names: equal inputs give equal bytes."""
    staging = verified.staging
    encoding = inputs.policy.encoding
    return {
        "policy": inputs.policy.name,
        "outputs": list(inputs.policy.outputs),
        **({"origin": dict(inputs.policy.origin)} if inputs.policy.origin else {}),
        "weights_sha256": _digest(staging.program),
        "target": asdict(inputs.target),
        "recipe": asdict(precise.recipe),
        "notes": [*staging.notes, *verified.notes, *(t.note for t in inputs.texts), *precise.notes,
                  *emitted.compiled.notes, *chosen.notes],
        "precision": precise.facts,
        "recorded_observations": len(inputs.policy.calibration),
        "staged_parity": {name: _numbers(metrics) for name, metrics in verified.parity.items()},
        "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
        "tvm": emitted.compiled.reports,
    } | ({"hub": dict(inputs.hub)} if inputs.hub else {}) | (
        {ENCODED: {"gives": list(encoding.gives), "reads": {n: list(s) for n, s in encoding.reads.items()}}}
        if encoding else {}) | (
        {"calibrated_on": dict(inputs.dataset)} if inputs.dataset else {}) | (
        {"engines": chosen.facts()} if chosen.concurrency else {}) | (
        {"attentions": listed} if (listed := [
            {"stage": n, **asdict(a)} for n, s in emitted.onnx.items() if precise.engines[n] == "tensorrt"
            for a in attention_list(s.model)]) else {}) | (
        {"layers": {name: {"layers": count, "stages": list(parts)} for name, (count, parts) in precise.layers.items()}}
        if precise.layers else {}) | (
        {"boundaries": [asdict(b) for b in precise.boundaries]} if precise.boundaries else {}) | (
        {"emission": fired} if (fired := [{"stage": name, **asdict(rule)} for name, stage in emitted.onnx.items()
                                          for rule in stage.fired]) else {})


def _numbers(metrics: Metrics) -> dict[str, float | None]:
    """An error relative to zeros is infinite, which JSON cannot hold: None."""
    return {name: x if math.isfinite(x) else None for name, x in asdict(metrics).items()}


def _digest(program: Program) -> str:
    """sha256 of the traced policy's constants, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(program.constants.items()):
        digest.update(name.encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()
