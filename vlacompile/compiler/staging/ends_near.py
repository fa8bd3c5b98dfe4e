"""Loops whose end the data decide: where f32 rounding alone makes one end an iteration earlier or later, another engine
may end it there as well, and its results differ by what an iteration changes. Must not know limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch.fx import Node

from vlacompile.compiler.staging.perturbed_runs import frame_values, perturbed
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlart.verify.frames import Frame

FRAMES = 2  # on which it is tried


def ends_near(staged: Staged, frames: Sequence[Frame]) -> tuple[str, ...]:
    """A line per loop that ends elsewhere under opposite rounding errors, on the first frames that are no edges."""
    ended = [s for s in staged.stages if s.end is not None]
    tried = [f for f in frames if not f.edge][:FRAMES] if ended else []
    runner, found = StageRunner(staged), []
    runs = {sign: _iterations(runner, tried, sign) for sign in (1.0, -1.0)} if tried else {}
    for stage in ended:
        for label, *counts in zip((f.label for f in tried), *runs.values(), strict=True):
            one, other = (c[stage.name] for c in counts)
            if one != other:
                found.append(f'{stage.name}: its end is within rounding on frame "{label}": after {min(one, other)} or '
                             f"{max(one, other)} iterations")
                break
    return tuple(found)


def _iterations(runner: StageRunner, frames: Sequence[Frame], sign: float) -> list[Counter]:
    """{stage: how often it ran}, frame by frame."""
    found: list[Counter] = []
    round_anew = perturbed(0, sign)

    def observe(stage: StageGraph, node: Node, result: object) -> object:
        if node is next(iter(stage.graph.nodes)):
            found[-1][stage.name] += 1
        return round_anew(stage, node, result)

    for frame in frames:  # each by itself: what is kept from another frame counts as no run
        found.append(Counter())
        frame_values(runner, [frame], observe)
    return found
