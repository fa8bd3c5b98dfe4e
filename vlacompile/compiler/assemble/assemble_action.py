"""The action of a plan: the policy's decoder and the recipe's [action] -> plan.Action.

Owns the checks that they are compatible. Decoder tables become weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from vlacompile.compiler.graph.carried import written_in
from vlacompile.compiler.staging.stages import Staged
from vlacompile.policy import action_decoding as decoding
from vlacompile.policy.action_decoding import Decoder, Guidance
from vlacompile.recipe.recipe import ActionRecipe
from vlart.bundle.plan import action as plan_action
from vlart.bundle.plan.action import Consumption, DecodeStep, RateLimit
from vlart.bundle.plan.plan import Action, as_f32
from vlart.errors import ConfigError, SourceError, StagingError, nearest

AddWeight = Callable[[str, np.ndarray], int]
OVERLAP = 10  # actions of the previous chunk that guide the next one: LeRobot's execution_horizon


def action_of(staged: Staged, index: Mapping[str, int], wanted: ActionRecipe, add_weight: AddWeight,
              decoder: Decoder | None, guidance: Guidance | None) -> Action | None:
    """The first output feeds the queue if it is f32 [1,H,action_dim], or if a decoder reads it."""
    name = staged.program.outputs[0]
    kind = staged.types[name]
    where = f'output "{name}" {kind}'
    if name in staged.constants:
        raise StagingError(f'output "{name}" depends on no source', where=f'policy "{staged.program.name}"',
                           why="it would be the same action for every observation",
                           fix="check that the inference function uses its inputs")
    shape = decoding.shape_of(decoder, kind.dtype, kind.dims, where)
    if shape is None:
        if wanted != ActionRecipe():
            raise ConfigError("the recipe sets [action], but the policy has no action chunk", where=f'output "{name}"',
                              why=f"it is {kind}, not f32[1,H,action_dim]",
                              fix="return the chunk as the first output, or drop [action] from the recipe")
        return None
    steps, dim = shape
    execute = _default_execute(wanted, steps) if wanted.execute is None else wanted.execute
    if execute > steps:
        raise ConfigError(f"action.execute = {execute} is more than the chunk has", where=where,
                          why=f"the policy predicts {steps} steps", fix=f"set execute to at most {steps}")
    if wanted.low and len(wanted.low) != dim:
        raise ConfigError(f"action.low and action.high have {len(wanted.low)} numbers", where=where,
                          why=f"an action has {dim} dimensions", fix=f"give {dim} numbers each")
    decode = tuple(_step(s, staged, index, add_weight, dim) for s in decoder.steps) if decoder else ()
    consume = _consumption(staged, index, wanted, guidance, decode, steps, execute)
    return Action(index[name], steps, execute, dim, round(wanted.deadline_ms * 1000), as_f32(wanted.low),
                  as_f32(wanted.high), decode, consume, _rate_limit(wanted, dim, where))


def _rate_limit(wanted: ActionRecipe, dim: int, where: str) -> RateLimit | None:
    if not wanted.max_step and not wanted.max_velocity:
        return None
    for name, given in (("max_step", wanted.max_step), ("max_velocity", wanted.max_velocity)):
        if given and len(given) != dim:
            raise ConfigError(f"action.{name} has {len(given)} numbers", where=where,
                              why=f"an action has {dim} dimensions", fix=f"give {dim} numbers; 0: no limit")
    steps = wanted.max_step or (0.0,) * dim
    velocities = wanted.max_velocity or (0.0,) * dim
    per_tick = [[x for x in (s, v and v / wanted.control_hz) if x > 0] for s, v in zip(steps, velocities, strict=True)]
    return RateLimit(wanted.rate_rule, as_f32([min(limits, default=0.0) for limits in per_tick]))


def _default_execute(wanted: ActionRecipe, steps: int) -> int:
    """The whole chunk; of real-time chunks all but OVERLAP, or half of a short chunk, or the delay if that is more."""
    return steps if wanted.consume != "realtime" else steps - max(wanted.delay or 0, min(OVERLAP, steps // 2))


def _step(step, staged: Staged, index: Mapping[str, int], add_weight: AddWeight, dim: int) -> DecodeStep:
    match step:
        case decoding.Lookup():
            rows = tuple(len(t) for t in step.tables)
            table = np.zeros((dim, max(rows)), np.float32)
            for d, numbers in enumerate(step.tables):
                table[d, : rows[d]] = numbers
            return plan_action.Lookup(add_weight("decode/table", table), step.direction, step.outside,
                                      step.firsts, rows)
        case decoding.Pieces():
            table = np.full((len(step.pieces), max(1, *map(len, step.pieces))), -1, np.int32)
            for row, piece in zip(table, step.pieces, strict=True):
                row[: len(piece)] = piece
            return plan_action.Pieces(add_weight("decode/pieces", table), step.direction, step.outside, step.first,
                                      step.symbols, step.offset, step.stop, step.length)
        case decoding.Basis():
            return plan_action.Basis(add_weight("decode/basis", np.array(step.matrix, np.float32)))
        case decoding.Affine():
            return plan_action.Affine(as_f32(step.scale), as_f32(step.offset))
        case decoding.Delta():
            return plan_action.Delta(index[_source(step, staged)], step.element)


def _source(step: decoding.Delta, staged: Staged) -> str:
    """The name of the source; raises SourceError unless it exists, is f32 and has the elements that are added."""
    where = f'Delta("{step.source}")'
    written = written_in(staged.program.sources)
    if step.source not in written:
        raise SourceError(f'no source is called "{step.source}"', where=where,
                          why=nearest(step.source, written), fix="name one of the policy's live sources")
    kind = staged.types[step.source]
    size = int(np.prod(kind.dims, dtype=np.int64))
    if kind.dtype != "f32" or not all(e is None or 0 <= e < size for e in step.element):
        raise SourceError("the source does not have the elements that are added", where=where,
                          why=f"it is {kind}, elements {list(step.element)} are added",
                          fix="count the elements of an f32 source from 0")
    return step.source


def _consumption(staged: Staged, index: Mapping[str, int], wanted: ActionRecipe, guidance: Guidance | None,
                 decode: tuple[DecodeStep, ...], steps: int, execute: int) -> Consumption:
    where = f'recipe, [action] consume = "{wanted.consume}"'
    if guidance is not None and wanted.consume != "realtime":
        raise ConfigError("the policy continues its previous chunk", where=where,
                          why=f'nothing would fill its sources "{guidance.previous}" and "{guidance.weights}"',
                          fix='set consume = "realtime" and delay')
    if wanted.consume == "ensemble":
        decay = as_f32([0.01 if wanted.decay is None else wanted.decay])[0]
        if -decay * steps > 500:
            raise ConfigError(f"action.decay = {decay:g} is too far below 0", where=where,
                              why=f"the newest of {steps} predictions would weigh exp({-decay * steps:g})",
                              fix=f"set decay to at least {-500 / steps:g}")
        return plan_action.Ensemble(decay)
    if wanted.consume == "queue":
        return plan_action.Queue()
    delay = wanted.delay or 0
    if not delay <= execute <= steps - delay:
        raise ConfigError(f"delay = {delay} and execute = {execute} do not fit {steps} predicted steps", where=where,
                          why="delay <= execute <= predicted - delay must hold",
                          fix=f"set execute to {delay}..{steps - delay}" if 2 * delay <= steps
                          else f"set delay to at most {steps // 2}")
    horizon = steps - execute if wanted.horizon is None else wanted.horizon
    if not 0 < horizon <= steps:
        raise ConfigError(f"action.horizon = {horizon} is not in the chunk", where=where,
                          why=f"the policy predicts {steps} steps; the default is predicted - execute",
                          fix=f"set horizon to 1..{steps}")
    _require_observation(staged, index, guidance, decode, where)
    filled = (None,) * 3 if guidance is None else _filled(staged, index, guidance, steps)
    return plan_action.Realtime(delay, wanted.schedule or "linear", horizon, *filled)


def _require_observation(staged: Staged, index: Mapping[str, int], guidance: Guidance | None,
                         decode: tuple[DecodeStep, ...], where: str) -> None:
    """Raises ConfigError if the actions depend on no observation: a chunk begins at the tick of its observation."""
    output = staged.program.outputs[0]
    stage = next(s for s in staged.stages if any(p.value == output for p in s.outputs))
    deltas = {s.value for s in decode if isinstance(s, plan_action.Delta)}
    written = written_in(staged.program.sources)
    names = {n for n in written if n in stage.sources or index[n] in deltas}
    names -= {guidance.previous, guidance.weights} if guidance else set()
    if not any(written[n].update in ("observation", "tick") for n in names):
        raise ConfigError("the actions depend on no observation", where=where,
                          why="a chunk begins at the tick at which its observation was written",
                          fix='give the cameras and the state the update class "observation"')


def _filled(staged: Staged, index: Mapping[str, int], guidance: Guidance, steps: int) -> tuple[int, int, int]:
    types, where = staged.types, f'Policy.guidance, chunk "{guidance.chunk}"'
    for name in (guidance.previous, guidance.weights, guidance.chunk):
        if name not in types or (name == guidance.chunk and name not in staged.program.outputs):
            raise SourceError(f'"{name}" is not a value of the policy', where=where, why=nearest(name, types),
                              fix="name two live sources, and an output that Policy.outputs keeps")
    previous, weights, chunk = (types[n] for n in (guidance.previous, guidance.weights, guidance.chunk))
    if previous != chunk or previous.dtype != "f32" or len(previous.dims) != 3 or previous.dims[:2] != (1, steps) or \
            weights.dtype != "f32" or np.prod(weights.dims) != steps:
        raise SourceError("the shapes of the guidance's sources do not match", where=where,
                          why=f"previous {previous}, weights {weights}, chunk {chunk}",
                          fix=f"previous and chunk are f32[1,{steps},N], weights has {steps} f32 numbers")
    return index[guidance.previous], index[guidance.weights], index[guidance.chunk]
