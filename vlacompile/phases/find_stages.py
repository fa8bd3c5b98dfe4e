"""Phase 3: rewrites the graph, re-rolls its loops, and divides it into stages by what each value depends on."""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.compiler.capture.export import capture as trace
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.rolled_loop import RolledLoop, size_of
from vlacompile.compiler.graph.work_bound import bounded
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.pass_list import FUSED_PASSES, LAST_PASSES, LOOP_PASSES, graph_passes
from vlacompile.compiler.passes.pass_manager import run_passes
from vlacompile.compiler.passes.preallocate_caches import PreallocateCaches
from vlacompile.compiler.passes.rules.growing_values import growing_values
from vlacompile.compiler.passes.split_large_linears import SplitLargeLinears
from vlacompile.compiler.staging.choose_form import fuses
from vlacompile.compiler.staging.choose_solver import choose_solver
from vlacompile.compiler.staging.find_loop import LoopSearch, find_loop
from vlacompile.compiler.staging.guide_flow import MAX_GUIDANCE, guide_flow
from vlacompile.compiler.staging.partition import partition
from vlacompile.compiler.staging.resolve_ends import resolve_ends
from vlacompile.compiler.staging.staged_text import staged_text
from vlacompile.compiler.staging.stages import Staged, build_stages
from vlacompile.hardware.board import MIB
from vlacompile.hardware.target import Target
from vlacompile.phases.capture import Captured
from vlacompile.phases.phase import Phase, Progress, phase, silent
from vlacompile.phases.read_inputs import Inputs
from vlacompile.policy.policy import Policy
from vlacompile.recipe.recipe import Recipe
from vlart.errors import ConfigError


@dataclass(frozen=True)
class Staging:
    """program: as traced. staged: in f32. notes: what was rewritten, re-rolled, folded and merged. complete: False if a
    loop was traced in part but not found by the re-roller. written: the program before a loop was given fewer
    evaluations or guidance; None: no loop was. guided: the policy with the sources of guidance that was added to it."""

    program: Program
    staged: Staged
    notes: tuple[str, ...]
    complete: bool = True
    written: Program | None = None
    guided: Policy | None = None

    def policy(self, given: Policy) -> Policy:
        """given: the policy as it came. Returns it with the inputs of the stages."""
        return self.guided or given

    def text(self) -> str:
        """The stages with their graphs, one line per node; then what was rewritten and merged."""
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([staged_text(self.staged).rstrip("\n"), *notes]) + "\n"


@phase(Phase.FIND_STAGES)
def find_stages(inputs: Inputs, captured: Captured, *, progress: Progress) -> Staging:
    """Raises StagingError if the graph cannot be divided, or if the work exceeds its bound."""
    progress("rewrite the graph and divide it into stages")
    return stage(captured.program, inputs.target, inputs.recipe, inputs.policy if inputs.weights else None, progress)


def stage(program: Program, target: Target, recipe: Recipe, policy: Policy | None = None,
          progress: Progress = silent) -> Staging:
    """Runs the graph passes, histories, loop search, solver choice, partition and construction of stages. policy:
    needed for its observations, if the recipe allows the loop an action error."""
    traced, notes = program, list(program.notes)
    minimum = target.launch.min_stage_flops if recipe.stages.min_flops is None else recipe.stages.min_flops
    sized = _sized(target, recipe)
    program, found = _rolled(program, minimum, notes, sized)
    complete, written, guided = not program.iterations, None, None
    if complete and policy is not None and _is_guided(recipe, policy):
        bound = recipe.action.max_guidance
        added = guide_flow(program, policy, MAX_GUIDANCE if bound is None else bound)
        notes.append(f"guidance: {added.note}")
        written, program, policy = program, added.program, added.policy
        guided = added.policy
    if found and complete and policy is not None and recipe.loop.max_action_error > 0:
        again = lambda other: _rolled(trace(other, whole=True), minimum, [], sized)[0]
        choice = choose_solver(program, policy, recipe.loop, again, progress)
        notes += [f"solver: {note}" for note in choice.notes]
        written = written or (None if choice.sampling is None else program)
        program = choice.program
    if found and fuses(program, target, recipe.loop, recipe.precision):
        program = _rewritten(program, FUSED_PASSES, notes)
    program = _rewritten(program, LAST_PASSES, notes)
    with bounded("partition", size_of(program)):
        parts = partition(program, minimum)
    notes += [f"merged: {note}" for note in parts.merged]
    with bounded("build_stages", size_of(program)):
        staged = build_stages(parts)
    return Staging(traced, staged, tuple(notes), complete, written, guided)


def _is_guided(recipe: Recipe, policy: Policy) -> bool:
    """Whether the compiler adds real-time chunking's guidance: not where the policy's own function has it. Raises
    ConfigError for a bound that such a function would not obey."""
    action = recipe.action
    if action.max_guidance is not None and policy.guidance is not None:
        raise ConfigError(f"action.max_guidance = {action.max_guidance:g} bounds nothing",
                          where=f'recipe "{recipe.name}", policy "{policy.name}"',
                          why="its own function has the guidance", fix="drop max_guidance from the recipe")
    return action.consume == "realtime" and policy.guidance is None and action.max_guidance != 0


def _sized(target: Target, recipe: Recipe) -> tuple:
    """The passes that a board's memory requires: no weight may exceed its largest single allocation, in fp16 or in the
    recipe's precision."""
    if target.board is None:
        return ()
    width = 4 if recipe.precision.reduced and recipe.precision.base == "fp32" else 2
    return (SplitLargeLinears(target.board.memory.contiguous_mib * MIB // width),)


def _rolled(program: Program, min_flops: int, notes: list[str], sized: tuple = ()) -> tuple[Program, bool]:
    """(the program after the passes with its loops re-rolled, whether there are any)"""
    passes = (*graph_passes(is_translated, decompositions), *sized, DelayFrames(min_flops))
    found = _with_caches(program, passes) or _searched(program, passes)
    ended = resolve_ends(found.loop.program)
    notes += [*found.notes, *(f"loop: {note}" for note in (*found.loop.notes, *ended.notes))]
    return (_rewritten(ended.program, LOOP_PASSES, notes), True) if found.loop.found else (ended.program, False)


@dataclass(frozen=True)
class _Searched:
    loop: LoopSearch
    notes: tuple[str, ...]


def _searched(program: Program, passes: tuple) -> _Searched:
    program, notes = run_passes(program, passes)
    with bounded("find_loop", size_of(program)):
        return _Searched(find_loop(program), tuple(notes))


def _with_caches(program: Program, passes: tuple) -> _Searched | None:
    """The search with memory for all steps in the place of what grows with each; None where nothing does, or where the
    steps are no loop all the same: then it would only be larger."""
    steps = growing_values(program).steps
    if not steps:
        return None
    found = _searched(program, (PreallocateCaches(), *passes))
    loops = [n.target.iterations for n in found.loop.program.graph.nodes if isinstance(n.target, RolledLoop)]
    return found if any(k >= max(2, steps - 1) for k in loops) else None


def _rewritten(program: Program, passes: tuple, notes: list[str]) -> Program:
    program, found = run_passes(program, passes)
    notes += found
    return program
