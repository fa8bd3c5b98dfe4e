"""THE compiler: its phases in order, one named call each. Read this first."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from vlacompile.bundle.bundle import GOLDEN_FILE, Bundle, check_destination, stage_path, write_bundle
from vlacompile.capture.export import capture
from vlacompile.capture.history import append, newest_of
from vlacompile.capture.program import Program, execute
from vlacompile.emit.onnx_stage import emit_onnx, externalise
from vlacompile.errors import ParityError
from vlacompile.frontends.load import load_policy
from vlacompile.passes.batch_over_loop import BatchOverLoop
from vlacompile.passes.collapse_linear_chains import CollapseLinearChains
from vlacompile.passes.delay_frames import DelayFrames
from vlacompile.passes.drop_identities import DropIdentities
from vlacompile.passes.fill_empty import FillEmpty
from vlacompile.passes.fuse_loop import FuseLoop
from vlacompile.passes.merge_common_subexpressions import MergeCommonSubexpressions
from vlacompile.passes.narrow_linears import NarrowLinears
from vlacompile.passes.read_parts_of_concat import ReadPartsOfConcat
from vlacompile.passes.split_batched import SplitBatched
from vlacompile.passes.split_linear_over_concat import SplitLinearOverConcat
from vlacompile.passes.split_linear_over_features import SplitLinearOverFeatures
from vlacompile.passes.split_tokens import SplitTokens
from vlacompile.passes.write_scatters_as_concat import WriteScattersAsConcat
from vlacompile.plan.assemble import WEIGHTS_FILE, assemble
from vlacompile.policy import TORCH_DTYPES, Policy
from vlacompile.recipe import Recipe, load_recipe
from vlacompile.staging.account import Account, account
from vlacompile.staging.choose_form import fuses
from vlacompile.staging.choose_solver import choose_solver
from vlacompile.staging.find_loop import find_loop
from vlacompile.staging.partition import partition
from vlacompile.staging.stages import Staged, build_stages
from vlacompile.target import Target, load_target
from vlacompile.verify.frames import Expected, Frame, frames_bytes
from vlacompile.verify.golden import golden_inputs
from vlacompile.verify.metrics import Metrics, compare
from vlacompile.verify.replay import replay
from vlacompile.verify.tolerances import tolerance

PASSES = (
    DropIdentities(),
    FillEmpty(),
    WriteScattersAsConcat(),
    ReadPartsOfConcat(),
    MergeCommonSubexpressions(),
    SplitTokens(),
    SplitLinearOverConcat(),
    SplitLinearOverFeatures(),
    NarrowLinears(),
    CollapseLinearChains(),
    SplitBatched(),
    MergeCommonSubexpressions(),
)
LOOP_PASSES = (
    BatchOverLoop(),
    MergeCommonSubexpressions(),
)
FUSED_PASSES = (
    FuseLoop(),
    MergeCommonSubexpressions(),
)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Staging:
    """What the compiler found before anything is emitted."""

    staged: Staged
    notes: tuple[str, ...]
    complete: bool = True  # False: a loop was traced in part and not found again
    written: Program | None = None  # the program before a loop was given fewer evaluations; None: it was not


def build(source: Policy | str | Path, target: str = "host", recipe: str | None = None, out: str | Path = "policy.vlab",
          *, progress: Progress = lambda phase: None) -> Bundle:
    """Compile a policy into a bundle, replay it through libvlart, and put it at `out`.

    source: a Policy, a checkpoint directory, or "package.module:factory". target, recipe: names or
    .toml paths. progress: called with the name of each phase as it begins.
    Raises a VlaError subclass; nothing half-written stays behind.
    """
    wanted, where = load_recipe(recipe), load_target(target)
    check_destination(Path(out))
    progress("load the policy")
    policy = load_policy(source)
    wanted = resolve(wanted, policy)
    program, staging, frames, parity = stage_and_prove(policy, where, wanted, progress)
    emitted = {}
    for s in staging.staged.stages:
        progress(f"emit {s.name}")
        emitted[s.name] = emit_onnx(s)
    progress("lay out the bundle")
    assembly = assemble(staging.staged, emitted, where, wanted, policy.decoder, policy.guidance)
    contents = {stage_path(n): externalise(e, Path(WEIGHTS_FILE).name, assembly.offsets[n]) for n, e in emitted.items()}
    contents |= {WEIGHTS_FILE: assembly.weights, GOLDEN_FILE: frames_bytes(frames)}
    progress("replay it through libvlart")
    return write_bundle(Path(out), assembly.plan, contents, provenance(policy, program, where, wanted, staging, parity),
                        lambda path: replay(path, frames, policy.outputs).require())


def stage_and_prove(policy: Policy, target: Target, recipe: Recipe, progress: Progress) \
        -> tuple[Program, Staging, list[Frame], dict[str, Metrics]]:
    """The stages and the golden frames that show them to be the same function. A loop whose later iterations do not
    follow from the first ones is traced whole. Raises ParityError."""
    for whole in (False, True):
        progress("trace the inference function" + (" whole" if whole else ""))
        program = capture(policy, whole)
        shortened = program.iterations is not None
        progress("find stages")
        staging = stage(program, target, recipe, policy, progress)
        if shortened and not staging.complete:
            continue
        progress("record golden vectors")
        try:
            return program, staging, *golden(policy, staging, recipe)
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
    wanted, where = load_recipe(recipe), load_target(target)
    progress("load the policy")
    policy = load_policy(source, weights)
    progress("trace the inference function")
    program = capture(policy, whole=True)  # so that all that it does can be counted
    progress("find stages")
    staging = stage(program, where, resolve(wanted, policy), policy if weights else None, progress)
    return account((policy.observe, policy.step), program, staging.staged, staging.notes)


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
    program, found = _rolled(program, minimum, notes)
    complete, written = program.iterations is None, None
    if found and complete and policy is not None and recipe.loop.max_action_error > 0:
        again = lambda other: _rolled(capture(other, whole=True), minimum, [])[0]  # noqa: E731
        choice = choose_solver(program, policy, recipe.loop, again, progress)
        notes += [f"solver: {note}" for note in choice.notes]
        written, program = (None if choice.sampling is None else program), choice.program
    if found and fuses(program, target, recipe.loop):
        program = _rewrite(program, FUSED_PASSES, notes)
    parts = partition(program, minimum)
    notes += [f"merged: {note}" for note in parts.merged]
    return Staging(build_stages(parts), tuple(notes), complete, written)


def _rolled(program: Program, min_flops: int, notes: list[str]) -> tuple[Program, bool]:
    """The program after the passes, its loops rolled up; whether there are any."""
    program = _rewrite(program, (*PASSES, DelayFrames(min_flops)), notes)
    loop = find_loop(program)
    notes += [f"loop: {note}" for note in loop.notes]
    return (_rewrite(loop.program, LOOP_PASSES, notes), True) if loop.found else (program, False)


def _rewrite(program: Program, passes: tuple, notes: list[str]) -> Program:
    for p in passes:
        result = p.run(program)
        program = result.program
        notes += [f"{type(p).__name__}: {note}" for note in result.notes]
    return program


def golden(policy: Policy, staging: Staging, recipe: Recipe) -> tuple[list[Frame], dict[str, Metrics]]:
    """Golden frames: inputs (of a history the newest observation), what the original function returns for them and
    for the observations before, and what PyTorch computes for every value between stages; and how far the staged graph
    is from the original function, per output. Where a loop was given fewer evaluations, the original function is
    compared with the graph before that.
    Raises ParityError when it is another function."""
    staged, written = staging.staged, staging.written
    values_of = {node: name for name, node in staged.origin.items()}
    frames: list[Frame] = []
    parity: dict[str, Metrics] = {}
    newest = newest_of(policy.sources, policy.example_inputs)
    longest = max((s.history for s in policy.sources.values()), default=1)
    seen: dict[str, torch.Tensor] = {}
    past: dict[str, torch.Tensor] = {}
    past_as_written: dict[str, torch.Tensor] = {}
    for label, inputs in golden_inputs(dict(policy.sources), newest, max(recipe.verify.frames, longest + 2),
                                       recipe.verify.seed):
        seen |= {n: append(seen.get(n), inputs[n], s.history) for n, s in policy.sources.items() if s.history > 1}
        with torch.no_grad():
            original = policy.infer(**(inputs | seen))
        outputs, kept = execute(staged.program, inputs, keep=values_of, past=past)
        proved = outputs if written is None else execute(written, inputs, past=past_as_written)[0]
        for name, tensor in proved.items():
            got = compare(tensor.numpy(), original[name].contiguous().numpy())
            parity[name] = got.worst(parity.get(name, got))
            limit = tolerance(TORCH_DTYPES[tensor.dtype], "chunk").limit(original[name].numpy())
            if not got.within(limit):
                raise ParityError(
                    f'the staged graph gives another "{name}" than the original function',
                    where=f'policy "{policy.name}", golden frame "{label}"',
                    why=f"max_abs {got.max_abs:.3g} (limit {limit.max_abs:.3g})",
                    fix="the function may keep state or draw random numbers: make both inputs")
        expects = {}
        for node, tensor in kept.items():
            name = values_of[node]
            level = "chunk" if name in policy.outputs else "stage"
            want = (original[name] if level == "chunk" and written is None else tensor).contiguous().numpy()
            expects[name] = Expected(want, tolerance(TORCH_DTYPES[tensor.dtype], level).limit(want))
        writes = {n: t.contiguous().numpy() for n, t in inputs.items() if policy.sources[n].update != "static"}
        frames.append(Frame(label, writes, expects))
    return frames, parity


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
        "staged_parity": {name: asdict(metrics) for name, metrics in parity.items()},
        "versions": {p: importlib.metadata.version(p) for p in packages},
    }
