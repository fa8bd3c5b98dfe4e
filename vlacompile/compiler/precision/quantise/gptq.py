"""GPTQ: rounding of a linear's weight, column by column, in which later columns make up for the errors of earlier ones.

Works on matrices; must not know graphs.
"""

from __future__ import annotations

import torch

from vlacompile.compiler.precision.quantise.blocks import HIGHEST, LOWEST, searched_scales

DAMPING = 0.01  # of the mean of the Hessian's diagonal


def spread_of(rows: torch.Tensor) -> torch.Tensor:
    """f32[R,K] of a linear's input -> f32[K,K], upper triangular: how an error of a column is made up for by those
    behind it. U of inverse(H) = U^T U, H the damped Hessian rows^T rows; of features that are never read, H is as it is
    on average. Linears that read the same value share it."""
    hessian = (rows.T @ rows).double()
    diagonal = hessian.diagonal()
    average = float(diagonal.mean()) or 1.0
    diagonal += DAMPING * average
    diagonal[diagonal <= DAMPING * average] = average
    # With both axes reversed H = L L^T, and the reverse of L's inverse is U: one factorisation instead of three.
    lower = torch.linalg.cholesky(hessian.flip(0, 1))
    eye = torch.eye(len(lower), dtype=torch.float64)
    return torch.linalg.solve_triangular(lower, eye, upper=False).flip(0, 1).float().contiguous()


def gptq(weight: torch.Tensor, spread: torch.Tensor, importance: torch.Tensor, block: int) \
        -> tuple[torch.Tensor, torch.Tensor]:
    """weight: f32[N,K]; spread: of its input; importance: f32[K], the input's mean squares. Returns q int8[N,K] and
    scale f32[N,ceil(K/block)].

    Frantar et al. 2022, "GPTQ", algorithm 1, with updates of later blocks once per block; a block's scales are searched
    when its turn comes, on the weights as earlier errors left them. Columns keep their order: storage has blocks of
    neighbours.
    """
    left = weight.clone()
    q, scales = torch.empty_like(weight, dtype=torch.int8), []
    for first in range(0, weight.shape[1], block):
        here = slice(first, min(first + block, weight.shape[1]))
        factor = spread[here, here]
        columns = left[:, here].T.contiguous()  # a column of the weight is read and written as a whole
        scale = searched_scales(left[:, here], block, importance[here])[:, 0]
        errors = torch.empty_like(columns)
        for i in range(len(columns)):
            rounded = (columns[i] / scale).round_().clamp_(LOWEST, HIGHEST)
            q[:, first + i] = rounded.to(torch.int8)
            errors[i] = (columns[i] - rounded * scale) / factor[i, i]
            columns[i + 1:].addr_(factor[i, i + 1:], errors[i], alpha=-1)
        left[:, here.stop:] -= errors.T @ spread[here, here.stop:]
        scales.append(scale)
    return q, torch.stack(scales, 1)
