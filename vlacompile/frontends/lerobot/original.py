"""LeRobot's own preprocessor, policy and postprocessor of any registered type, as functions of frames.

Must not know policy types: what a policy computes, when and for how many steps is found out by running it. A policy
object keeps queues; here a chunk is a function of the observations that it sees.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from vlacompile.frontends.lerobot.memories import Memory
from vlacompile.policy.drawn_from import recorded_draws
from vlart.errors import SourceError

Frame = dict[str, torch.Tensor]  # {the robot's name: [1,...]}, as LeRobot's preprocessor takes it
LONGEST = 1000  # actions of a chunk


@dataclass(frozen=True)
class Way:
    """How a chunk is asked for. by: "select_action" calls predict_action_chunk, whose result is taken; or
    "predict_action_chunk" is called itself; or the "actions" of select_action are taken one by one. execute: actions
    that select_action returns before it computes again. history: observations that it sees. ensemble: decay of
    LeRobot's temporal ensemble. each: actions are un-normalised one by one."""

    by: str = "select_action"
    execute: int = 1
    history: int = 1
    ensemble: float | None = None
    each: bool = False


@dataclass(frozen=True)
class Original:
    """before, after: the pipelines of the checkpoint's processors. where: for a person. memory: what the policy keeps
    from one chunk to the next."""

    policy: nn.Module
    before: Any
    after: Any
    where: str
    memory: Memory | None = None

    def chunk(self, frames: Sequence[Frame], instruction: str, way: Way,
              kept: torch.Tensor | None = None) -> torch.Tensor:
        """frames: as many as the policy sees, oldest first. Actions [1,n,action_dim] for the robot."""
        return self.finished(self.normalised(self.prepared(frames, instruction), way, kept), way)

    def prepared(self, frames: Sequence[Frame], instruction: str) -> list[dict]:
        self.before.reset()
        self.after.reset()
        return [self.before(dict(frame) | {"task": instruction}) for frame in frames]

    def normalised(self, batches: Sequence[dict], way: Way, kept: torch.Tensor | None = None) -> torch.Tensor:
        """[1,n,action_dim] from the observations as the preprocessor returns them. kept: of the chunk before."""
        self.policy.reset()
        if self.memory is not None:
            self.memory.put(self.policy, kept)
        if way.by == "predict_action_chunk":
            return self.policy.predict_action_chunk(dict(batches[-1]))
        with self._asked() as asked:
            asked.older = True
            for batch in batches[:-1]:
                self.policy.select_action(dict(batch))
            asked.older = False
            actions = [self.policy.select_action(dict(batches[-1]))
                       for _ in range(way.execute if way.by == "actions" else 1)]
        return torch.stack(actions, 1) if way.by == "actions" else asked.chunks[-1]

    def finished(self, actions: torch.Tensor, way: Way) -> torch.Tensor:
        """In robot units. LeRobot's postprocessor takes one action of every robot in a batch; here they are the actions
        of one robot."""
        if way.each:
            return torch.stack([self.after(actions[:, i]) for i in range(actions.shape[1])], 1)
        return self.after(actions[0])[None]

    @contextlib.contextmanager
    def _asked(self) -> Iterator[_Asked]:
        """Within this context, what predict_action_chunk returns is kept."""
        asked = _Asked(self.policy.predict_action_chunk)
        self.policy.predict_action_chunk = asked
        try:
            yield asked
        finally:
            del self.policy.predict_action_chunk


class _Asked:
    """In place of predict_action_chunk. older: for observations whose chunk nobody executes, it returns one action, so
    that the policy's queue is empty again after it."""

    def __init__(self, predict):
        self.predict, self.older, self.chunks = predict, False, []

    def __call__(self, batch, *args, **kwargs):
        if self.older:
            width = self.predict.__self__.config.output_features["action"].shape[0]
            return torch.zeros(1, 1, width)
        self.chunks.append(self.predict(batch, *args, **kwargs))
        return self.chunks[-1]


@contextlib.contextmanager
def _computing(policy: nn.Module) -> Iterator[list[int]]:
    """Counts the calls of modules of the policy, in the list's one element."""
    count, own = [0], {id(m) for m in policy.modules()}

    def counted(module, args) -> None:
        count[0] += id(module) in own

    hook = register_module_forward_pre_hook(counted)
    try:
        yield count
    finally:
        hook.remove()


