"""Phase 5: which engine runs each stage, and in which precision its layers are stored and computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.emit.tensorrt.support import is_listed, require_supported
from vlacompile.compiler.emit.tvm.stage import chosen_stages
from vlacompile.compiler.fit.engine_memory import budget_of
from vlacompile.compiler.fit.planner import plan_fit
from vlacompile.compiler.fit.stage_needs import needs_of
from vlacompile.compiler.golden import golden_precise
from vlacompile.compiler.precision.assign.set_precision import set_precision
from vlacompile.compiler.precision.fp16.attention_masks import mask_values
from vlacompile.compiler.staging.known_instructions import require_spoken
from vlacompile.compiler.staging.staged_text import staged_text
from vlacompile.compiler.staging.stages import Staged
from vlacompile.hardware.target import Target
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlacompile.phases.verify_staging import Verified
from vlacompile.recipe.recipe import PrecisionRecipe, PrecisionRule, Recipe
from vlacompile.verify.frames import Frame
from vlacompile.vocabulary import COMPILED


@dataclass(frozen=True)
class Precise:
    """staged: as the engines compute it. engines: {stage: backend}; "library" for stages of which only the precomputed
    results for known instructions are kept. recipe: with the precisions that a board's memory requires. frames: golden
    frames in that precision. facts: for the manifest (compiler/precision/assign/outcome.py); None: all stages stay
    f32."""

    staged: Staged
    engines: Mapping[str, str]
    recipe: Recipe
    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()
    facts: Mapping | None = None

    @property
    def emitted(self) -> tuple[str, ...]:
        """The stages that an engine runs."""
        return tuple(s.name for s in self.staged.stages if self.engines[s.name] != "library")

    @property
    def compiled(self) -> frozenset[str]:
        """The stages that are compiled ahead of time, with their weights inside."""
        return frozenset(n for n, backend in self.engines.items() if backend in COMPILED)

    def text(self) -> str:
        """Engines, decisions, and the stages in their precision."""
        engines = [f'stage "{name}" runs on {backend}' for name, backend in self.engines.items()]
        return "\n".join([*engines, *self.notes]) + "\n\n" + staged_text(self.staged)


@phase(Phase.CHOOSE_PRECISION)
def choose_precision(inputs: Inputs, verified: Verified, *, progress: Progress) -> Precise:
    """Raises ConfigError, EmitError for ops that the board's TensorRT does not support, CalibrationError, BudgetError
    or PrecisionError."""
    staged, target = verified.staging.staged, inputs.target
    engines = engines_of(inputs, staged)
    _require_taken(staged, engines, target, progress)
    recipe = inputs.recipe
    if target.board is not None and not recipe.precision.reduced:
        known = len(inputs.spoken) if inputs.only_spoken else None
        recipe = replace(recipe, precision=fitting(staged, target, recipe.precision, known))
    if not recipe.precision.reduced:
        return Precise(staged, engines, recipe, verified.frames)
    found = set_precision(staged, inputs.policy, recipe.precision, target, progress)
    progress("record golden frames in that precision")
    frames = golden_precise(verified.frames, found.staged, inputs.policy.outputs, mask_values(staged))
    return Precise(found.staged, engines, recipe, tuple(frames), found.report, found.facts)


def engines_of(inputs: Inputs, staged: Staged) -> dict[str, str]:
    """{stage: backend}. Raises ConfigError if the recipe names stages that do not exist, and if no other text is
    accepted but no stage can be dropped."""
    absent = require_spoken(staged, inputs.spoken) if inputs.only_spoken else frozenset()
    wanted = inputs.recipe.stages
    ahead = chosen_stages([s.name for s in staged.stages], wanted.tvm) - absent
    compiled = "tvm_cuda" if wanted.tvm_device == "gpu" else "tvm"
    return {s.name: "library" if s.name in absent else compiled if s.name in ahead else inputs.target.backend
            for s in staged.stages}


def _require_taken(staged: Staged, engines: Mapping[str, str], target: Target, progress: Progress) -> None:
    """Raises EmitError for ops that an older TensorRT does not support, before precisions are chosen, which is slow."""
    if target.software is None or not is_listed(target.software.tensorrt):
        return
    progress(f"check which ops TensorRT {target.software.tensorrt} supports")
    for s in staged.stages:
        if engines[s.name] == target.backend:
            require_supported(s.name, emit_onnx(s, target.backend).model, target.software.tensorrt)


def fitting(staged: Staged, target: Target, recipe: PrecisionRecipe,
            instructions: int | None = None) -> PrecisionRecipe:
    """For a board, and a recipe that does not set the precision: fp16, and less where memory requires it. instructions:
    see plan_fit. Raises BudgetError if nothing fits."""
    fit = plan_fit(needs_of(staged, recipe), budget_of(target), instructions=instructions)
    fit.require()
    rules = tuple(PrecisionRule(*rule) for rule in fit.rules)
    return replace(recipe, base="fp16", layers="fp16", rule=rules, optional=True)
