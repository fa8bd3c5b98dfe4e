"""Sampling loops of denoising policies, with schedules as tensors with one row per step so that they can be traced.

Every solver here is the same recurrence with other coefficients: the network's output and the sample give an estimate
of the clean sample, and the next sample is a sum of the sample, this estimate, the previous estimate, the output and
fresh noise. Equations: DDPM, Ho et al. 2020 (arXiv 2006.11239), eq. 6 and 7 with the small fixed variance; DDIM, Song
et al.
2021 (arXiv 2010.02502), eq. 12 with eta 0; DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095), algorithm 2; flow
matching's Euler step; guidance, Ho and Salimans 2022 (arXiv 2207.12598), eq. 6. As implemented in diffusers 0.35.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from vlacompile.policy.iterations import iterations
from vlart.errors import SourceError

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Columns of a sampler's coefficients: clean = CLEAN_OF_SAMPLE * sample + CLEAN_OF_OUTPUT * output, clipped;
# next = SAMPLE * sample + CLEAN * clean + BEFORE * clean of the previous step + OUTPUT * output + FRESH * fresh noise.
CLEAN_OF_SAMPLE, CLEAN_OF_OUTPUT, SAMPLE, CLEAN, BEFORE, OUTPUT, FRESH = range(7)


@dataclass(frozen=True)
class Sampler:
    """timesteps [K]: the network's time input. rows [K][7]: the columns above, per step. clip: bound of the clean
    sample, or None."""

    timesteps: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    clip: float | None = None

    def needs(self, column: int) -> bool:
        return any(row[column] != 0 for row in self.rows)

    def denoise(self, predict: Predict, sample: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """The sample [1,H,D] after all steps.

        predict: (sample [1,H,D], timestep []) -> the network's output [1,H,D]. sample [1,H,D]: noise to begin with.
        added [K,H,D]: fresh noise, for a sampler that adds some after each step; its last row is not used.
        """
        timesteps, rows = torch.tensor(self.timesteps), torch.tensor(self.rows)
        before = torch.zeros_like(sample) if self.needs(BEFORE) else None
        for k in iterations(len(self.timesteps)):
            row = rows[k]
            output = predict(sample, timesteps[k])
            terms = [(SAMPLE, sample), (OUTPUT, output)]
            if self.needs(CLEAN):
                clean = self._sum(row, [(CLEAN_OF_SAMPLE, sample), (CLEAN_OF_OUTPUT, output)])
                clean = clean if self.clip is None else clean.clamp(-self.clip, self.clip)
                terms += [(CLEAN, clean)]
                if before is not None:
                    terms += [(BEFORE, before)]
                    before = clean
            if self.needs(FRESH):
                assert added is not None
                terms += [(FRESH, added[k][None])]
            sample = self._sum(row, terms)
        return sample

    def _sum(self, row: torch.Tensor, terms: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
        """The weighted sum, without terms whose coefficient is 0 in all steps, and without multiplications by 1."""
        products = [x if all(r[c] == 1 for r in self.rows) else row[c] * x for c, x in terms if self.needs(c)]
        return sum(products[1:], products[0])


def _sampler(timesteps: Sequence[float], rows: list[dict[int, float]], clip: float | None) -> Sampler:
    return Sampler(tuple(timesteps), tuple(tuple(r.get(c, 0.0) for c in range(7)) for r in rows), clip)


def _estimate(predicts: str, alpha: float, sigma: float) -> dict[int, float]:
    """Coefficients of the clean sample, given sample = alpha * clean + sigma * noise."""
    if predicts == "sample":
        return {CLEAN_OF_OUTPUT: 1.0}
    return {CLEAN_OF_SAMPLE: 1.0 / alpha, CLEAN_OF_OUTPUT: -sigma / alpha}


def ddim(timesteps: Sequence[int], bars: Sequence[float], predicts: str, clip: float | None) -> Sampler:
    """bars [K+1]: share of the signal (cumulative product of alpha) at each timestep, and after the last. predicts:
    "epsilon" or "sample". The noise term is the network's, not one recomputed from a clipped estimate."""
    rows = []
    for bar, following in itertools.pairwise(bars):
        alpha, sigma, left = bar**0.5, (1 - bar) ** 0.5, (1 - following) ** 0.5
        kept = {OUTPUT: left} if predicts == "epsilon" else {SAMPLE: left / sigma, OUTPUT: -left * alpha / sigma}
        rows.append(_estimate(predicts, alpha, sigma) | {CLEAN: following**0.5} | kept)
    return _sampler(timesteps, rows, clip)