@dataclass(frozen=True)
class Episode:
    """What LeRobot's loop does: select_action once per observation. actions: until the second chunk. chunks: what
    predict_action_chunk returned, if select_action called it; seen: the observations of the second chunk; next: its
    first action; kept: what the first one left in the policy's memory."""

    actions: torch.Tensor
    chunks: list[torch.Tensor]
    seen: list[Frame]
    next: torch.Tensor
    kept: torch.Tensor | None


def run_episode(original: Original, frames: Sequence[Frame], instruction: str, history: int) -> Episode:
    """frames: repeated. Raises SourceError for a policy that never computes a second chunk."""
    policy = original.policy
    policy.reset()
    original.before.reset()
    original.after.reset()
    seen, actions = [frames[0]] * (history - 1), []
    with original._asked() as asked, _computing(policy) as count:
        for k in range(LONGEST + 1):
            before, kept = count[0], None if original.memory is None else original.memory.of(policy)
            seen.append(frames[k % len(frames)])
            batch = original.before(dict(seen[-1]) | {"task": instruction})
            with recorded_draws():
                action = policy.select_action(batch)
            _require_action(original, action)
            if actions and count[0] > before:
                return Episode(torch.stack(actions, 1), asked.chunks, seen[-history:], action, kept)
            actions.append(action)
    raise SourceError("select_action returns actions without computing anything", where=original.where,
                      why=f"{LONGEST} actions followed one another without a call of a module of the policy",
                      fix="let select_action compute a chunk by modules of the policy when its queue is empty")


def _require_action(original: Original, action: Any) -> None:
    if not isinstance(action, torch.Tensor) or action.dim() != 2 or action.shape[0] != 1:
        shape = list(action.shape) if isinstance(action, torch.Tensor) else type(action).__name__
        raise SourceError("select_action returns no action", where=original.where,
                          why=f"it returns {shape} for one robot, not a tensor [1, action_dim]",
                          fix="return one action of each robot in the batch")


def way_of(original: Original, frames: Sequence[Frame], instruction: str, compare: bool) -> Way:
    """How this policy is asked for a chunk. frames: different observations. compare: whether weights have content.
    Raises SourceError for a policy whose chunk is no function of the observations that it declares to see."""
    history = history_of(original.policy.config)
    try:
        episode = run_episode(original, frames, instruction, history)
    except NotImplementedError:  # a policy that only offers chunks
        return _finished_each(original, *_chunk_alone(original, frames, instruction), compare)
    count = episode.actions.shape[1]
    way = Way(execute=count, history=history)
    if not (episode.chunks and _begins(episode.chunks[0], episode.actions, compare)):
        way = replace(way, by="predict_action_chunk" if _predicts(original, frames[0], instruction, episode, compare)
                      and history == 1 else "actions")
    if way.by == "actions" and history > 1 and not episode.chunks:
        raise SourceError(f"the policy sees {history} observations and offers no chunk of them", where=original.where,
                          why="its select_action does not call predict_action_chunk",
                          fix="let select_action call it when its queue is empty, as LeRobot's policies do")
    if compare:
        way = _checked(original, episode, instruction, way)
        _require_seeing(original, frames, instruction, way)
    return _finished_each(original, way, episode.actions, compare)


def history_of(config) -> int:
    return int(getattr(config, "n_obs_steps", 1) or 1)


def _chunk_alone(original: Original, frames: Sequence[Frame], instruction: str) -> tuple[Way, torch.Tensor]:
    """Of a policy without select_action: a robot's loop executes n_action_steps of a chunk."""
    way = Way("predict_action_chunk")
    with recorded_draws():
        chunk = original.normalised(original.prepared(frames[:1], instruction), way)
    count = int(getattr(original.policy.config, "n_action_steps", 0) or chunk.shape[1])
    if history_of(original.policy.config) > 1 or count > chunk.shape[1]:
        raise SourceError("the policy's class has no select_action", where=original.where,
                          why="only it says which observations of a history a chunk is computed from, and how much of "
                              "the chunk is executed", fix="implement select_action, as LeRobot's policies do")
    return replace(way, execute=count), chunk


