"""THE compiler: its phases in order, one named call each. Read this first."""

from __future__ import annotations

import hashlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from vlacompile.bundle.directory import GOLDEN_FILE, Bundle, check_destination, stage_path, tokenizer_path, write_bundle
from vlacompile.compiler.assemble.assemble import WEIGHTS_FILE, assemble
from vlacompile.compiler.assemble.assemble_guard import with_guards
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.first_calls import check_calls
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx, externalise
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated, require_translatable
from vlacompile.compiler.emit.tensorrt.build_recipe import with_builds
from vlacompile.compiler.emit.tensorrt.support import is_listed, require_supported
from vlacompile.compiler.emit.tvm.bundle import compile_ahead, twin_of
from vlacompile.compiler.emit.tvm.stage import chosen_stages
from vlacompile.compiler.fit.engine_memory import budget_of
from vlacompile.compiler.fit.planner import Fit, plan_fit
from vlacompile.compiler.fit.stage_needs import needs_of
from vlacompile.compiler.golden import golden, golden_precise
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.rolled_loop import size_of
from vlacompile.compiler.graph.work_bound import bounded
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.pass_list import FUSED_PASSES, LAST_PASSES, LOOP_PASSES, graph_passes
from vlacompile.compiler.passes.pass_manager import run_passes
from vlacompile.compiler.passes.split_large_linears import SplitLargeLinears
from vlacompile.compiler.passes.use_engine_types import coarsest
from vlacompile.compiler.precision.assign.set_precision import set_precision
from vlacompile.compiler.precision.fp16.attention_masks import mask_values
from vlacompile.compiler.staging.choose_form import fuses
from vlacompile.compiler.staging.choose_solver import choose_solver
from vlacompile.compiler.staging.find_loop import find_loop
from vlacompile.compiler.staging.known_instructions import (
    KnownInstruction,
    SpokenText,
    accept_instructions,
    compile_instructions,
    require_spoken,
    tokenize,
)
from vlacompile.compiler.staging.partition import partition
from vlacompile.compiler.staging.stage_account import Account, account
from vlacompile.compiler.staging.stages import Staged, build_stages
from vlacompile.errors import ConfigError, ParityError
from vlacompile.files.toml import shipped
from vlacompile.frontends.load import load_policy
from vlacompile.hardware.board import MIB
from vlacompile.hardware.target import Target, load_target
from vlacompile.policy.policy import Policy
from vlacompile.policy.text import check_instructions
from vlacompile.recipe.recipe import PrecisionRecipe, PrecisionRule, Recipe, load_recipe
from vlacompile.tokenize.compile_text import compile_text
from vlacompile.verify.frames import Frame, frames_bytes
from vlacompile.verify.metrics import Metrics
from vlacompile.verify.replay import replay
from vlacompile.verify.tolerances import tolerance
from vlacompile.vocabulary import dtype_name

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Staging:
    """What the compiler found before anything is emitted."""

    staged: Staged
    notes: tuple[str, ...]
    complete: bool = True  # False: a loop was traced in part and not found again
    written: Program | None = None  # the program before a loop was given fewer evaluations; None: it was not
    precision: Mapping | None = None  # what was asked of it and done (compiler/precision/assign/outcome.py); None: nothing was


