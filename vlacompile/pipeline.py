"""THE compiler: its phases in order. Read this first; each phase is a file of `vlacompile/phases/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from vlacompile.bundle.directory import Bundle
from vlacompile.compiler.fit.engine_memory import budget_of
from vlacompile.compiler.fit.planner import Fit, plan_fit
from vlacompile.compiler.fit.stage_needs import needs_of
from vlacompile.compiler.staging.stage_account import Account, account
from vlacompile.errors import ConfigError
from vlacompile.files.toml import shipped
from vlacompile.hardware.target import load_target
from vlacompile.phases.assemble import assemble
from vlacompile.phases.capture import capture
from vlacompile.phases.choose_precision import choose_precision
from vlacompile.phases.emit import emit
from vlacompile.phases.find_stages import Staging, find_stages
from vlacompile.phases.load_policy import Several
from vlacompile.phases.phase import Phase, Progress, silent
from vlacompile.phases.publish import publish
from vlacompile.phases.read_inputs import Inputs, read_inputs
from vlacompile.phases.verify_staging import verify_staging
from vlacompile.policy.policy import Policy


class Intermediate(Protocol):
    """The result of a phase: frozen, with its type in the phase's file."""

    def text(self) -> str:
        """The result as text, for people and for golden tests."""


def build(source: Policy | str | Path | Several, target: str = "host", recipe: str | None = None,
          out: str | Path | None = "policy.vlab", *, instructions: tuple[str, ...] = (),
          only_instructions: bool = False, progress: Progress = silent) -> Bundle:
    """Compile a policy into a bundle, replay it through libvlart, and put it at `out`.

    source: a Policy, a checkpoint directory, or "package.module:factory". target, recipe: names or .toml paths.
    out: None: the policy's name + .vlab. instructions: texts to compile in advance; the results of the stages that
    depend on the text alone are precomputed and stored. only_instructions: no other text is accepted, so these stages
    and the tokenizer are dropped from the bundle. progress: called with a line "phase: step" at the start of each step.
    Raises a VlaError subclass that records its phase; no partial bundle is left behind.
    """
    inputs = read_inputs(source, target, recipe, out, instructions=instructions, only_instructions=only_instructions,
                         progress=progress)
    bundle = until(Phase.PUBLISH, inputs, progress)
    assert isinstance(bundle, Bundle)
    return bundle


def until(last: Phase, inputs: Inputs, progress: Progress = silent) -> Intermediate:
    """The result of phase `last`, after which the build stops. For the last phase: the bundle."""
    return next(result for phase, result in run(inputs, progress) if phase == last)


def run(inputs: Inputs, progress: Progress = silent) -> Iterator[tuple[Phase, Intermediate]]:
    """Yields each phase's result as it ends. A phase's inputs are its arguments, its decisions are its result."""
    yield Phase.READ_INPUTS, inputs
    captured = capture(inputs, progress=progress)
    yield Phase.CAPTURE, captured
    staging = find_stages(inputs, captured, progress=progress)
    yield Phase.FIND_STAGES, staging
    verified = verify_staging(inputs, staging, progress=progress)
    yield Phase.VERIFY_STAGING, verified
    precise = choose_precision(inputs, verified, progress=progress)
    yield Phase.CHOOSE_PRECISION, precise
    emitted = emit(inputs, verified, precise, progress=progress)
    yield Phase.EMIT, emitted
    assembled = assemble(inputs, verified, precise, emitted, progress=progress)
    yield Phase.ASSEMBLE, assembled
    yield Phase.PUBLISH, publish(inputs, assembled, progress=progress)


def plan(source: Policy | str | Path | Several, target: str = "host", recipe: str | None = None, *,
         weights: bool = True, progress: Progress = silent) -> Account:
    """Compile as far as the stages, emit nothing, and report where the policy's weights and FLOPs went.

    weights: False works with shapes alone and reads no weights, for policies of any size.
    Raises a VlaError subclass.
    """
    return _account(*_staged_whole(read_inputs(source, target, recipe, weights=weights, progress=progress), progress))


def plan_on_board(source: Policy | str | Path | Several, target: str, recipe: str | None = None, *,
                  weights: bool = True, instructions: int | None = None, swap_mb: float = 0.0,
                  progress: Progress = silent) -> tuple[Account, Fit]:
    """plan(), and whether and how the policy fits a board's memory: modelled, nothing is run on a board.

    target: one with a board. instructions: how many are compiled in advance; None: any may come. swap_mb: 1e6 bytes of
    swap that building on the board may use. Raises a VlaError subclass, but not if the policy does not fit: that is
    Fit.require().
    """
    inputs = read_inputs(source, target, recipe, weights=weights, progress=progress)
    where = inputs.target
    if where.board is None:
        raise ConfigError(f'target "{where.name}" has no memory to plan for', where="target", why="it has no [board]",
                          fix="choose a board: `vlacompile targets`")
    inputs, staging = _staged_whole(inputs, progress)
    progress("fit into memory")
    needs = needs_of(staging.staged, inputs.recipe.precision)
    others = [budget_of(t) for n in shipped("targets") if (t := load_target(n)).board is not None]
    larger = sorted((b for b in others if b.usable > where.board.memory.usable_bytes), key=lambda b: b.usable)
    fit = plan_fit(needs, budget_of(where, int(swap_mb * 1e6)), instructions=instructions, others=larger)
    return _account(inputs, staging), fit


def _staged_whole(inputs: Inputs, progress: Progress) -> tuple[Inputs, Staging]:
    """Traces every iteration of a loop, so that all of the policy's work is counted."""
    captured = capture(inputs, whole=True, progress=progress)
    return inputs, find_stages(inputs, captured, progress=progress)


def _account(inputs: Inputs, staging: Staging) -> Account:
    return account((inputs.policy.observe, inputs.policy.step), staging.program, staging.staged, staging.notes)
