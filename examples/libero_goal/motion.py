"""How smooth an episode was: the hand's jerk, and how far the commands jump where a new chunk begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

HZ = 20.0  # of the control loop


def jerk_of(hand: Sequence[np.ndarray]) -> float:
    """Root mean square of the third difference of the hand's position, m/s^3. hand: its position [3] at every step."""
    third = np.diff(np.asarray(hand, float), 3, axis=0) * HZ**3
    return float(np.sqrt((third**2).sum(1).mean())) if len(third) else 0.0


@dataclass
class Motion:
    """Collects an episode. hand: positions, from before the first step. commands: of the arm, [6] in [-1, 1]; begins:
    those that are the first of a chunk."""

    hand: list[np.ndarray]
    commands: list[np.ndarray] = field(default_factory=list)
    begins: list[bool] = field(default_factory=list)

    def step(self, hand: np.ndarray, command: np.ndarray, begins: bool) -> None:
        self.hand.append(hand.copy())
        self.commands.append(command[:6].copy())
        self.begins.append(begins)

    @property
    def jerk(self) -> float:
        return jerk_of(self.hand)

    def mean_step(self, begins: bool) -> float | None:
        """Mean distance from one command to the next: into the first of a chunk (the jump), or within chunks. None:
        there is no such pair."""
        steps = np.linalg.norm(np.diff(self.commands, axis=0), axis=1) if len(self.commands) > 1 else np.zeros(0)
        chosen = steps[np.asarray(self.begins[1:], bool) == begins]
        return float(chosen.mean()) if chosen.size else None
