"""The squared-cosine noise schedule (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17), and DDIM on it."""

from __future__ import annotations

import itertools
import math

from vlacompile.frontends.samplers import Sampler, ddim

LARGEST = 0.999


def cosine_betas(count: int) -> list[float]:
    shares = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
    return [min(1 - b / a, LARGEST) for a, b in itertools.pairwise(shares)]


def bars(betas: list[float]) -> list[float]:
    """Share of the signal at each timestep: the cumulative product of 1 - beta."""
    return list(itertools.accumulate((1 - b for b in betas), lambda a, b: a * b))


def cosine_ddim(trained: int, steps: int, clip: float | None) -> Sampler:
    """DDIM of an epsilon network: every (trained / steps)-th timestep down to 0, and the clean sample after it."""
    known, timesteps = bars(cosine_betas(trained)), [i * (trained // steps) for i in reversed(range(steps))]
    return ddim(timesteps, [*(known[t] for t in timesteps), 1.0], "epsilon", clip)
