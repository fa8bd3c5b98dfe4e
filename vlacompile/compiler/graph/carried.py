"""The inputs of a program that the step before gives: how a graph says "state"."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch

from vlacompile.policy.policy import Source


@dataclass(frozen=True)
class CarriedSource(Source):
    """What the output `next` was after the last step; `initial` before the first. until: a key of
    vocabulary.LIFETIMES. It changes in every step, so oftener than what the robot writes."""

    update: str = "tick"
    next: str = ""
    initial: torch.Tensor = field(default_factory=lambda: torch.zeros(1), compare=False)
    until: str = "episode"


def carried_in(sources: Mapping[str, Source]) -> dict[str, CarriedSource]:
    return {name: s for name, s in sources.items() if isinstance(s, CarriedSource)}


def written_in(sources: Mapping[str, Source]) -> dict[str, Source]:
    """The sources that the robot writes."""
    return {name: s for name, s in sources.items() if not isinstance(s, CarriedSource)}


def end_lifetimes(sources: Mapping[str, Source], past: dict[str, torch.Tensor], before: Mapping[str, torch.Tensor],
                  now: Mapping[str, torch.Tensor], needed: Collection[str]) -> None:
    """Takes out of `past` what does not outlive a task, where another one begins: a source of it that is needed was
    written `before` with another content than `now`."""
    tasks = [n for n, s in sources.items() if s.update == "task" and n in needed and n in before and n in now]
    if any(not torch.equal(before[n], now[n]) for n in tasks):
        for name, s in carried_in(sources).items():
            if s.until == "task":
                past.pop(name, None)
