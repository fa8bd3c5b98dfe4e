"""Linear algebra of small matrices, written out: as many steps as rows, each on all matrices of a batch at once. Must
not hold tensors of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ATEN = torch.ops.aten
# Rows up to which a matrix is written out: the steps, and rounding, grow with them.
ROWS = 8


def _require_small(a: Tensor) -> None:
    if a.shape[-1] > ROWS:
        raise NotImplementedError(f"{a.shape[-1]} rows")


def _eliminate(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(x of a x = b, the determinant of a). Gauss-Jordan, each step with the largest number of its column in place
    (partial pivoting), which rows are swapped for by products with ones and zeros. a: [...,n,n], b: [...,n,k]."""
    n = a.shape[-1]
    _require_small(a)
    rows = torch.cat([a, b], -1)
    det = torch.ones_like(a[..., 0, 0])
    places = torch.arange(n)
    for i in range(n):
        size = torch.where(places < i, torch.full_like(a[..., 0], -1.0), rows[..., i].abs())  # [...,n]
        chosen = size.argmax(-1, keepdim=True)
        here = (places == chosen).unsqueeze(-1)  # [...,n,1]
        pivot = torch.where(here, rows, torch.zeros_like(rows)).sum(-2, keepdim=True)  # [...,1,n+k]
        old = rows[..., i:i + 1, :]
        rows = torch.where(here, old, rows)  # the row that was at i goes to where the pivot was
        rows = torch.cat([rows[..., :i, :], pivot, rows[..., i + 1:, :]], -2)
        head = pivot[..., i:i + 1]
        det = det * head[..., 0, 0] * torch.where(chosen[..., 0] == i, torch.ones_like(det), -torch.ones_like(det))
        pivot = pivot / head
        factors = torch.where((places == i).unsqueeze(-1), torch.zeros_like(rows[..., :1]), rows[..., i:i + 1])
        rows = rows - factors * pivot
        rows = torch.cat([rows[..., :i, :], pivot, rows[..., i + 1:, :]], -2)
    return rows[..., n:], det


def _info(a: Tensor) -> Tensor:
    return torch.zeros(a.shape[:-2], dtype=torch.int32)


def inverse(a: Tensor) -> Tensor:
    one = torch.eye(a.shape[-1], dtype=a.dtype).expand(a.shape)
    return _eliminate(a, one)[0]


def determinant(a: Tensor) -> Tensor:
    _require_small(a)
    if a.shape[-1] <= 3:  # the rule of Sarrus
        entry = lambda i, j: a[..., i, j]
        if a.shape[-1] < 3:
            return entry(0, 0) if a.shape[-1] == 1 else entry(0, 0) * entry(1, 1) - entry(0, 1) * entry(1, 0)
        minor = lambda j, k: entry(1, j) * entry(2, k) - entry(1, k) * entry(2, j)
        return entry(0, 0) * minor(1, 2) - entry(0, 1) * minor(0, 2) + entry(0, 2) * minor(0, 1)
    n, rows, det = a.shape[-1], a, torch.ones_like(a[..., 0, 0])
    for i in range(n):  # without what is left of the pivot, which the determinant does not need
        size = rows[..., 0].abs()
        places = torch.arange(n - i)
        chosen = size.argmax(-1, keepdim=True)
        here = (places == chosen).unsqueeze(-1)
        pivot = torch.where(here, rows, torch.zeros_like(rows)).sum(-2, keepdim=True)
        head = pivot[..., :1]
        det = det * head[..., 0, 0] * torch.where(chosen[..., 0] == 0, torch.ones_like(det), -torch.ones_like(det))
        if i + 1 < n:
            rest = torch.where(here, rows[..., :1, :], rows)[..., 1:, :]
            safe = torch.where(head == 0, torch.ones_like(head), head)  # a column of zeros: the determinant is 0
            rows = (rest - rest[..., :1] / safe * pivot)[..., 1:]
    return det


def solve(a: Tensor, b: Tensor, *, left: bool = True) -> Tensor:
    vector = b.dim() == 1 or (a.dim() - 1 == b.dim() and b.shape == a.shape[:-1])
    b = b.unsqueeze(-1) if vector else b
    a, b = (a, b) if left else (a.transpose(-1, -2), b.transpose(-1, -2))
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    x = _eliminate(a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:]))[0]
    x = x if left else x.transpose(-1, -2)
    return x.squeeze(-1) if vector else x


def cholesky(a: Tensor, *, upper: bool = False) -> Tensor:
    """Column by column. Of a matrix that is not positive definite it holds NaN."""
    n = a.shape[-1]
    _require_small(a)
    columns: list[Tensor] = []  # [...,n] each
    for j in range(n):
        column = a[..., j, :] if upper else a[..., j]
        for done in columns:
            column = column - done * done[..., j:j + 1]
        column = column / column[..., j:j + 1].sqrt()
        columns.append(torch.where(torch.arange(n) < j, torch.zeros_like(column), column))
    return torch.stack(columns, -2 if upper else -1)


