"""Finds the layers of a stage that are equal but for their weights: depth is a loop too.

Found as iterations of a loop over steps are (`loop_candidates.py`, `roll_loop.py`), except that each iteration has
weights of its own, and that results of every layer (keys and values) may be read outside. Must not know what is made of
them: `roll_depth.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.staging.loop_candidates import Candidate, candidates, trace_of
from vlacompile.compiler.staging.roll_loop import NoLoop, Roll, roll
from vlacompile.compiler.staging.stages import StageGraph

FEWEST = 3  # layers
_LEAST_SHARE = 0.5  # of a stage's weights that the layers must have
_TRIED = 64  # candidates that cover equally much, of which the one with the smallest crossing values counts
_FLOATS = (torch.float32, torch.float16)


@dataclass(frozen=True)
class Depth:
    """layers: how many are equal. bytes: of the weights of all of them, each of them `bytes / layers`; rest: of the
    stage's other weights."""

    found: Roll
    layers: int
    bytes: int
    rest: int


def find_depth(stage: StageGraph) -> tuple[Depth | None, str]:
    """(the equal layers of a stage, or None; what they are, or why there are none)."""
    if stage.iterations > 1 or stage.carries:
        return None, "it is a loop already"
    nodes = [n for n in stage.graph.nodes if n.op == "call_function"]
    trace, best, why = trace_of(nodes), None, "no layers are repeated"
    tried = 0
    for c in candidates((), trace, FEWEST):
        if best is not None and (c.nodes < best.found.candidate.nodes or tried >= _TRIED):
            break
        if tried >= 4 * _TRIED:
            break
        tried += 1
        try:
            depth = _depth(stage, roll(trace, c, gathers=True), c)
        except NoLoop as reason:
            why = str(reason) if best is None else why
            continue
        if best is None or _crossing(depth) < _crossing(best):
            best = depth
    return best, why if best is None else f"{best.layers} equal layers of {best.found.candidate.period} nodes"


def _depth(stage: StageGraph, found: Roll, c: Candidate) -> Depth:
    """Raises NoLoop for a repetition that is none of layers with weights of their own."""
    sizes = {n: t.numel() * t.element_size() for n, t in stage.constants.items()}
    own: set[str] = set()
    for operands in found.tables:
        if not all(isinstance(n, Node) and n.op == "get_attr" for n in operands):
            raise NoLoop("the layers differ in more than their weights")
        if any(n.meta["val"].dtype not in _FLOATS for n in operands):
            raise NoLoop("the weights of the layers are quantised")
        own |= {n.target for n in operands}
    weights = sum(c.iterations * max(sizes[n.target] for n in operands) for operands in found.tables)
    rest = sum(size for n, size in sizes.items() if n not in own)
    if not weights or weights < _LEAST_SHARE * (weights + rest):
        raise NoLoop("the layers have few of its weights")
    return Depth(found, c.iterations, weights, rest)


def _crossing(depth: Depth) -> int:
    """Bytes that cross from layer to layer, and out of each."""
    found = depth.found
    nodes = [found.region[i] for i in (*found.carried, *found.gathered)]
    return sum(n.meta["val"].numel() * n.meta["val"].element_size() for n in nodes)
