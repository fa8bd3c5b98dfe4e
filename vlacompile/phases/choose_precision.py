"""Phase 5: which engine runs each stage, and in which precision its layers are stored and computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.emit.tensorrt.support import is_listed, require_supported
from vlacompile.compiler.emit.tvm.stage import chosen_stages
from vlacompile.compiler.fit.engine_memory import budget_of
from vlacompile.compiler.fit.planner import plan_fit
from vlacompile.compiler.fit.stage_needs import needs_of
from vlacompile.compiler.golden_of_layers import golden_of_layers
from vlacompile.compiler.golden_precise import golden_precise
from vlacompile.compiler.precision.assign.set_precision import set_precision
from vlacompile.compiler.precision.fp16.attention_masks import mask_values
from vlacompile.compiler.precision.fp16.narrow_values import Boundary, Narrowed, narrow_values
from vlacompile.compiler.staging.known_instructions import require_spoken
from vlacompile.compiler.staging.roll_depth import roll_depth
from vlacompile.compiler.staging.staged_text import staged_text
from vlacompile.compiler.staging.stages import Staged
from vlacompile.hardware.target import Target
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlacompile.phases.verify_staging import Verified
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe, PrecisionRule
from vlacompile.recipe.recipe import Recipe
from vlart.verify.frames import Frame
from vlart.vocabulary import COMPILED


@dataclass(frozen=True)
class Precise:
    """staged: as the engines compute it. engines: {stage: backend}; "library" for stages of which only the precomputed
    results for known instructions are kept. recipe: with the precisions that a board's memory requires. frames: golden
    frames in that precision. facts: for the manifest (compiler/precision/assign/outcome.py); None: all stages stay
    f32. boundaries: edges between stages that were in f32. layers: {stage whose equal layers became a loop: (how
    many, the stages that stand for it)}."""

    staged: Staged
    engines: Mapping[str, str]
    recipe: Recipe
    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()
    facts: Mapping | None = None
    boundaries: tuple[Boundary, ...] = ()
    layers: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)

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
    known = len(inputs.spoken) if inputs.only_spoken else None
    if target.board is not None and not recipe.precision.reduced:
        recipe = replace(recipe, precision=fitting(staged, target, recipe.precision, known))
    looped = _looped(inputs, staged, recipe, engines, known)
    if not recipe.precision.reduced:
        return _by_layer(Precise(staged, engines, recipe, verified.frames), looped)
    found = set_precision(staged, verified.staging.policy(inputs.policy), recipe.precision, target, progress)
    crossing = narrow_values(found.staged) if recipe.precision.fp16_values else Narrowed(found.staged)
    progress("record golden frames in that precision")
    frames = golden_precise(verified.frames, crossing.staged, inputs.policy.returned, mask_values(staged))
    return _by_layer(Precise(crossing.staged, engines, recipe, tuple(frames), found.report, found.facts,
                             crossing.boundaries), looped)


def _looped(inputs: Inputs, staged: Staged, recipe: Recipe, engines: Mapping[str, str],
            known: int | None) -> tuple[str, ...]:
    """The stages whose equal layers become a loop: of a board those where its memory asks for it, unless the recipe
    says which. What is stored of known instructions is no loop's."""
    taken = [s.name for s in staged.stages if engines[s.name] not in (*COMPILED, "library")
             and not (inputs.spoken and {staged.program.sources[n].update for n in s.sources} <= {"task", "static"})]
    if recipe.stages.depth == "loop":
        return tuple(taken)
    if recipe.stages.depth == "unrolled" or inputs.target.board is None:
        return ()
    fit = plan_fit(needs_of(staged, recipe.precision), budget_of(inputs.target), instructions=known)
    by_layer = {s.engine for s in fit.stages if s.layers}
    return tuple(s.stage for s in fit.stages if s.engine in by_layer and s.stage in taken)


def _by_layer(precise: Precise, names: tuple[str, ...]) -> Precise:
    """With the layers of these stages as loops."""
    if not names:
        return precise
    rolled = roll_depth(precise.staged, names)
    engines = dict(precise.engines)
    for name, (_, parts) in rolled.layers.items():
        engines |= dict.fromkeys(parts, engines.pop(name))
    counts = {value: rolled.staged.types[value].dims[0] for value, _ in rolled.rows.values()}
    return replace(precise, staged=rolled.staged, engines=engines, layers=rolled.layers,
                   frames=golden_of_layers(precise.frames, rolled.rows, counts),
                   notes=(*precise.notes, *(f"layers: {note}" for note in rolled.notes)))


def engines_of(inputs: Inputs, staged: Staged) -> dict[str, str]:
    """{stage: backend}. Raises ConfigError if the recipe names stages that do not exist, and if no other text is
    accepted but no stage can be dropped."""
    absent = require_spoken(staged, inputs.spoken) if inputs.only_spoken else frozenset()
    wanted = inputs.recipe.stages
    ahead = chosen_stages([s.name for s in staged.stages], wanted.tvm) - absent
    compiled = "tvm_cuda" if wanted.tvm_device == "gpu" else "tvm"
    other = inputs.target.backend if wanted.engine in (None, AUTO) else wanted.engine
    return {s.name: "library" if s.name in absent else compiled if s.name in ahead else other for s in staged.stages}


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