def ddpm(timesteps: Sequence[int], bars: Sequence[float], predicts: str, clip: float | None) -> Sampler:
    """As `ddim`; adds fresh noise after every step but the last."""
    rows = []
    for bar, following in itertools.pairwise(bars):
        kept, scale = bar / following, 1 - bar
        variance = max((1 - following) / scale * (1 - kept), 1e-20)
        final = len(rows) == len(timesteps) - 1
        rows.append(_estimate(predicts, bar**0.5, scale**0.5) | {
            CLEAN: following**0.5 * (1 - kept) / scale, SAMPLE: kept**0.5 * (1 - following) / scale,
            FRESH: 0.0 if final else variance**0.5})
    return _sampler(timesteps, rows, clip)


def dpm_solver(timesteps: Sequence[int], bars: Sequence[float], predicts: str, clip: float | None) -> Sampler:
    """DPM-Solver++(2M), midpoint: as `ddim`, of second order through the clean estimate of the previous step; the
    first step, and the last of fewer than 15, are of first order."""
    sigmas = [(1 - bar) ** 0.5 for bar in bars]
    alphas = [bar**0.5 for bar in bars]
    lambdas = [math.log(a / s) if s > 0 else math.inf for a, s in zip(alphas, sigmas, strict=True)]
    count, rows = len(timesteps), []
    for k in range(count):
        h = lambdas[k + 1] - lambdas[k]
        clean, before = -alphas[k + 1] * math.expm1(-h), 0.0
        if k > 0 and (k < count - 1 or count >= 15) and math.isfinite(h):
            before = -clean * h / (2 * (lambdas[k] - lambdas[k - 1]))
        rows.append(_estimate(predicts, alphas[k], sigmas[k]) | {
            SAMPLE: sigmas[k + 1] / sigmas[k], CLEAN: clean - before, BEFORE: before})
    return _sampler(timesteps, rows, clip)


def euler(times: Sequence[float]) -> Sampler:
    """Flow matching, from times[0] to times[-1], K+1 of them: sample + (t' - t) * velocity."""
    steps = [{SAMPLE: 1.0, OUTPUT: b - a} for a, b in itertools.pairwise(times)]
    return _sampler([float(t) for t in times[:-1]], steps, None)


def runge_kutta(predict: Predict, sample: torch.Tensor, times: Sequence[float]) -> torch.Tensor:
    """Flow matching by the classical method of fourth order, four evaluations per step; as `euler` otherwise."""
    table = torch.tensor([(a, a + (b - a) / 2, b, b - a) for a, b in itertools.pairwise(times)])
    for k in iterations(len(times) - 1):
        begin, middle, end, width = table[k]
        first = predict(sample, begin)
        second = predict(sample + width * first / 2, middle)
        third = predict(sample + width * second / 2, middle)
        last = predict(sample + width * third, end)
        sample = sample + width / 6 * (first + 2 * second + 2 * third + last)
    return sample