def _require_seeing(original: Original, frames: Sequence[Frame], instruction: str, way: Way) -> None:
    chunks = []
    for frame in frames[:2]:
        with recorded_draws():
            chunks.append(original.normalised(original.prepared([frame] * way.history, instruction), way))
    if torch.equal(*chunks):
        raise SourceError("the actions depend on no observation", where=original.where,
                          why="other frames and another state give the same chunk, to the last bit",
                          fix="look for what the class leaves out between its encoder and its actions, or for weights "
                              "that were not loaded")


def _begins(chunk: torch.Tensor, actions: torch.Tensor, compare: bool) -> bool:
    fits = chunk.dim() == 3 and chunk.shape[0] == 1 and chunk.shape[1] >= actions.shape[1]
    return fits and chunk.shape[2] == actions.shape[2] and (not compare or close(chunk[:, :actions.shape[1]], actions))


def _predicts(original: Original, frame: Frame, instruction: str, episode: Episode, compare: bool) -> bool:
    """Whether predict_action_chunk, of itself, returns the actions of select_action."""
    try:
        with recorded_draws():
            chunk = original.normalised(original.prepared([frame], instruction), Way("predict_action_chunk"))
    except Exception:  # noqa: BLE001  it offers none, or reads queues that only select_action fills
        return False
    return isinstance(chunk, torch.Tensor) and _begins(chunk, episode.actions, compare)


def _checked(original: Original, episode: Episode, instruction: str, way: Way) -> Way:
    """Compares the second chunk of an episode with that of a policy which sees nothing but its observations."""
    with recorded_draws():
        chunk = original.normalised(original.prepared(episode.seen, instruction), way, episode.kept)
    kept = episode.chunks[1] if way.by == "select_action" else episode.next[:, None]
    if not close(chunk[:, :kept.shape[1]], kept):
        raise SourceError("the policy remembers more than it declares", where=original.where,
                          why=f"its second chunk of an episode is not a function of the {way.history} observations "
                              "that n_obs_steps declares (state, training while running, or random numbers that are "
                              "not PyTorch's)",
                          fix="build a policy whose chunk follows from n_obs_steps observations and torch's random "
                              "numbers")
    if close(chunk[:, :1], episode.next[:, None]):
        return way
    from lerobot.policies.act.modeling_act import ACTTemporalEnsembler

    ensemble = getattr(original.policy, "temporal_ensembler", None)
    if not isinstance(ensemble, ACTTemporalEnsembler):
        raise SourceError("select_action combines chunks in a way of its own", where=original.where,
                          why="an action of a second chunk differs from what predict_action_chunk returns",
                          fix="use LeRobot's ACTTemporalEnsembler as policy.temporal_ensembler, or none")
    weights = ensemble.ensemble_weights  # exp(-decay * age)
    return replace(way, ensemble=round(float(-(weights[1] / weights[0]).log()), 6) if len(weights) > 1 else 0.0)


def _finished_each(original: Original, way: Way, actions: torch.Tensor, compare: bool) -> Way:
    """Whether the postprocessor may get all actions at once."""
    if not compare:
        return way
    try:
        together = original.finished(actions, way)
    except Exception:  # noqa: BLE001  the postprocessor's own steps may accept one action only
        return replace(way, each=True)
    one_by_one = original.finished(actions, replace(way, each=True))
    return way if together.shape == one_by_one.shape and close(together, one_by_one) else replace(way, each=True)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for rounding."""
    if one.shape != other.shape:
        return False
    return float((one - other).abs().max()) <= 1e-5 * float(other.abs().max()) + 1e-6


def frames_of(inputs: Mapping[str, torch.Tensor], images: frozenset[str], history: int) -> list[Frame]:
    """Inputs of the graph, u8 [1,(history,)H,W,3] and f32 [1,(history,)d] -> frames as LeRobot's robot loop makes them,
    f32 [1,3,H,W] in [0, 1]."""
    ready = {n: x.movedim(-1, -3).to(torch.float32) / 255.0 if n in images else x for n, x in inputs.items()}
    return [{n: x if history == 1 else x[:, i] for n, x in ready.items()} for i in range(history)]
