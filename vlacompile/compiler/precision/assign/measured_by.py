"""The observations for choosing and measuring a precision: those that decide, held-out ones, and edge cases.

Edge cases are extreme bytes, ids and masks, which are valid whatever the robot sees. Ranges of activations include
them; if observations are recorded they decide nothing else, because they are possible but not typical. Must not know
schemes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.precision.assign.assign import split
from vlacompile.compiler.precision.assign.sensitivity import Inputs
from vlacompile.compiler.precision.quantise.layers import KINDS, layers_of
from vlacompile.compiler.staging.observations import calibration, edges
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.policy.policy import Policy
from vlacompile.recipe.precision_recipe import PrecisionRecipe

# Ranges are widened by MARGIN / n for n observations: 8 generated ones double it, 64 recorded ones widen it by a
# sixteenth. A range that is twice too wide costs one bit; one that is too narrow saturates, with an unbounded error.
MARGIN = {"generated": 8.0, "recorded": 4.0}
# For a small policy more observations are generated than the recipe asks for: up to MOST, within these limits on the
# total work and number of calls.
MOST, CHEAP_FLOPS, CHEAP_CALLS = 32, 10e9, 10_000


@dataclass(frozen=True)
class Observed:
    """fitted: observations that decide. held: held-out ones, or none. edges: edge cases, for ranges only. recorded:
    number of observations that the policy provides. notes: what was left out."""

    fitted: tuple[Inputs, ...]
    held: tuple[Inputs, ...]
    edges: tuple[Inputs, ...]
    recorded: int
    notes: tuple[str, ...] = ()

    @property
    def deciding(self) -> tuple[Inputs, ...]:
        """The basis of choices: generated observations together with the edge cases, which are as real as they are."""
        return self.fitted if self.recorded else self.fitted + self.edges

    @property
    def margin(self) -> float:
        return 1.0 + MARGIN["recorded" if self.recorded else "generated"] / len(self.fitted)


def observed(staged: Staged, policy: Policy, recipe: PrecisionRecipe) -> Observed:
    """Leaves out generated observations and edge cases that the policy cannot handle: its results on them, or the input
    of one of its layers, are not finite."""
    known = {n for n, s in policy.sources.items() if s.update == "static"}  # constants of the program

    def live(found: Iterable[Inputs]) -> list[Inputs]:
        return [{n: t for n, t in x.items() if n not in known} for x in found]

    seen, (words, at_edges) = live(calibration(policy, recipe, _affordable(staged))), _split(edges(policy))
    kept = seen if policy.calibration else seen[:1] + _finite(staged, seen[1:])
    sound = [(w, x) for w, x in zip(words, live(at_edges), strict=True) if _finite(staged, [x])]
    notes = [f"left out, as the policy returns NaN or fails: {len(seen) - len(kept)} generated observations"] * (
        len(kept) < len(seen))
    notes += [f"left out, as the policy returns NaN or fails: {w}" for w in words if w not in dict(sound)]
    fitted, held = split(kept)
    return Observed(tuple(fitted), tuple(held), tuple(x for _, x in sound), len(policy.calibration), tuple(notes))


def _affordable(staged: Staged) -> int:
    work = sum(s.flops * s.iterations for s in staged.stages)
    calls = sum(len(s.graph.nodes) * s.iterations for s in staged.stages)
    return min(MOST, int(CHEAP_FLOPS / max(work, 1)), CHEAP_CALLS // max(calls, 1))


def _split(pairs: Sequence[tuple[str, Inputs]]) -> tuple[list[str], list[Inputs]]:
    return [w for w, _ in pairs], [x for _, x in pairs]


def _finite(staged: Staged, observations: Sequence[Inputs]) -> list[Inputs]:
    """Those on which all actions, and all inputs of layers, are finite."""
    read = {s.name: {n.args[1 - KINDS[n.target][1]].name for n in s.graph.nodes if n.name in own}
            for s in staged.stages for own in [{x.node for x in layers_of(s)}]}
    runner, found = StageRunner(staged), []
    for inputs in observations:
        bad: list[str] = []

        def look(stage: StageGraph, node: Node, result: object, bad=bad, read=read) -> None:
            if node.name in read[stage.name] and not bool(torch.isfinite(result).all()):
                bad.append(node.name)

        try:
            values = runner.run(inputs, observe=look)
        except (IndexError, RuntimeError):  # an id or a length that is out of range
            continue
        if not bad and bool(torch.isfinite(staged.program.action_in(values)).all()):
            found.append(inputs)
    return found
