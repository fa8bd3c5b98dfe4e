"""Golden frames of stages in reduced precision: their own values, and how far they are from the policy.

Owns the limits of both. Must not know how the precision was chosen, nor engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from vlacompile.compiler.behind_steps import LARGER_IN_HALF
from vlacompile.compiler.precision.fp16.attention_masks import saturated
from vlacompile.compiler.staging.perturbed_runs import PERTURBED_RUNS, frame_values, overflows, perturbed
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged
from vlart.errors import PrecisionError
from vlart.verify.frames import Expected, Frame
from vlart.verify.metrics import Limit, differences
from vlart.verify.tolerances import (
    CHANCE,
    Errors,
    Scale,
    Seen,
    beside_policy,
    beside_steps,
    columns_of,
    is_small,
    tolerance,
    within_precision,
)
from vlart.vocabulary import dtype_name

OVERFLOWN = 0.02  # error of an output, as a share of its spread, from which on an overflow before it is no detail
LIKE_THESE = "give Policy(calibration=...) observations like these, or keep the layers before it in fp32 by a rule"


def golden_precise(frames: Sequence[Frame], precise: Staged, outputs: tuple[str, ...],
                   masks: frozenset[str] = frozenset()) -> list[Frame]:
    """The same frames with the values that the stages compute in their precision, and limits for other engines (see
    verify/tolerances.py). The policy's results in full precision are kept as references. Whole numbers are compared
    exactly, but for small steps that rounding was seen to decide on that frame; and not at all where it decides large
    ones, such as the better one of two equally good tokens, nor with the policy where the precision does.
    masks: values that only mask logits: saturating them in fp16 does not count as an error. Raises PrecisionError."""
    runner = StageRunner(precise)
    plain, overflowed = overflows(runner, frames)
    whole = any(e.array.dtype.kind != "f" for e in frames[0].expects.values())
    anew = [*range(PERTURBED_RUNS), *((perturbed(0, t) for t in (LARGER_IN_HALF, -LARGER_IN_HALF)) if whole else ())]
    runs = [[{n: v[n].contiguous().numpy() for n in f.expects} for v, f in zip(values, frames, strict=True)]
            for values in (plain, *(frame_values(runner, frames, seed) for seed in anew))]
    found = [replace(f, expects={}, references={}) for f in frames]
    for name in frames[0].expects:
        value = _PreciseValue(name, name in outputs, name in masks, frames, [[r[name] for r in run] for run in runs])
        if name in outputs:
            value.require_no_overflow(overflowed)
        for i, frame in enumerate(found):
            if value.is_decided_by_rounding(i):
                continue
            limit = value.limit(i)
            frame.expects[name] = Expected(runs[0][i][name], limit)
            if name in outputs and not value.is_another_choice(i):
                frame.references[name] = Expected(frames[i].expects[name].array, value.limit_of_policy(i, limit))
    return found


class _PreciseValue:
    """One value in full and in reduced precision on all frames, and how far runs that round anew are apart."""

    def __init__(self, name: str, output: bool, mask: bool, frames: Sequence[Frame],
                 runs: Sequence[Sequence[np.ndarray]]):
        def seen(x: np.ndarray) -> np.ndarray:
            return saturated(torch.from_numpy(x)).numpy() if mask else x

        self.name, self.mask, self.frames = name, mask, frames
        self.want = [seen(f.expects[name].array) for f in frames]
        self.mine = [seen(x) for x in runs[0]]
        regular = [i for i, f in enumerate(frames) if not f.edge]
        columns = columns_of(self.want[0].shape, output)
        self.scale = Scale.of([self.want[i] for i in regular], columns)
        self._require_finite()
        moved = [Seen.of(m, w, columns) for m, w in zip(self.mine, self.want, strict=True)]
        apart = [[Seen.of(seen(run[i]), m, columns) for run in runs[1:1 + PERTURBED_RUNS]]
                 for i, m in enumerate(self.mine)]
        self.moved = [Errors([e], [moved[i] for i in regular]) for e in moved]
        self.apart = [Errors(e, [d for i in regular for d in apart[i]]) for e in apart]
        self.again = [[run[i] for run in runs[1:]] for i in range(len(frames))]

    def is_decided_by_rounding(self, i: int) -> bool:
        """Whether rounding chooses another number than a neighbour."""
        return self.mine[i].dtype.kind != "f" and not self._are_neighbours(self.mine[i], self.again[i])

    def is_another_choice(self, i: int) -> bool:
        return self.mine[i].dtype.kind != "f" and not self._are_neighbours(self.mine[i], [self.want[i]])

    def _are_neighbours(self, mine: np.ndarray, others: Sequence[np.ndarray]) -> bool:
        steps = max(float(np.abs(differences(other, mine)).max(initial=0.0)) for other in others)
        return steps == 0 or is_small(np.array([steps]), self.scale.reach.max(keepdims=True))

    def limit(self, i: int) -> Limit:
        """Against the compiler's own computation in that precision, on the i-th frame."""
        full, want = self.frames[i].expects[self.name].limit, self.want[i]
        if want.dtype.kind != "f":
            return beside_steps(full, self.mine[i], self.again[i], np.zeros(1), self.scale.reach.max(keepdims=True))
        full = tolerance(dtype_name(want.dtype.str), "stage").limit(want, self.scale) if self.mask else full
        return within_precision(full, self.scale.beside(want), self.mine[i], self.moved[i], self.apart[i])

    def limit_of_policy(self, i: int, within: Limit) -> Limit:
        want = self.want[i]
        return (beside_policy(within, self.scale.beside(want), want, self.moved[i]) if want.dtype.kind == "f" else
                beside_steps(within, want, [self.mine[i]], np.zeros(1), self.scale.reach.max(keepdims=True)))

    def require_no_overflow(self, where: Sequence[str]) -> None:
        """where: per frame the place of an overflow, or "". An overflow may be harmless, as that of the exponential in
        a sigmoid; refused is one that moves an output further than rounding does."""
        for i, place in enumerate(where):
            scale, error = self.scale.beside(self.want[i]), self.moved[i].here[0]
            share = scale.typical([error]) / np.where(scale.spread > 0, scale.spread, np.inf)
            rounding = scale.typical(self.apart[i].here)
            if place and bool(((share > OVERFLOWN) & (scale.typical([error]) > CHANCE * rounding)).any()):
                raise PrecisionError(
                    f'"{self.name}" is wrong in fp16, because a value overflows',
                    where=f'golden frame "{self.frames[i].label}", {place}',
                    why=f"it is off by {float(error.largest.max()):.3g}; over all frames it spreads by "
                        f"{float(scale.spread.max()):.3g}. The calibration observations are not close to these inputs",
                    fix=LIKE_THESE)

    def _require_finite(self) -> None:
        for frame, mine, want in zip(self.frames, self.mine, self.want, strict=True):
            if not np.isfinite(mine).all() and np.isfinite(want).all():
                raise PrecisionError(
                    f'"{self.name}" is NaN or infinite in the chosen precision', where=f'golden frame "{frame.label}"',
                    why="it is finite in full precision: the calibration observations are not close to these inputs",
                    fix=LIKE_THESE)
