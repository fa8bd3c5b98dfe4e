"""Episodes of a dataset replayed open loop: what a bundle, PyTorch and the recorded robot do at each frame.

Open loop: every observation is the recorded one, whatever the policy's action would have led to. Must not know how
results are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vlacompile.episodes.observations import EpisodeFrames, Filling
from vlacompile.frontends.dataset import Dataset, Episode
from vlart.bundle.directory import Bundle
from vlart.bundle.plan.action import Ensemble, Queue, Realtime
from vlart.bundle.plan.plan import Action
from vlart.errors import RuntimeFailure, UsageError
from vlart.runtime.session import RECORDED, Session
from vlart.verify.reference_actions import ActionReference, NotDecoded

if TYPE_CHECKING:
    from vlacompile.episodes.reference_policy import ReferencePolicy

UNSAFE = ("ACTION_NOT_DECODED", "ACTION_NOT_FINITE", "ACTION_OUT_OF_RANGE")  # a chunk that libvlart refuses


@dataclass(frozen=True)
class Actions:
    """One action per frame, f64[frames,D], NaN where there is none. first: the first of the chunk that was inferred
    at each frame. executed: those that come out of the queue."""

    first: np.ndarray = field(repr=False)
    executed: np.ndarray = field(repr=False)

    @staticmethod
    def none(frames: int, dim: int) -> Actions:
        return Actions(np.full((frames, dim), np.nan), np.full((frames, dim), np.nan))


@dataclass(frozen=True)
class EpisodeReplay:
    """inferred: the frames of `first`. replans: the frames at which the queue asked for a chunk. recorded:
    f64[frames,D]. policy: of PyTorch; None if no policy was given. refused: (frame, why) of chunks that libvlart
    refused."""

    index: int
    task: str
    inferred: tuple[int, ...]
    replans: tuple[int, ...]
    recorded: np.ndarray = field(repr=False)
    bundle: Actions = field(repr=False)
    policy: Actions | None = field(repr=False)
    refused: tuple[tuple[int, str], ...]


def replay_episode(session: Session, bundle: Bundle, policy: ReferencePolicy | None, dataset: Dataset,
                   episode: Episode, filling: Filling, every: int) -> EpisodeReplay:
    """session: of the bundle, with its backbone selected. every: a chunk is inferred at each so-manieth frame."""
    assert bundle.plan.action is not None
    frames = EpisodeFrames(dataset, episode, filling)
    recorded, task = frames.told
    ours, theirs = (Actions.none(episode.length, bundle.plan.action.action_dim) for _ in range(2))
    run = _Run(session, bundle, policy, frames, task, ours, theirs)
    inferred = run.first_actions(every)
    replans = run.executed_actions()
    return EpisodeReplay(episode.index, task, inferred, replans, recorded, ours,
                         None if policy is None else theirs, tuple(sorted(run.refused.items())))


@dataclass
class _Run:
    session: Session
    bundle: Bundle
    policy: ReferencePolicy | None
    frames: EpisodeFrames
    task: str
    ours: Actions
    theirs: Actions

    def __post_init__(self) -> None:
        self.refused: dict[int, str] = {}
        self.chunks: dict[int, np.ndarray] = {}  # PyTorch's, f64[H,D] by frame
        self.looks_back = bool(self.bundle.plan.histories)

    @property
    def action(self) -> Action:
        assert self.bundle.plan.action is not None
        return self.bundle.plan.action

    def first_actions(self, every: int) -> tuple[int, ...]:
        """Infers a chunk at every so-manieth frame; returns these frames. Nothing is popped, no chunk continues
        another."""
        self._begin(every)
        reference = ActionReference(self.bundle.path, self.bundle.plan)
        for frame in self._frames(every):
            self._write(frame, self.frames.filling.guided)
            if frame % every:
                self.session.observe()
                continue
            if self._step(frame):
                self.ours.first[frame] = self._decoded(reference, self.session.read(self._value))[0]
            if self.policy is not None:
                self.theirs.first[frame] = self._chunk(reference, frame)[0]
        return tuple(range(0, self.frames.episode.length, every))

    def executed_actions(self) -> tuple[int, ...]:
        """Pops an action per frame, and infers a chunk where the queue asks for one; returns these frames. A replan
        takes no time here. A chunk that continues the last one continues the bundle's in PyTorch too."""
        stride = self.action.execute_steps
        self._begin(stride)
        reference = ActionReference(self.bundle.path, self.bundle.plan)
        replans: list[int] = []
        for frame in range(self.frames.episode.length):
            due = not replans or self.session.queue().due
            if due or self.looks_back:
                self._write(frame, {})
            if due:
                replans.append(frame)
                self._step(frame)
                if self.policy is not None:
                    if frame not in self.chunks or self.frames.filling.guided:
                        self._chunk(reference, frame)
                    reference.publish(self.chunks[frame])
            elif self.looks_back:
                self.session.observe()
            self.ours.executed[frame] = self._pop()
            if self.policy is not None:
                self.theirs.executed[frame] = reference.pop()
        return tuple(replans)

    @property
    def _value(self) -> str:
        return self.session.action_output

    def _begin(self, stride: int) -> None:
        self.session.reset()
        self.session.invalidate()
        if self.policy is not None:
            self.policy.reset()
        self.frames.stride = 1 if self.looks_back else stride

    def _frames(self, every: int) -> range:
        """A history advances with every frame, also between those at which a chunk is inferred."""
        return range(0, self.frames.episode.length, 1 if self.looks_back else every)

    def _write(self, frame: int, guided: Mapping[str, np.ndarray]) -> None:
        filling = self.frames.filling
        seen = self.frames.at(frame)
        encoded = self.policy.encode(self.task, self.frames.read_at(frame)) if self.policy and filling.encoded else {}
        for name, array in {**seen, **encoded, **filling.draw(self.frames.episode.index, frame), **guided}.items():
            self.session.write(name, array)
        if filling.text is not None:
            self.session.write_text(filling.text[0], self.task)
        if self.policy is not None:
            self.policy.see(seen)

    def _step(self, frame: int) -> bool:
        """Whether there is a new chunk."""
        try:
            self.session.step()
        except RuntimeFailure as failure:
            if failure.status not in UNSAFE:
                raise
            self.refused[frame] = f"{failure.what}: {failure.why}"
            return False
        return True

    def _pop(self) -> np.ndarray:
        try:
            return self.session.pop().astype(np.float64)
        except RuntimeFailure as failure:
            if failure.status not in ("QUEUE_EMPTY", "ACTION_TOO_FAR"):
                raise
            return np.full(self.action.action_dim, np.nan)

    def _chunk(self, reference: ActionReference, frame: int) -> np.ndarray:
        """PyTorch's of this frame, on what the session was given, f64[H,D]."""
        assert self.policy is not None
        raw = self.policy.infer(self._value, self.session.read)
        self.chunks[frame] = self._decoded(reference, raw)
        return self.chunks[frame]

    def _decoded(self, reference: ActionReference, raw: np.ndarray) -> np.ndarray:
        """f64[H,D], NaN for tokens that are no actions."""
        sources: dict[str, np.ndarray] = {n: self.session.read(n) for n in reference.sources}
        try:
            return reference.decode(raw, sources)
        except NotDecoded:
            return np.full((self.action.chunk_steps, self.action.action_dim), np.nan)


