"""Observations on which decisions are based: the policy's recorded ones, or generated ones if it has none; and edge
cases that are known without recordings: bytes, ids and masks.

Must not know the decisions. Results on generated observations are not measurements; `Policy.calibration` is empty then.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from vlacompile.compiler.capture.history import append, newest_of
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.sample_inputs import vary
from vlacompile.recipe.precision_recipe import PrecisionRecipe
from vlacompile.recipe.recipe import LoopRecipe

Inputs = Mapping[str, torch.Tensor]
NEAR = 0.1
EPISODE = 8  # steps


def calibration(policy: Policy, recipe: LoopRecipe | PrecisionRecipe, at_least: int = 0) -> list[Inputs]:
    """The policy's recorded observations, or max(recipe.observations, at_least) generated ones, each with its own
    noise. Of a history only the newest observation is given; it fills the whole history."""
    draw, sources = torch.Generator().manual_seed(0), dict(policy.sources)
    newest = newest_of(sources, policy.example_inputs)
    seen = [newest_of(sources, inputs) for inputs in policy.calibration] or _generated(
        sources, newest, max(recipe.observations, at_least))
    return _with_carried(policy, [inputs | _noise(sources, newest, draw) for inputs in seen])


def as_stacked(policy: Policy, inputs: Inputs) -> dict[str, torch.Tensor]:
    """An observation as the inference function takes it, with histories that it fills."""
    return {n: append(None, t, policy.sources[n].history)
            if n in policy.sources and policy.sources[n].history > 1 else t for n, t in inputs.items()}


def _with_carried(policy: Policy, observations: list[Inputs]) -> list[Inputs]:
    """The observations, with what a step takes from the one before: as if they followed each other in episodes of
    EPISODE steps."""
    found: list[Inputs] = []
    carried: dict[str, torch.Tensor] = {}
    for i, inputs in enumerate(observations if policy.carried else ()):
        if i % EPISODE == 0:
            carried = {n: c.initial for n, c in policy.carried_inputs.items()}
        found.append({**inputs, **carried})
        with torch.no_grad():
            given = {n: t.clone() for n, t in as_stacked(policy, found[-1]).items()}
            carried = {n: t.detach() for n, t in policy.handed_on(policy.infer(**given)).items()}
    return found or observations


def _noise(sources: Mapping[str, Source], newest: Inputs, draw: torch.Generator) -> dict[str, torch.Tensor]:
    return {n: torch.randn(newest[n].shape, generator=draw).to(newest[n].dtype) for n, s in sources.items()
            if s.update == "step" and newest[n].is_floating_point()}


def _generated(sources: Mapping[str, Source], example: Inputs, count: int) -> list[dict[str, torch.Tensor]]:
    """The example, and random observations around it: three of four within its own magnitude, every fourth within NEAR
    of it. An instruction is kept for two consecutive observations."""
    rng = np.random.default_rng(0)
    found = [dict(example)]
    while len(found) < count:
        share = 1.0 if len(found) % 4 else NEAR
        live = [n for n, s in sources.items() if s.update != "static" and (s.update != "task" or len(found) % 2 == 0)]
        found.append(found[-1] | {n: drawn(example[n], rng, share) for n in live})
    return found


def drawn(example: torch.Tensor, rng: np.random.Generator, share: float = 1.0) -> torch.Tensor:
    """A random tensor of the same kind. Floats: the example plus Gaussian noise, whose standard deviation is `share`
    times the element's magnitude or the median magnitude, whichever is larger. Pixels: other brightness and contrast.
    All others: see `vary`."""
    if example.dim() == 0:
        return drawn(example[None], rng, share)[0]
    array = example.numpy() if example.dtype != torch.bfloat16 else example.float().numpy()
    if array.dtype.kind == "f":
        size = np.abs(array)
        usual = float(np.median(size)) or float(size.max(initial=0.0)) or 1.0
        new = array + share * np.maximum(size, usual) * rng.standard_normal(array.shape)
        if array.ndim >= 3:  # for pixels and features the range of the example is taken as the valid range
            new = new.clip(array.min(), array.max())
        return torch.from_numpy(new.astype(array.dtype)).to(example.dtype)
    if array.dtype == np.uint8 and array.ndim >= 3:
        moved = vary(example, rng).numpy().astype(np.float64)
        lit = (moved - 127.5) * (1 + share * rng.uniform(-0.7, 0.5)) + 127.5 + share * rng.uniform(-64, 64)
        return torch.from_numpy(lit.round().clip(0, 255).astype(np.uint8))
    return vary(example, rng)


def edges(policy: Policy) -> list[tuple[str, Inputs]]:
    """[(what is at its edge, inputs)]: black and white frames; if nothing is recorded, also the lowest and highest
    valid id as far as the example shows, and masks that are all true or true at the first position only. All other
    inputs are those of the first observation."""
    sources = dict(policy.sources)
    first = newest_of(sources, (*policy.calibration, policy.example_inputs)[0])
    live = {n: t for n, t in first.items() if sources[n].update != "static"}
    frames = [n for n, t in live.items() if t.dtype == torch.uint8 and t.dim() >= 3]
    rest = {} if policy.calibration else {n: t for n, t in live.items() if not t.is_floating_point()
                                          and n not in frames}
    masks = [n for n, t in rest.items() if t.dtype == torch.bool]
    ids = [n for n in rest if n not in masks]
    # 0 is a valid id unless the example has smaller ones; the table's length is unknown, but covers the example's ids
    low = {n: torch.zeros_like(live[n]) for n in frames} | {n: torch.full_like(live[n], min(0, int(live[n].min())))
                                                            for n in ids}
    high = {n: torch.full_like(live[n], 255) for n in frames} | {n: torch.full_like(live[n], int(live[n].max()))
                                                                 for n in ids}
    every = {n: torch.ones_like(live[n]) for n in masks}
    alone = {n: torch.zeros_like(live[n]) for n in masks}
    for t in alone.values():
        t[..., :1] = True
    found = [("the lowest bytes and ids", low | every),
             ("the highest bytes and ids", high | every)] if low or every else []
    found += [("masks of the first place alone", alone)] if alone else []
    draw, begin = torch.Generator().manual_seed(1), {n: c.initial for n, c in policy.carried_inputs.items()}
    return [(words, first | changed | _noise(sources, first, draw) | begin) for words, changed in found]