def build(source: Policy | str | Path, target: str = "host", recipe: str | None = None, out: str | Path = "policy.vlab",
          *, instructions: tuple[str, ...] = (), only_instructions: bool = False,
          progress: Progress = lambda phase: None) -> Bundle:
    """Compile a policy into a bundle, replay it through libvlart, and put it at `out`.

    source: a Policy, a checkpoint directory, or "package.module:factory". target, recipe: names or
    .toml paths. instructions: texts that are known beforehand; what they come to is stored. only_instructions: no other
    text will come, so that the stages of the text alone and its tokenizer leave the bundle. progress: called with the
    name of each phase as it begins.
    Raises a VlaError subclass; nothing half-written stays behind.
    """
    where = load_target(target)
    wanted = load_recipe(recipe, where)
    check_destination(Path(out))
    check_instructions(instructions)
    progress("load the policy")
    policy = load_policy(source)
    wanted = resolve(wanted, policy)
    texts = tuple(compile_text(name, text, progress) for name, text in policy.texts.items()
                  if wanted.text.tokenize == "bundle")
    spoken = tokenize(instructions, texts, policy.example_inputs)
    program, staging, frames, parity = stage_and_prove(policy, where, wanted, progress,
                                                       spoken if only_instructions else ())
    staging = replace(staging, notes=staging.notes + tuple(t.note for t in texts))
    absent = require_spoken(staging.staged, spoken) if only_instructions else frozenset()
    ahead = dict.fromkeys(chosen_stages([s.name for s in staging.staged.stages], wanted.stages.tvm) - absent,
                          "tvm_cuda" if wanted.stages.tvm_device == "gpu" else "tvm")
    _require_taken(staging.staged, where, absent | ahead.keys(), progress)
    if where.board is not None and not wanted.precision.reduced:
        known = len(spoken) if only_instructions else None
        wanted = replace(wanted, precision=fitting(staging.staged, where, wanted.precision, known))
    if wanted.precision.reduced:
        precise = set_precision(staging.staged, policy, wanted.precision, where, progress)
        progress("record golden vectors in that precision")
        frames = golden_precise(frames, precise.staged, policy.outputs, mask_values(staging.staged))
        staging = replace(staging, staged=precise.staged, notes=staging.notes + precise.report, precision=precise.facts)
    emitted = {}
    stored_in_halves = coarsest(program) != "f32"
    for s in staging.staged.stages:
        if s.name in absent:
            continue
        progress(f"emit {s.name}")
        halves = stored_in_halves and where.backend == "onnxruntime" and s.name not in ahead
        emitted[s.name] = emit_onnx(s, "onnxruntime" if s.name in ahead else where.backend, halves)
        if where.software is not None and s.name not in ahead:
            require_supported(s.name, emitted[s.name].model, where.software.tensorrt)
    compiled = compile_ahead({n: e for n, e in emitted.items() if n in ahead}, wanted.stages, recipe, where, progress)
    staging = replace(staging, notes=staging.notes + compiled.notes)
    known = compile_instructions(spoken, staging.staged, frames[0])
    texts = () if only_instructions else texts
    progress("lay out the bundle")
    assembly = assemble(staging.staged, emitted, where, wanted, policy.decoder, policy.guidance, ahead, texts,
                        known, absent)
    guarded = with_guards(assembly.plan, wanted.safety, policy.calibration)
    bundled = with_builds(guarded, staging.staged, emitted, where)
    contents = {stage_path(n): externalise(e, Path(WEIGHTS_FILE).name, assembly.offsets[n]) for n, e in emitted.items()
                if n not in ahead}
    contents |= {tokenizer_path(i): t.table for i, t in enumerate(texts)}
    contents |= compiled.files | {WEIGHTS_FILE: assembly.weights, GOLDEN_FILE: frames_bytes(frames)}
    progress("replay it through libvlart")

    def accept(path: Path):
        return _accept(path, frames, policy.outputs, known, where.board is not None, Path(out).name)

    origin = provenance(policy, program, where, wanted, staging, parity) | {"tvm": compiled.reports}
    if compiled.twins:  # this machine cannot run the target's
        with tempfile.TemporaryDirectory() as folder:
            report = write_bundle(Path(folder) / "twin.vlab", twin_of(bundled), contents | compiled.twins, origin, accept).accepted
        return write_bundle(Path(out), bundled, contents, origin, lambda path: report)
    return write_bundle(Path(out), bundled, contents, origin, accept)


def _require_taken(staged: Staged, target: Target, others: frozenset[str], progress: Progress) -> None:
    """Raises EmitError for what an older TensorRT does not take, before precision is chosen, which takes long. others: stages
    that it does not run."""
    if target.software is None or not is_listed(target.software.tensorrt):
        return
    progress(f"look for what TensorRT {target.software.tensorrt} does not take")
    for s in staged.stages:
        if s.name not in others:
            require_supported(s.name, emit_onnx(s, target.backend).model, target.software.tensorrt)


