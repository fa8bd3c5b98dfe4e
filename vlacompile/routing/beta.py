"""P(p >= q - delta) for independent p ~ Beta(a, b), q ~ Beta(c, d): exactly, by quadrature, by simulation.

`probability_not_worse` is the one used for decisions. `runtime_c/src/beta.c` does the same operations in the same order
on f64, and a test compares the two; hence scalars and `math` here, no NumPy.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np

LEAST, MOST = 0.05, 1e5  # range of a parameter
_REACH = 7.0  # sinh(7) * sqrt(LEAST) = 122: the tail beyond has a mass of exp(-122)
_STEPS = 240
_CLOSE = 3.7  # exp(-exp(3.7)) = 3e-18
_ROUNDS = 4000  # limit on terms of the continued fraction; it needs about sqrt(MOST)
_TINY = 1e-300


@functools.lru_cache(4096)
def probability_not_worse(a: float, b: float, c: float, d: float, delta: float = 0.0) -> float:
    """By quadrature, parameters in [LEAST, MOST], 0 <= delta < 1; absolute error below 1e-9, and below 1e-12 where all
    are in [1, 1000]. Raises ValueError.

    P = (1 - F_p(1 - delta)) + integral over [0, 1 - delta] of f_p(x) F_q(x + delta) dx, or the same of (1 - q, 1 - p),
    whichever of the two densities is narrower in ln(x/(1-x)). The integral is taken over v with
    x = logistic(ln(a/b) + s sinh v), s = sqrt(1/a + 1/b): there the density for any parameters is about one unit wide
    and
    decays double exponentially.
    It is integrated by the trapezoidal rule over s', v = end - softplus(1 - s' - exp(s')): a double exponential
    transformation at one end (Takahasi and Mori, Publ. RIMS 9, 1974) for x = 1 - delta, where F_q may rise as steeply
    as a root.
    """
    for x in (a, b, c, d):
        if not LEAST <= x <= MOST:
            raise ValueError(f"{x} is not between {LEAST} and {MOST}")
    if not 0 <= delta < 1:
        raise ValueError(f"delta = {delta} is not in [0, 1)")
    if 1.0 / c + 1.0 / d < 1.0 / a + 1.0 / b:
        a, b, c, d = d, c, b, a
    p_split, p_norm = _norm(a, b)
    q_split, q_norm = _norm(c, d)
    centre, width = math.log(a / b), math.sqrt(1.0 / a + 1.0 / b)
    beyond, end = 0.0, _REACH
    if delta > 0.0:
        beyond = 1.0 - _cdf(a, b, p_split, p_norm, 1.0 - delta, delta)
        v = math.asinh((math.log((1.0 - delta) / delta) - centre) / width)
        end = -_REACH if v < -_REACH else min(_REACH, v)
    total, step = 0.0, (end + _REACH + _CLOSE) / _STEPS
    for i in range(_STEPS + 1):
        s = _CLOSE - i * step
        w = s + math.exp(s) - 1.0
        v = end - math.log1p(math.exp(-w)) if w > 0.0 else end + w - math.log1p(math.exp(w))
        weight = (1.0 + math.exp(s)) / (1.0 + math.exp(w))
        t = centre + width * math.sinh(v)
        log_x = t - math.log1p(math.exp(t)) if t < 0.0 else -math.log1p(math.exp(-t))
        log_rest = log_x - t
        density = math.exp(a * (log_x - math.log(p_split)) + b * (log_rest - math.log(1.0 - p_split))) / p_norm
        mass = weight * density * math.cosh(v)
        if mass > 1e-30:
            total += mass * _cdf(c, d, q_split, q_norm, math.exp(log_x) + delta, math.exp(log_rest) - delta)
    p = beyond + total * width * step
    return 0.0 if p < 0.0 else min(p, 1.0)


def _norm(a: float, b: float) -> tuple[float, float]:
    """(m, B(a, b) / (m^a (1-m)^b)) at a point m where both continued fractions converge; their sum gives the norm."""
    m = (a + 1.0) / (a + b + 2.0)
    return m, _fraction(a, b, m) / a + _fraction(b, a, 1.0 - m) / b


def _cdf(a: float, b: float, split: float, norm: float, x: float, rest: float) -> float:
    """Regularised incomplete beta function at x = 1 - rest; split and norm: _norm(a, b)."""
    if x <= 0.0:
        return 0.0
    if rest <= 0.0:
        return 1.0
    front = math.exp(a * math.log(x / split) + b * math.log(rest / (1.0 - split))) / norm
    return front * _fraction(a, b, x) / a if x < split else 1.0 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, DLMF 8.17.22, by the modified method of Lentz."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (_TINY if abs(d) < _TINY else d)
    h = d
    for m in range(1, _ROUNDS + 1):
        even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        for term in (even, odd):
            d = 1.0 + term * d
            d = 1.0 / (_TINY if abs(d) < _TINY else d)
            c = 1.0 + term / c
            c = _TINY if abs(c) < _TINY else c
            change = d * c
            h *= change
        if abs(change - 1.0) < 1e-15:
            break
    return h


def probability_exact(a: int, b: int, c: int, d: int, delta: Fraction = Fraction(0)) -> Fraction:
    """The closed form for integer parameters: the integral of a polynomial in x and delta, in rational arithmetic.

    F_q(y) = sum over j in [c, n] of C(n, j) y^j (1-y)^(n-j) with n = c + d - 1 (DLMF 8.17.5); with delta = 0 this is
    the finite sum of E. Miller, Formulas for Bayesian A/B Testing (2015). For references: its cost grows with n^3.
    """
    n, end = c + d - 1, 1 - delta
    upper = [Fraction(0)]
    for j in range(c, n + 1):
        term = _product(_power([delta, Fraction(1)], j), _power([1 - delta, Fraction(-1)], n - j))
        upper = _sum(upper, [math.comb(n, j) * x for x in term])
    density = [Fraction(0)] * (a - 1) + _power([Fraction(1), Fraction(-1)], b - 1)
    norm = Fraction(math.factorial(a - 1) * math.factorial(b - 1), math.factorial(a + b - 1))
    return (_integral(_product(density, upper), end) + norm - _integral(density, end)) / norm


def _power(p: list[Fraction], n: int) -> list[Fraction]:
    """Coefficients of p^n for a linear p, lowest first."""
    return [math.comb(n, k) * p[0] ** (n - k) * p[1] ** k for k in range(n + 1)]


def _product(p: list[Fraction], q: list[Fraction]) -> list[Fraction]:
    out = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, x in enumerate(p):
        for j, y in enumerate(q):
            out[i + j] += x * y
    return out


def _sum(p: list[Fraction], q: list[Fraction]) -> list[Fraction]:
    size = max(len(p), len(q))
    p, q = ([*r, *[Fraction(0)] * (size - len(r))] for r in (p, q))
    return [x + y for x, y in zip(p, q, strict=True)]


def _integral(p: list[Fraction], end: Fraction) -> Fraction:
    """The integral of p from 0 to `end`."""
    return sum((x * end ** (k + 1) / (k + 1) for k, x in enumerate(p)), Fraction(0))


def probability_monte_carlo(a: float, b: float, c: float, d: float, delta: float = 0.0, *, draws: int = 100_000,
                            seed: int = 0) -> tuple[float, float]:
    """(share of draws with p >= q - delta, its standard error): an estimate that is independent of the quadrature."""
    rng = np.random.default_rng(seed)
    share = float(np.mean(rng.beta(a, b, draws) >= rng.beta(c, d, draws) - delta))
    return share, math.sqrt(max(share * (1 - share), 1 / draws) / draws)
