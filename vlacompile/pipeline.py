"""THE compiler: its phases in order. Read this first; each phase is a file of `vlacompile/phases/`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from vlacompile.compiler.fit.engine_memory import budget_of
from vlacompile.compiler.fit.planner import plan_fit
from vlacompile.compiler.fit.stage_needs import needs_of
from vlacompile.compiler.staging.stage_account import Account, account
from vlacompile.files.toml import shipped
from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.hardware.target import load_target
from vlacompile.phases.assemble import assemble
from vlacompile.phases.build_needs import check_room
from vlacompile.phases.capture import capture
from vlacompile.phases.choose_precision import choose_precision
from vlacompile.phases.emit import emit
from vlacompile.phases.find_stages import Staging, find_stages
from vlacompile.phases.load_policy import Several
from vlacompile.phases.phase import Phase, Progress, silent
from vlacompile.phases.publish import publish
from vlacompile.phases.read_inputs import Inputs, read_inputs
from vlacompile.phases.verify_staging import Verified, verify_staging
from vlacompile.policy.policy import Policy
from vlacompile.profile.modelled_stages import BoardPlan, on_board
from vlart.bundle.directory import Bundle
from vlart.errors import ConfigError


class Intermediate(Protocol):
    """The result of a phase: frozen, with its type in the phase's file."""

    def text(self) -> str:
        """The result as text, for people and for golden tests."""


def build(source: Policy | str | Path | Several, target: str = "host", recipe: str | None = None,
          out: str | Path | None = "policy.vlab", *, instructions: tuple[str, ...] = (),
          only_instructions: bool = False, calibrate: str | Path | None = None,
          topics: str | Path | None = None, options: CheckpointOptions = NONE,
          progress: Progress = silent) -> Bundle:
    """Compile a policy into a bundle, replay it through libvlart, and put it at `out`.

    source: a Policy, a checkpoint directory, "org/name" or "org/name@revision" on the Hugging Face Hub, or
    "package.module:factory". target, recipe: names or .toml paths.
    out: None: the policy's name + .vlab. instructions: texts to compile in advance; the results of the stages that
    depend on the text alone are precomputed and stored. only_instructions: no other text is accepted, so these stages
    and the tokenizer are dropped from the bundle. calibrate: a LeRobot dataset directory (v2.1 or v3.0), or a
    bag of a robot that runs ROS 2 (FILE.mcap, a directory of rosbag2), whose observations take the place of the
    policy's calibration set. topics: of a bag, the ROS 2 node's map of topics to inputs. options: how a checkpoint is
    read. progress: called with a line "phase: step" at the start of each step. Raises a VlaError subclass that records
    its phase; no partial bundle is left behind.
    """
    inputs = read_inputs(source, target, recipe, out, instructions=instructions, only_instructions=only_instructions,
                         calibrate=calibrate, topics=topics, options=options, progress=progress)
    bundle = until(Phase.PUBLISH, inputs, progress)
    assert isinstance(bundle, Bundle)
    return bundle


def until(last: Phase, inputs: Inputs, progress: Progress = silent) -> Intermediate:
    """The result of phase `last`, after which the build stops. For the last phase: the bundle."""
    return next(result for phase, result in run(inputs, progress) if phase == last)


def run(inputs: Inputs, progress: Progress = silent) -> Iterator[tuple[Phase, Intermediate]]:
    """Yields each phase's result as it ends. A phase's inputs are its arguments, its decisions are its result."""
    yield Phase.READ_INPUTS, inputs
    check_room(inputs, progress=progress)
    captured = capture(inputs, progress=progress)
    yield Phase.CAPTURE, captured
    staging = find_stages(inputs, captured, progress=progress)
    yield Phase.FIND_STAGES, staging
    verified = verify_staging(inputs, staging, progress=progress)
    yield Phase.VERIFY_STAGING, verified
    yield from finish(inputs, verified, progress)