def _accept(path: Path, frames: list[Frame], outputs: tuple[str, ...], known: tuple[KnownInstruction, ...],
            stand_in: bool, name: str):
    """The parity report of what was written, which keeps every limit. name: of the bundle. Raises ParityError."""
    report = replay(path, frames, outputs, stand_in=stand_in).require(building=name)

    def limit_of(name: str, want) -> Metrics:
        recorded = frames[0].expects.get(name)
        return tolerance(dtype_name(want.dtype.str), "stage").limit(want) if recorded is None else recorded.limit

    accept_instructions(path, known, frames[0], limit_of, stand_in)
    return report


def stage_and_prove(policy: Policy, target: Target, recipe: Recipe, progress: Progress,
                    spoken: tuple[SpokenText, ...] = ()) -> tuple[Program, Staging, list[Frame], dict[str, Metrics]]:
    """The stages and the golden frames that show them to be the same function, with the texts of `spoken` if there are
    any. A loop whose later iterations do not follow from the first ones is traced whole. Raises ParityError."""
    progress("call the inference function")
    check_calls(policy)
    for whole in (False, True):
        progress("trace the inference function" + (" whole" if whole else ""))
        program = capture(policy, whole)
        shortened = program.iterations is not None
        progress("find stages")
        staging = stage(program, target, recipe, policy, progress)
        require_translatable(staging.staged)
        if shortened and not staging.complete:
            continue
        progress("record golden vectors")
        try:
            return program, staging, *golden(policy, staging.staged, staging.written, recipe.verify, spoken, program)
        except ParityError:
            if not shortened:
                raise
    raise AssertionError("a program that was traced whole is complete")


def plan(source: Policy | str | Path, target: str = "host", recipe: str | None = None, *, weights: bool = True,
         progress: Progress = lambda phase: None) -> Account:
    """Compile as far as the stages, emit nothing, and say where the policy's weights and work went.

    weights: False works with shapes alone and reads no weights, for policies of any size.
    Raises a VlaError subclass.
    """
    where = load_target(target)
    return _planned(source, where, load_recipe(recipe, where), weights, progress)[0]


def plan_on_board(source: Policy | str | Path, target: str, recipe: str | None = None, *, weights: bool = True,
                  instructions: int | None = None, swap_mb: float = 0.0, progress: Progress = lambda phase: None) \
        -> tuple[Account, Fit]:
    """plan(), and whether and how the policy fits a board's memory: modelled, nothing is run on a board.

    target: one with a board. instructions: how many are known beforehand; None: any may come. swap_mb: 1e6 bytes that
    building on the board may use. Raises a VlaError subclass, but not where it does not fit: that is Fit.require().
    """
    where = load_target(target)
    if where.board is None:
        raise ConfigError(f'target "{where.name}" has no memory to plan for', where="target", why="it has no [board]",
                          fix="choose a board: `vlacompile targets`")
    wanted = load_recipe(recipe, where)
    found, staged = _planned(source, where, wanted, weights, progress)
    progress("fit into memory")
    needs = needs_of(staged, wanted.precision)
    others = [budget_of(t) for n in shipped("targets") if (t := load_target(n)).board is not None]
    larger = sorted((b for b in others if b.usable > where.board.memory.usable_bytes), key=lambda b: b.usable)
    return found, plan_fit(needs, budget_of(where, int(swap_mb * 1e6)), instructions=instructions, others=larger)


def fitting(staged: Staged, target: Target, recipe: PrecisionRecipe, instructions: int | None = None) -> PrecisionRecipe:
    """For a board, of a recipe that says nothing of precision: fp16, and less where memory asks for it. instructions: as
    of plan_fit. Raises BudgetError where nothing fits."""
    fit = plan_fit(needs_of(staged, recipe), budget_of(target), instructions=instructions)
    fit.require()
    return replace(recipe, base="fp16", layers="fp16", rule=tuple(PrecisionRule(*rule) for rule in fit.rules), optional=True)