def guided(predict: Callable[..., torch.Tensor], condition, unconditional, scale: float) -> Predict:
    """Classifier-free guidance. predict: (sample, timestep, condition) -> output; both conditions have the same
    structure."""

    def both(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        without = predict(sample, timestep, unconditional)
        return without + scale * (predict(sample, timestep, condition) - without)

    return both


_SOLVERS = {"DDIMScheduler": ddim, "DDPMScheduler": ddpm, "DPMSolverMultistepScheduler": dpm_solver}
_COVERED = {
    "DDIMScheduler": {"prediction_type": ("epsilon", "sample"), "thresholding": (False,)},
    "DDPMScheduler": {"prediction_type": ("epsilon", "sample"), "thresholding": (False,),
                      "variance_type": ("fixed_small",)},
    "DPMSolverMultistepScheduler": {
        "prediction_type": ("epsilon", "sample"), "thresholding": (False,), "algorithm_type": ("dpmsolver++",),
        "solver_order": (2,), "solver_type": ("midpoint",), "lower_order_final": (True,), "euler_at_final": (False,),
        "variance_type": (None,)},
}


def sampler_of(scheduler, steps: int) -> Sampler:
    """The sampler equivalent to a diffusers scheduler with `steps` steps. Raises SourceError for unsupported
    settings."""
    kind, config = type(scheduler).__name__, scheduler.config
    _check(kind, config)
    scheduler.set_timesteps(steps)
    timesteps = [int(t) for t in scheduler.timesteps]
    if kind == "DPMSolverMultistepScheduler":
        bars = [1 / (1 + float(s) ** 2) for s in scheduler.sigmas.double()]
        return dpm_solver(timesteps, bars, config.prediction_type, None)
    known, stride = scheduler.alphas_cumprod.double().tolist(), config.num_train_timesteps // len(timesteps)
    final = float(scheduler.final_alpha_cumprod) if kind == "DDIMScheduler" else 1.0
    # each step goes one stride back, whatever the next timestep is
    following = [known[t - stride] if t >= stride else final for t in timesteps]
    bars = [known[t] for t in timesteps]
    if bars[1:] != following[:-1]:
        raise SourceError(f"timesteps {timesteps[:3]}... are not one stride apart",
                          where=f"the checkpoint's {kind}", why=f"a step leads {stride} timesteps back",
                          fix='set timestep_spacing to "leading"')
    clip = float(config.clip_sample_range) if config.clip_sample else None
    return _SOLVERS[kind](timesteps, [*bars, following[-1]], config.prediction_type, clip)


SOLVERS = {"ddim": ddim, "dpm-solver++": dpm_solver}  # deterministic, for a network that was trained to denoise


def resampled(scheduler, solver: str, steps: int) -> Sampler:
    """The network that `scheduler` samples from, with another solver of SOLVERS and `steps` evenly spaced steps."""
    config = scheduler.config
    known, stride = scheduler.alphas_cumprod.double().tolist(), config.num_train_timesteps // steps
    timesteps = [i * stride for i in reversed(range(steps))]
    clip = float(config.clip_sample_range) if config.clip_sample else None
    return SOLVERS[solver](timesteps, [*(known[t] for t in timesteps), 1.0], config.prediction_type, clip)


def _check(kind: str, config) -> None:
    if kind not in _COVERED:
        raise SourceError(f"the scheduler {kind} is not covered", where="the checkpoint's noise scheduler",
                          why=", ".join(_COVERED) + " are", fix="set noise_scheduler_type to DDIM in config.json")
    for name, values in _COVERED[kind].items():
        if config.get(name) not in values:
            raise SourceError(f"{name} = {config.get(name)!r} is not covered", where=f"the checkpoint's {kind}",
                              why=f"covered: {', '.join(map(repr, values))}",
                              fix="sample with DDIM and epsilon prediction")
    spaced = [n for n in ("use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas", "use_beta_sigmas",
                          "use_flow_sigmas") if config.get(n)]
    if spaced:
        raise SourceError(f"{spaced[0]} is not covered", where=f"the checkpoint's {kind}",
                          why="its timesteps are not whole numbers", fix=f"set {spaced[0]} to false")
