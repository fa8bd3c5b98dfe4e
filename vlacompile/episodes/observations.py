"""Episodes of a dataset as inputs of a bundle: which of its sources a dataset fills, and their content at a frame.

Must not know policies, nor what becomes of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vlacompile.frontends.dataset import Dataset, Episode, read_frames
from vlart.bundle.directory import ENCODED, GOLDEN_FILE, Bundle
from vlart.bundle.plan.action import Realtime
from vlart.bundle.plan.plan import Plan
from vlart.errors import CalibrationError, UsageError
from vlart.verify.frames import read_frames as read_golden
from vlart.vocabulary import NUMPY_DTYPES

ACTION = "action"  # LeRobot's name of what was recorded
BLOCK = 32  # frames read at once


@dataclass(frozen=True)
class Filling:
    """Where the content of a bundle's sources comes from. recorded: {source that the dataset has: its dtype in the
    plan}. text: the source of token ids that the task's text fills, and its mask. drawn: {source of random numbers: an
    example of them}. guided: sources that the runtime fills from the last chunk, zero where there is none. encoded:
    sources that the host computes from the task's text and from `reads`, values of the dataset that may be no
    sources."""

    recorded: Mapping[str, str]
    text: tuple[str, str | None] | None
    drawn: Mapping[str, np.ndarray] = field(repr=False)
    guided: Mapping[str, np.ndarray] = field(repr=False)
    encoded: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @staticmethod
    def of(bundle: Bundle, dataset: Dataset) -> Filling:
        """bundle: of one backbone. Raises CalibrationError for a dataset that lacks a source, or whose actions are
        others."""
        plan = bundle.plan
        assert plan.action is not None
        types = {plan.values[s.value].name: (s.update, plan.values[s.value].type) for s in plan.sources}
        consume = plan.action.consume
        filled = (consume.previous, consume.weights) if isinstance(consume, Realtime) else ()
        guided = {plan.values[v].name for v in filled if v is not None}
        text = None
        if plan.texts:
            mask = plan.texts[0].mask
            text = plan.values[plan.texts[0].tokens].name, None if mask is None else plan.values[mask].name
        encoded = bundle.manifest["provenance"].get(ENCODED, {"gives": [], "reads": {}})
        rest = [n for n in types if n not in guided and n not in (text or ()) and n not in encoded["gives"]]
        recorded = {n: types[n][1] for n in rest if types[n][0] not in ("static", "step")}
        dataset.require({n: t.dims[1:] for n, t in recorded.items()}
                        | {n: tuple(shape) for n, shape in encoded["reads"].items()})
        require_actions(dataset, plan)
        golden = read_golden(bundle.path / GOLDEN_FILE)[0].writes
        return Filling({n: t.dtype for n, t in recorded.items()}, text,
                       {n: golden[n] for n in rest if types[n][0] == "step"},
                       {n: np.zeros(types[n][1].dims, NUMPY_DTYPES[types[n][1].dtype]) for n in sorted(guided)},
                       tuple(encoded["gives"]), tuple(encoded["reads"]))

    def draw(self, episode: int, frame: int) -> dict[str, np.ndarray]:
        """Random numbers of this frame, the same at every call: those of the example in another order, so that normal
        ones stay normal and uniform ones uniform."""
        rng = np.random.default_rng((episode, frame))
        return {n: rng.permutation(a.ravel()).reshape(a.shape) for n, a in self.drawn.items()}


def require_actions(dataset: Dataset, plan: Plan) -> None:
    """Raises CalibrationError if the recorded action is not of the policy's dimensions."""
    assert plan.action is not None
    feature = dataset.features.get(ACTION)
    found = None if feature is None else list(feature["shape"])
    if found != [plan.action.action_dim]:
        raise CalibrationError(
            "the recorded action does not fit the policy" if feature else f'the dataset has no "{ACTION}"',
            where=str(dataset.path), fix="give the dataset that the policy was trained on",
            why=f"it has shape {found}, the policy's action [{plan.action.action_dim}]" if feature else
            f"it has {', '.join(dataset.features)}")


def action_names(dataset: Dataset, count: int) -> tuple[str, ...]:
    """What the dataset calls the numbers of an action; where it does not say, their indices."""
    names = dataset.features[ACTION].get("names")
    if isinstance(names, Mapping) and len(names) == 1:  # {"motors": [...]}
        names = next(iter(names.values()))
    if isinstance(names, list) and len(names) == count and all(isinstance(n, str) for n in names):
        return tuple(names)
    return tuple(map(str, range(count)))


def chosen(dataset: Dataset, indices: list[int]) -> list[Episode]:
    """The episodes of these numbers; none given: the first. Raises UsageError."""
    known = {e.index: e for e in dataset.episodes}
    for index in indices:
        if index not in known:
            raise UsageError(f"the dataset has no episode {index}", where="--episode",
                             why=f"it has {len(known)}, {min(known)} to {max(known)}", fix="choose one of these")
    return [known[i] for i in dict.fromkeys(indices)] or [dataset.episodes[0]]


@dataclass
class EpisodeFrames:
    """The recorded sources of an episode, read in blocks of frames that are `stride` apart."""

    dataset: Dataset
    episode: Episode
    filling: Filling
    stride: int = 1

    def __post_init__(self) -> None:
        self._numbers: range = range(0)
        self._block: dict[str, np.ndarray] = {}

    def at(self, frame: int) -> dict[str, np.ndarray]:
        """{source: [1,...] in the plan's dtype}. Frames ahead are read with it."""
        if frame not in self._numbers:
            end = min(frame + BLOCK * self.stride, self.episode.length)
            self._numbers = range(frame, end, self.stride)
            self._block, _ = read_frames(self.dataset, self.episode, self._numbers,
                                         [*dict.fromkeys((*self.filling.recorded, *self.filling.reads))])
        at = self._numbers.index(frame)
        return {n: self._block[n][at][None].astype(NUMPY_DTYPES[dtype]) for n, dtype in self.filling.recorded.items()}

    def read_at(self, frame: int) -> dict[str, np.ndarray]:
        """{recorded value that the host's encoding reads: f32 [...]}"""
        self.at(frame)
        at = self._numbers.index(frame)
        return {n: self._block[n][at].astype(np.float32) for n in self.filling.reads}

    @cached_property
    def told(self) -> tuple[np.ndarray, str]:
        """(recorded actions f64[frames,D], the task's text)."""
        found, task = read_frames(self.dataset, self.episode, range(self.episode.length), [ACTION])
        return found[ACTION].astype(np.float64), task
