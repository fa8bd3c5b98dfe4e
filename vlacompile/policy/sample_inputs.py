"""Inputs for which golden frames are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from vlacompile.policy.policy import Source
from vlacompile.policy.text import TextBuckets


def golden_inputs(sources: dict[str, Source], example: dict[str, torch.Tensor], count: int, seed: int,
                  recorded: Sequence[Mapping[str, torch.Tensor]] = ()) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Inputs that exercise every cache: the example; then everything changed except the task's inputs; then one
    source changed at a time; the rest with everything changed. [(label, {name: tensor})], deterministic in `seed`.
    recorded: observations to change to, and to begin with; without them, and for random numbers, the example is
    varied."""
    rng = np.random.default_rng(seed)
    live = [n for n, s in sources.items() if s.update != "static"]
    fast = [n for n in live if sources[n].update != "task"]
    spread = [recorded[(seed + i * len(recorded) // count) % len(recorded)] for i in range(count)] if recorded else []
    seen = {n for n in live if n in recorded[0] and sources[n].update != "step"} if recorded else set()
    frames = [("recorded", {**example, **{n: spread[0][n] for n in seen}}) if seen else ("example", dict(example))]
    plans = [("observations changed", fast), ("task changed", [n for n in live if n not in fast])]
    plans += [(f"{name} changed", [name]) for name in fast]
    while len(frames) < count:
        label, changed = plans[len(frames) - 1] if len(frames) <= len(plans) else ("all changed", live)
        inputs = dict(frames[-1][1])
        other = _other((*spread[len(frames):], *spread[:len(frames)]), inputs, seen.intersection(changed))
        inputs |= {n: other[n] if n in other else vary(example[n], rng) for n in changed}
        frames.append((label, inputs))
    return frames


def of_all_lengths(drawn: list[tuple[str, dict[str, torch.Tensor]]], buckets: TextBuckets) \
        -> list[tuple[str, dict[str, torch.Tensor]]]:
    """The same inputs, whose texts take all tokens of one length after the other: a frame has another text where all
    that changes within a task did, or nothing of it."""
    found, turn = [], 0
    for label, inputs in drawn:
        turn += label in ("task changed", "all changed")
        used = buckets.lengths[turn % len(buckets.lengths)]
        mask = torch.arange(buckets.lengths[-1])[None] < used
        found.append((label, inputs | {buckets.mask: mask.flip(1) if buckets.side == "left" else mask}))
    return found


def _other(recorded: Sequence[Mapping[str, torch.Tensor]], last: Mapping[str, torch.Tensor],
           names: set[str]) -> dict[str, torch.Tensor]:
    """Of the first observation in which one of these sources is not the last one's, these sources, which belong
    together (an instruction and its mask); empty if there is none: a dataset of one task."""
    found = next((r for r in recorded if any(not torch.equal(r[n], last[n]) for n in names)), None)
    return {} if found is None else {n: found[n] for n in names}


EDGES = 4  # number of frames with edge cases, the same for all sources


def edge_inputs(sources: Mapping[str, Source], example: Mapping[str, torch.Tensor]) \
        -> list[tuple[str, list[dict[str, torch.Tensor]]]]:
    """Edge cases of the inputs. Masks: all false, all true, one true; other sources: zeros, equal numbers, and the ends
    of the range. [(label, edge cases of all sources, then of fewer sources, for a function that fails on those: without
    indices, without masks, without both)]."""
    live = [n for n, s in sources.items() if s.update != "static"]
    masks = {n for n in live if example[n].dtype is torch.bool}
    indices = {n for n in live if not example[n].is_floating_point()
               and example[n].dtype not in (torch.bool, torch.uint8)}
    found = []
    for k in range(EDGES):
        edges = {n: edge(example[n], k) for n in live}
        kept = [edges,
                *({n: t for n, t in edges.items() if n not in out} for out in (indices, masks, indices | masks) if out)]
        found.append((f"edges {k + 1} of {EDGES}", [{**example, **e} for e in kept if e]))
    return found


def edge(example: torch.Tensor, k: int) -> torch.Tensor:
    """The k-th of EDGES edge cases shaped like `example`. Indices and numbers stay within the example's range; uint8
    frames use the full range."""
    if example.dtype is torch.bool:
        none = torch.zeros_like(example)
        first, last = none.clone(), none.clone()
        if example.numel():
            first.view(-1)[0], last.view(-1)[-1] = True, True
        return (none, ~none, first, last)[k]
    if not example.numel():
        return example.clone()
    image = example.dtype is torch.uint8 and example.dim() >= 3
    low, high = (0, 255) if image else (example.min().item(), example.max().item())
    middle = example.reshape(-1)[0].item()
    zero = 0 if low <= 0 <= high or example.is_floating_point() else low
    return torch.full_like(example, (zero, high, low, middle)[k])


def spoken_in_turn(frames: list[tuple[str, dict[str, torch.Tensor]]], spoken: Sequence[Mapping[str, np.ndarray]],
                   ) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """The same frames with the known texts in turn: the next text wherever a frame's text changes. spoken: {source of
    tokens or of their mask: array}; empty: the frames unchanged."""
    found, turn = [], -1
    for i, (label, inputs) in enumerate(frames):
        turn += i == 0 or any(not torch.equal(inputs[n], frames[i - 1][1][n]) for n in (spoken[0] if spoken else ()))
        own = spoken[turn % len(spoken)] if spoken else {}
        found.append((label, inputs | {n: torch.from_numpy(a) for n, a in own.items()}))
    return found


def vary(example: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A perturbed tensor of the same kind that is still a plausible input: noise is added to floats, uint8 images are
    shifted and made noisy, other integers permuted (ids stay in their range), booleans kept."""
    if example.dim() == 0:
        return vary(example[None], rng)[0]
    array = example.numpy()
    if array.dtype.kind == "f":
        spread = float(array.std()) or 1.0
        return torch.from_numpy((array + 0.1 * spread * rng.standard_normal(array.shape)).astype(array.dtype))
    if array.dtype == np.uint8 and array.ndim >= 3:
        shifted = np.roll(array, rng.integers(1, 9, 2), (-3, -2))
        return torch.from_numpy(np.clip(shifted + rng.integers(-8, 9, array.shape), 0, 255).astype(np.uint8))
    if array.dtype.kind in "iu":
        return torch.from_numpy(rng.permutation(array.ravel()).reshape(array.shape))
    return example