def qr(a: Tensor, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """Householder's reflections with LAPACK's signs: the diagonal has the sign opposite to that of the number that was
    there, unless all numbers below it are 0. a: [...,m,n]."""
    m, n = a.shape[-2:]
    if min(m, n) > ROWS:
        raise NotImplementedError(f"{min(m, n)} rows")
    places = torch.arange(m)
    q = torch.eye(m, dtype=a.dtype).expand(*a.shape[:-2], m, m)
    for i in range(min(m - 1, n)):
        head = a[..., i:i + 1, i]  # [...,1]
        below = torch.where(places > i, a[..., i], torch.zeros_like(a[..., i]))  # [...,m]
        rest = below.square().sum(-1, keepdim=True)
        done = rest == 0
        norm = (head.square() + rest).sqrt()
        new = torch.where(done, torch.ones_like(norm), torch.where(head < 0, norm, -norm))
        share = torch.where(done, torch.zeros_like(new), (new - head) / new).unsqueeze(-1)
        across = below / torch.where(done, torch.ones_like(new), head - new)
        across = torch.where(places == i, torch.ones_like(across), across)
        column, row = across.unsqueeze(-1), across.unsqueeze(-2)
        a = a - share * (column * (column * a).sum(-2, keepdim=True))
        q = q - share * ((q * row).sum(-1, keepdim=True) * row)
    k = m if mode == "complete" else min(m, n)
    r = torch.where(places[:k].unsqueeze(-1) <= torch.arange(n), a[..., :k, :], torch.zeros_like(a[..., :k, :]))
    return (q[..., :k] if mode != "r" else a.new_zeros(0)), r


def solve_triangular(a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    if not left:
        turned = a.transpose(-1, -2), b.transpose(-1, -2)
        across = solve_triangular(*turned, upper=not upper, unitriangular=unitriangular)
        return across.transpose(-1, -2)
    n = a.shape[-1]
    _require_small(a)
    found: dict[int, Tensor] = {}
    for i in (reversed(range(n)) if upper else range(n)):
        row = b[..., i, :]
        for j, x in found.items():
            row = row - a[..., i, j].unsqueeze(-1) * x
        found[i] = row if unitriangular else row / a[..., i, i].unsqueeze(-1)
    return torch.stack([found[i] for i in range(n)], -2)


def cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    lower = factor.transpose(-1, -2) if upper else factor
    return solve_triangular(lower.transpose(-1, -2), solve_triangular(lower, b, upper=False), upper=True)


# Taylor's series to this order of a matrix of norm below 1/16: below the rounding of f32.
_ORDER, _HALVINGS = 6, 10


def matrix_exp(a: Tensor) -> Tensor:
    """Scaling and squaring: exp(a) = exp(a / 2^s)^(2^s), where s follows from the norm, up to one of 64."""
    _require_small(a)
    norm = a.abs().sum(-2).amax(-1)[..., None, None]
    steps = [norm > 2.0 ** k / 16 for k in range(_HALVINGS)]
    for k in steps:
        a = torch.where(k, a / 2, a)
    one = torch.eye(a.shape[-1], dtype=a.dtype).expand(a.shape)
    x, term = one + a, a
    for i in range(2, _ORDER + 1):
        term = term @ a / i
        x = x + term
    for k in steps:
        x = torch.where(k, x @ x, x)
    return x


def matrix_power(a: Tensor, n: int) -> Tensor:
    """By squaring; PyTorch's own loses the batch where n is 0."""
    a, n = (inverse(a), -n) if n < 0 else (a, n)
    found = None
    while n:
        if n % 2:
            found = a if found is None else found @ a
        n //= 2
        a = a @ a if n else a
    return torch.eye(a.shape[-1], dtype=a.dtype).expand(a.shape) if found is None else found


def slogdet(a: Tensor) -> tuple[Tensor, Tensor]:
    det = determinant(a)
    return det.sign(), det.abs().log()


LINALG = {
    _ATEN.linalg_inv.default: inverse,
    _ATEN.inverse.default: inverse,
    _ATEN.linalg_inv_ex.default: lambda a, *, check_errors=False: (inverse(a), _info(a)),
    _ATEN.linalg_solve.default: solve,
    _ATEN.linalg_solve_ex.default: lambda a, b, *, left=True, check_errors=False: (solve(a, b, left=left), _info(a)),
    _ATEN.linalg_det.default: determinant,
    _ATEN.det.default: determinant,
    _ATEN.linalg_slogdet.default: slogdet,
    _ATEN.slogdet.default: slogdet,
    _ATEN.linalg_cholesky.default: cholesky,
    _ATEN.cholesky.default: lambda a, upper=False: cholesky(a, upper=upper),
    _ATEN.linalg_cholesky_ex.default:
        lambda a, *, upper=False, check_errors=False: (cholesky(a, upper=upper), _info(a)),
    _ATEN.linalg_qr.default: qr,
    _ATEN.qr.default: lambda a, some=True: qr(a, "reduced" if some else "complete"),
    _ATEN.cholesky_solve.default: cholesky_solve,
    _ATEN.linalg_solve_triangular.default: solve_triangular,
    _ATEN.linalg_matrix_exp.default: matrix_exp,
    _ATEN.linalg_matrix_power.default: matrix_power,
    _ATEN.matrix_power.default: matrix_power,
    _ATEN.matrix_exp.default: matrix_exp,
}
assert math.factorial(_ORDER + 1) * 16 ** (_ORDER + 1) > 2 ** 24
