"""Values behind a rounding, a comparison or a choice: where a number lies within rounding of a half, or two tokens are
equally good, two correct engines hand out different ones.

Owns how near a step is near. Must not know how golden frames are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_step
from vlacompile.compiler.staging.perturbed_runs import frame_values, perturbed, roundings
from vlacompile.compiler.staging.run_stages import StageRunner, Values
from vlart.verify.frames import Frame

# Errors are drawn so many times as large as those of rounding. An engine's own are smaller than the drawn ones, and it
# may fall to the other side where neither of the two draws does: with a factor of 1 at one number of ten that it
# changes, with this one at one of some hundred, of which it changes few.
LARGER, LARGER_IN_HALF = 32.0, 4.0  # of f32, and of 16 bits, whose drawn errors are at most twice an engine's


def behind_steps(runner: StageRunner, frames: Sequence[Frame]) -> list[Mapping[str, list[np.ndarray]]]:
    """Per frame {value that a step decides: it, in two runs with opposite rounding errors, LARGER times as large}; in
    one or none, where the errors lead to a place that is none."""
    names = _behind_steps(runner)
    runs = [r for t in (LARGER, -LARGER) if (r := _moved(runner, frames, t)) is not None] if names else []
    return [{n: [run[i][n].contiguous().numpy() for run in runs] for n in names} if runs else {}
            for i in range(len(frames))]


def _moved(runner: StageRunner, frames: Sequence[Frame], times: float) -> list[Values] | None:
    try:
        return frame_values(runner, frames, perturbed(0, times))
    except (IndexError, RuntimeError):  # PyTorch's errors of an index
        return None


def _behind_steps(runner: StageRunner) -> set[str]:
    """Values that are computed from what a step makes of a rounded number."""
    program, rounded, behind = runner.staged.program, set[Node](), set[Node]()
    for node, size in roundings(program.graph).items():
        read = [] if node.name in runner.staged.folded else node.all_input_nodes
        if (is_step(node) and not rounded.isdisjoint(read)) or not behind.isdisjoint(read):
            behind.add(node)
        if (read and size) or not rounded.isdisjoint(read):
            rounded.add(node)
    found = {n.name for n in behind}
    return {name for name, node in runner.staged.origin.items() if node in found}