def _planned(source: Policy | str | Path, where: Target, recipe: Recipe, weights: bool, progress: Progress) \
        -> tuple[Account, Staged]:
    progress("load the policy")
    policy = load_policy(source, weights)
    progress("trace the inference function")
    program = capture(policy, whole=True)  # so that all that it does can be counted
    progress("find stages")
    staging = stage(program, where, resolve(recipe, policy), policy if weights else None, progress)
    return account((policy.observe, policy.step), program, staging.staged, staging.notes), staging.staged


def resolve(recipe: Recipe, policy: Policy) -> Recipe:
    """The recipe with what it leaves to the policy filled in."""
    if policy.ensemble is not None and recipe.action.consume == "queue" and recipe.action.execute is None:
        recipe = replace(recipe, action=replace(recipe.action, consume="ensemble", decay=policy.ensemble))
    execute = 1 if recipe.action.consume == "ensemble" else policy.execute
    if recipe.action.execute is not None or execute is None:
        return recipe
    return replace(recipe, action=replace(recipe.action, execute=execute))


def stage(program: Program, target: Target, recipe: Recipe, policy: Policy | None = None,
          progress: Progress = lambda phase: None) -> Staging:
    """Graph passes, the histories, the loop, the solver, the cuts, the stages. policy: where the recipe lets the loop
    lose something, for the observations that say how much."""
    notes: list[str] = []
    minimum = target.launch.min_stage_flops if recipe.stages.min_flops is None else recipe.stages.min_flops
    sized = _sized(target, recipe)
    program, found = _rolled(program, minimum, notes, sized)
    complete, written = program.iterations is None, None
    if found and complete and policy is not None and recipe.loop.max_action_error > 0:
        again = lambda other: _rolled(capture(other, whole=True), minimum, [], sized)[0]  # noqa: E731
        choice = choose_solver(program, policy, recipe.loop, again, progress)
        notes += [f"solver: {note}" for note in choice.notes]
        written, program = (None if choice.sampling is None else program), choice.program
    if found and fuses(program, target, recipe.loop, recipe.precision):
        program = _rewrite(program, FUSED_PASSES, notes)
    program = _rewrite(program, LAST_PASSES, notes)
    with bounded("partition", size_of(program)):
        parts = partition(program, minimum)
    notes += [f"merged: {note}" for note in parts.merged]
    with bounded("build_stages", size_of(program)):
        staged = build_stages(parts)
    return Staging(staged, tuple(notes), complete, written)


def _sized(target: Target, recipe: Recipe) -> tuple:
    """The passes that a board's memory asks for: no weight is larger than what it grants in one piece, in fp16 or in what
    the recipe asks for."""
    if target.board is None:
        return ()
    width = 4 if recipe.precision.reduced and recipe.precision.base == "fp32" else 2
    return (SplitLargeLinears(target.board.memory.contiguous_mib * MIB // width),)


def _rolled(program: Program, min_flops: int, notes: list[str], sized: tuple = ()) -> tuple[Program, bool]:
    """The program after the passes, its loops rolled up; whether there are any."""
    program = _rewrite(program, (*graph_passes(is_translated, decompositions), *sized, DelayFrames(min_flops)), notes)
    with bounded("find_loop", size_of(program)):
        loop = find_loop(program)
    notes += [f"loop: {note}" for note in loop.notes]
    return (_rewrite(loop.program, LOOP_PASSES, notes), True) if loop.found else (program, False)


def _rewrite(program: Program, passes: tuple, notes: list[str]) -> Program:
    program, done = run_passes(program, passes)
    notes += done
    return program


def provenance(policy: Policy, program: Program, target: Target, recipe: Recipe, staging: Staging,
               parity: dict[str, Metrics]) -> dict:
    """What the bundle is a function of. No times, paths or host names: equal inputs give equal bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(program.constants.items()):
        digest.update(name.encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    packages = ("vlacompile", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
    return {
        "policy": policy.name,
        "outputs": list(policy.outputs),
        "weights_sha256": digest.hexdigest(),
        "target": asdict(target),
        "recipe": asdict(recipe),
        "notes": list(staging.notes),
        "precision": staging.precision,
        "recorded_observations": len(policy.calibration),
        "staged_parity": {name: asdict(metrics) for name, metrics in parity.items()},
        "versions": {p: importlib.metadata.version(p) for p in packages},
    }