def replay_episodes(bundle: Bundle, policy: ReferencePolicy | None, dataset: Dataset, episodes: list[Episode],
                    every: int, progress: Callable[[str], None], *, backbone: str | None = None, threads: int = 0,
                    stand_in: bool = False, native_code: bool = False) -> tuple[EpisodeReplay, ...]:
    """bundle: of one backbone. threads, stand_in, native_code: as Session's. Raises CalibrationError if the dataset
    does not fit, RuntimeFailure if libvlart refuses an input."""
    filling, found = Filling.of(bundle, dataset), []
    if filling.encoded and policy is None:
        raise UsageError(f'"{filling.encoded[0]}" cannot be computed from the bundle alone', where=str(bundle.path),
                         why="the policy's host makes it of the instruction and " + (
                             ", ".join(filling.reads) or "placeholders of images"),
                         fix="give the source that the bundle was built from too: "
                             "vlacompile verify BUNDLE --dataset DATASET --source SOURCE")
    with Session(bundle.path, threads=threads, stand_in=stand_in, accept=RECORDED,
                 native_code=native_code) as session:
        if bundle.plan.backbones:
            session.select(backbone or bundle.plan.backbones[0].name)
        for episode in episodes:
            progress(f"replay: episode {episode.index}, {episode.length} frames")
            found.append(replay_episode(session, bundle, policy, dataset, episode, filling, every))
    return tuple(found)


def consumption_text(action: Action) -> str:
    """How actions come out of the queue, in words."""
    match action.consume:
        case Queue():
            return f"queue, {action.execute_steps} of {action.chunk_steps} actions"
        case Ensemble(decay):
            return f"ensemble of chunks, decay {decay:g}"
        case Realtime():
            return f"real-time chunking, a replan every {action.execute_steps} frames"
