"""What a session says of its stages: how often they ran, and how long that took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageTimes:
    """runs: completed runs of the stage since the session began; times in microseconds. iterations: those of a loop, of
    all runs; last_iterations: of the last run, fewer than the plan's where the data decided so."""

    runs: int
    last_us: float
    total_us: float
    min_us: float
    max_us: float
    iterations: int = 0
    last_iterations: int = 0

    @property
    def mean_iterations(self) -> float:
        return self.iterations / self.runs if self.runs else 0.0


@dataclass(frozen=True)
class Stats:
    """stages: {name: StageTimes}. skipped: stages that were up to date, over all steps."""

    stages: dict[str, StageTimes]
    steps: int
    skipped: int
    deadline_misses: int
    last_step_us: float

    def runs(self) -> dict[str, int]:
        return {name: s.runs for name, s in self.stages.items()}
