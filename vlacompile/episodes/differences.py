"""How far bundle, PyTorch and recorded actions are apart, per dimension of the action, in units of its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vlacompile.compiler.staging.action_scale import ActionScale
from vlacompile.episodes.replay import Actions, EpisodeReplay
from vlacompile.episodes.smoothness import Smoothness


@dataclass(frozen=True)
class Differences:
    """Means of absolute differences over frames, in units of the spread; None where there is nothing to compare."""

    bundle_policy: float | None
    bundle_recorded: float | None
    policy_recorded: float | None

    @staticmethod
    def of(bundle: np.ndarray, policy: np.ndarray | None, recorded: np.ndarray, spread: float) -> Differences:
        """Arrays: f64[frames] of one dimension, NaN where there is no action."""
        return Differences(None if policy is None else _mean(bundle - policy, spread), _mean(bundle - recorded, spread),
                           None if policy is None else _mean(policy - recorded, spread))


@dataclass(frozen=True)
class Dimension:
    """spread: standard deviation of the recorded actions of these episodes (ActionScale says what of constant ones).
    first, executed: as of Actions. worst: the largest difference of bundle and PyTorch, where it is: (difference in
    units of the spread, episode, frame). smooth: of the executed actions, by whose they are ("bundle", "policy",
    "recorded"); the recorded ones have no chunks, and are looked at where the bundle's begin."""

    name: str
    spread: float
    first: Differences
    executed: Differences
    worst: tuple[float, int, int] | None
    smooth: Mapping[str, Smoothness]


def dimensions(episodes: Sequence[EpisodeReplay], names: Sequence[str], fps: float) -> tuple[Dimension, ...]:
    recorded = np.concatenate([e.recorded for e in episodes])
    spread = ActionScale.of([torch.from_numpy(recorded)[None]]).spread.tolist()
    found = []
    for d, name in enumerate(names):
        both = []
        for part in ("first", "executed"):
            bundle = np.concatenate([getattr(e.bundle, part)[:, d] for e in episodes])
            policy = [_part(e.policy, part)[:, d] for e in episodes if e.policy is not None]
            both.append(Differences.of(bundle, np.concatenate(policy) if policy else None, recorded[:, d], spread[d]))
        found.append(Dimension(name, spread[d], both[0], both[1], _worst(episodes, d, spread[d]),
                               _smooth(episodes, d, spread[d], fps)))
    return tuple(found)


def _smooth(episodes: Sequence[EpisodeReplay], d: int, spread: float, fps: float) -> dict[str, Smoothness]:
    whose = {"bundle": [e.bundle.executed for e in episodes],
             "policy": [e.policy.executed for e in episodes if e.policy is not None],
             "recorded": [e.recorded for e in episodes]}
    return {of: Smoothness.of([a[:, d] for a in actions], [e.replans for e in episodes], spread, fps)
            for of, actions in whose.items() if actions}


def _part(actions: Actions, part: str) -> np.ndarray:
    return getattr(actions, part)


def _mean(difference: np.ndarray, spread: float) -> float | None:
    known = np.abs(difference[np.isfinite(difference)])
    if not known.size:
        return None
    return 0.0 if not known.any() else float(known.mean() / spread) if spread > 0 else float("inf")


def _worst(episodes: Sequence[EpisodeReplay], d: int, spread: float) -> tuple[float, int, int] | None:
    found: tuple[float, int, int] | None = None
    for e in episodes:
        if e.policy is None:
            return None
        apart = np.nan_to_num(np.abs(e.bundle.first[:, d] - e.policy.first[:, d]), nan=-1.0)
        at = int(apart.argmax())
        if apart[at] >= 0 and (found is None or apart[at] / (spread or 1.0) > found[0]):
            found = float(apart[at] / (spread or 1.0)), e.index, at
    return found