def finish(inputs: Inputs, verified: Verified, progress: Progress = silent) -> Iterator[tuple[Phase, Intermediate]]:
    """What is left behind the verified stages, which are in f32: who wants them in several precisions, each with a
    recipe and a destination of its own, begins here."""
    precise = choose_precision(inputs, verified, progress=progress)
    yield Phase.CHOOSE_PRECISION, precise
    emitted = emit(inputs, verified, precise, progress=progress)
    yield Phase.EMIT, emitted
    assembled = assemble(inputs, verified, precise, emitted, progress=progress)
    yield Phase.ASSEMBLE, assembled
    yield Phase.PUBLISH, publish(inputs, assembled, progress=progress)


def plan(source: Policy | str | Path | Several, target: str = "host", recipe: str | None = None, *,
         weights: bool = True, options: CheckpointOptions = NONE, text_length: int | tuple[int, ...] | None = None,
         progress: Progress = silent) -> Account:
    """Compile as far as the stages, emit nothing, and report where the policy's weights and FLOPs went.

    weights: False works with shapes alone and reads no weights, for policies of any size.
    Raises a VlaError subclass.
    """
    inputs = read_inputs(source, target, recipe, weights=weights, options=options, text_length=text_length,
                         progress=progress)
    return _account(*_staged_whole(inputs, progress))


def plan_on_board(source: Policy | str | Path | Several, target: str, recipe: str | None = None, *,
                  weights: bool = True, instructions: int | None = None, swap_mb: float = 0.0,
                  options: CheckpointOptions = NONE, text_length: int | tuple[int, ...] | None = None,
                  progress: Progress = silent) -> tuple[Account, BoardPlan]:
    """plan(), and whether and how the policy fits a board's memory, and its latency there: modelled, nothing is run on
    a board.

    target: one with a board. instructions: how many are compiled in advance; None: any may come. swap_mb: 1e6 bytes of
    swap that building on the board may use. Raises a VlaError subclass, but not if the policy does not fit: that is
    BoardPlan.fit.require().
    """
    found, boards = plan_on_boards(source, [target], recipe, weights=weights, instructions=instructions,
                                   swap_mb=swap_mb, options=options, text_length=text_length, progress=progress)
    return found, boards[0]


def plan_on_boards(source: Policy | str | Path | Several, targets: Sequence[str], recipe: str | None = None, *,
                   weights: bool = True, instructions: int | None = None, swap_mb: float = 0.0,
                   options: CheckpointOptions = NONE, text_length: int | tuple[int, ...] | None = None,
                   progress: Progress = silent) -> tuple[Account, tuple[BoardPlan, ...]]:
    """plan_on_board() for several boards; the policy is traced and divided into stages once."""
    inputs = read_inputs(source, targets[0], recipe, weights=weights, options=options, text_length=text_length,
                         progress=progress)
    boards = [load_target(t) for t in targets]
    for where in boards:
        if where.board is None:
            raise ConfigError(f'target "{where.name}" has no memory to plan for', where="target",
                              why="it has no [board]", fix="choose a board: `vlacompile targets`")
    inputs, staging = _staged_whole(inputs, progress)
    progress("fit into memory")
    needs = needs_of(staging.staged, inputs.recipe.precision)
    known = [t for n in shipped("targets") if (t := load_target(n)).board is not None]
    found = []
    for where in boards:
        assert where.board is not None
        larger = [b for t in known if t.processor == where.processor
                  and (b := budget_of(t)).usable > where.board.memory.usable_bytes]
        fit = plan_fit(needs, budget_of(where, int(swap_mb * 1e6)), instructions=instructions,
                       others=sorted(larger, key=lambda b: b.usable))
        found.append(on_board(inputs.policy, staging.staged, fit, where, inputs.recipe.tensorrt))
    return _account(inputs, staging), tuple(found)


def _staged_whole(inputs: Inputs, progress: Progress) -> tuple[Inputs, Staging]:
    """As a build's, of a function that is not called; every iteration of a loop is traced where later ones do not
    follow from the first."""
    staging = find_stages(inputs, capture(inputs, called=False, progress=progress), progress=progress)
    if staging.complete:
        return inputs, staging
    return inputs, find_stages(inputs, capture(inputs, whole=True, progress=progress), progress=progress)


def _account(inputs: Inputs, staging: Staging) -> Account:
    found = account((inputs.policy.observe, inputs.policy.step), staging.program, staging.staged, staging.notes)
    return replace(found, origin=inputs.policy.origin)
