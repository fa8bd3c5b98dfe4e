"""Choices between scores (argmax, argmin), and how many of them fall on another one in a precision.

What comes of a choice is a step function of the scores: on few observations its error is 0, or as large as actions
differ from each other. How many choices change says more. Must not know schemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import Node

from vlacompile.compiler.staging.stages import Staged, StageGraph

_ATEN = torch.ops.aten
CHOOSES = frozenset({_ATEN.argmax.default, _ATEN.argmin.default})


@dataclass(frozen=True)
class Changed:
    """Of all choices (of), how many are other ones (number)."""

    number: int
    of: int

    def __add__(self, other: Changed) -> Changed:
        return Changed(self.number + other.number, self.of + other.of)


@dataclass
class Choices:
    """What each stage chose on one observation: in the order of its graph and of its iterations. `see` observes a run
    of StageRunner."""

    found: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def see(self, stage: StageGraph, node: Node, result: object) -> None:
        if node.target in CHOOSES and isinstance(result, torch.Tensor):
            self.found.setdefault(stage.name, []).append(result.flatten())

    def changed(self, want: Choices) -> Changed:
        """Against those of the stages in fp32. A loop that ends earlier or later made other choices from there on."""
        number = of = 0
        for stage in {**self.found, **want.found}:
            got, wanted = (_joined(x.found.get(stage, [])) for x in (self, want))
            both, of = min(len(got), len(wanted)), of + max(len(got), len(wanted))
            number += int((got[:both] != wanted[:both]).sum()) + abs(len(got) - len(wanted))
        return Changed(number, of)


def makes_choices(staged: Staged) -> bool:
    return any(n.target in CHOOSES for s in staged.stages for n in s.graph.nodes)


def changed(got: Sequence[Choices], want: Sequence[Choices]) -> Changed:
    """Over several observations."""
    return sum((a.changed(b) for a, b in zip(got, want, strict=True)), Changed(0, 0))


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
