"""Orthogonal matrices that spread one large channel over all of them: randomised Hadamard matrices, or random ones.

A Hadamard matrix has entries of equal magnitude, so that a channel of size s becomes K channels of size s / sqrt(K).
They are built from Paley's and Sylvester's constructions (R. Paley 1933, "On Orthogonal Matrices"); where none is known
here the matrix is a random orthogonal one. Must not know graphs.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

LARGEST_FACTOR = 64  # a product of Hadamard matrices is applied factor by factor; small factors are merged up to this


@dataclass(frozen=True)
class Rotation:
    """x -> x R for rows x of `size` numbers, R orthogonal: f64[size,size] = diag(signs) (F1 x F2 x ...) (I - 2 v v^T).

    kind: in words, "hadamard 12 x 64" or "random orthogonal 50". factors: f64, their Kronecker product is orthogonal.
    signs: f64[size]. mirror: f64[size] of length 1, or None. keeps_mean: the rows' means are those of x: 1^T R = 1^T.
    """

    size: int
    kind: str
    factors: tuple[torch.Tensor, ...]
    signs: torch.Tensor
    mirror: torch.Tensor | None = None

    @property
    def keeps_mean(self) -> bool:
        return self.mirror is not None

    def right(self, x: torch.Tensor) -> torch.Tensor:
        """x R, f64[...,size]."""
        y = x.double() * self.signs
        shape, before = y.shape, 1
        for factor in self.factors:
            n = len(factor)
            y = torch.einsum("abc,bd->adc", y.reshape(-1, n, self.size // (before * n)), factor)
            y, before = y.reshape(shape), before * n
        return y if self.mirror is None else y - 2 * (y @ self.mirror)[..., None] * self.mirror

    def matrix(self) -> torch.Tensor:
        return self.right(torch.eye(self.size, dtype=torch.float64))


def rotation(size: int, seed: int, keeps_mean: bool = False) -> Rotation:
    """The same for equal arguments. keeps_mean: as a LayerNorm needs it. A mirror behind the matrix maps the image of
    the vector of ones back to it; the largest entry becomes a few times 1 / sqrt(size)."""
    draw = torch.Generator().manual_seed(seed)
    orders = hadamard_orders(size)
    if orders is None:
        gaussian = torch.randn(size, size, dtype=torch.float64, generator=draw)
        q, r = torch.linalg.qr(gaussian)
        factors, kind = (q * r.diagonal().sign(),), f"random orthogonal {size}"
    else:
        factors, kind = _merged(orders), f"hadamard {_product(orders)}"
    signs = (torch.randint(0, 2, (size,), generator=draw) * 2 - 1).double()
    found = Rotation(size, kind, factors, signs)
    if not keeps_mean:
        return found
    ones = torch.full((size,), 1 / math.sqrt(size), dtype=torch.float64)
    apart = found.right(ones) - ones
    if float(apart.norm()) < 1e-9:  # it has kept the mean already
        return Rotation(size, kind, factors, signs, torch.zeros(size, dtype=torch.float64))
    return Rotation(size, f"{kind}, mean kept", factors, signs, apart / apart.norm())


def _product(orders: tuple[int, ...]) -> str:
    twos = math.prod(n for n in orders if n == 2)
    return " x ".join(str(n) for n in (*(n for n in orders if n > 2), *([twos] if twos > 1 else []))) or "1"


def _merged(orders: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    factors: list[torch.Tensor] = []
    for n in orders:
        new = hadamard(n)
        if factors and len(factors[-1]) * n <= LARGEST_FACTOR:
            new = torch.kron(factors.pop(), new)
        factors.append(new)
    return tuple(f / math.sqrt(len(f)) for f in factors)


@functools.cache
def hadamard_orders(size: int) -> tuple[int, ...] | None:
    """Orders of Hadamard matrices of which one of this size is the Kronecker product, the largest first; None: none is
    known here. 768 is 12 x 2^6, 960 is 60 x 2^4."""
    if size == 1:
        return ()
    if size > 2 and size % 4:
        return None
    for n in (d for d in range(2, size + 1) if size % d == 0 and (d == 2 or _paley(d) is not None)):
        rest = hadamard_orders(size // n)
        if rest is not None:
            return tuple(sorted((n, *rest), reverse=True))
    return None


def hadamard(order: int) -> torch.Tensor:
    """f64 of 1 and -1 with H H^T = order I. Raises ValueError for an order that neither construction has."""
    if order == 2:
        return torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    found = _paley(order)
    if found is None:
        raise ValueError(f"no Hadamard matrix of order {order} is known here")
    q, twice = found
    i = torch.arange(q)
    table = torch.full((q,), -1.0, dtype=torch.float64)  # the quadratic character
    table[i * i % q] = 1.0
    table[0] = 0.0
    conference = torch.ones(q + 1, q + 1, dtype=torch.float64)
    conference[0, 0] = 0.0
    conference[1:, 1:] = table[(i[:, None] - i) % q]
    eye = torch.eye(q + 1, dtype=torch.float64)
    if not twice:
        conference[1:, 0] = -1.0
        return eye + conference
    two = hadamard(2)
    return torch.kron(conference, two) + torch.kron(eye, torch.tensor([[1.0, -1.0], [-1.0, -1.0]]).double())


def _paley(order: int) -> tuple[int, bool] | None:
    """(prime q, whether the order is 2 (q + 1) with q = 1 modulo 4 and not q + 1 with q = 3 modulo 4)."""
    if order % 4:
        return None
    if (order - 1) % 4 == 3 and _is_prime(order - 1):
        return order - 1, False
    q = order // 2 - 1
    return (q, True) if q % 4 == 1 and _is_prime(q) else None


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))
