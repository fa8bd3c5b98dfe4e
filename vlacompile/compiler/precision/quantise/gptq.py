"""GPTQ: rounds a linear's weight column by column; later columns compensate the rounding errors of earlier ones.

Works on matrices; must not know graphs.
"""

from __future__ import annotations

import torch

from vlacompile.compiler.precision.quantise.blocks import HIGHEST, LOWEST, searched_scales

DAMPING = 0.01  # relative to the mean of the Hessian's diagonal


def spread_of(rows: torch.Tensor) -> torch.Tensor:
    """f32[R,K] rows of a linear's input -> f32[K,K], upper triangular: how the error of a column is compensated by
    later ones. U of inverse(H) = U^T U, where H is the damped Hessian rows^T rows; features that are always zero get
    the mean diagonal. Linears that read the same value share it."""
    hessian = (rows.T @ rows).double()
    diagonal = hessian.diagonal()
    average = float(diagonal.mean()) or 1.0
    diagonal += DAMPING * average
    diagonal[diagonal <= DAMPING * average] = average
    # With both axes reversed H = L L^T, and U is the reversed inverse of L: one factorisation instead of three.
    lower = torch.linalg.cholesky(hessian.flip(0, 1))
    eye = torch.eye(len(lower), dtype=torch.float64)
    return torch.linalg.solve_triangular(lower, eye, upper=False).flip(0, 1).float().contiguous()


def gptq(weight: torch.Tensor, spread: torch.Tensor, importance: torch.Tensor, block: int) \
        -> tuple[torch.Tensor, torch.Tensor]:
    """weight: f32[N,K]; spread: of its input (see `spread_of`); importance: f32[K], mean squares of the input. Returns
    q int8[N,K] and scale f32[N,ceil(K/block)].

    Frantar et al. 2022, "GPTQ", algorithm 1, with lazy updates of later blocks; the scales of a block are searched when
    it is reached, on weights that already compensate earlier errors. Columns are not reordered, because a block is
    stored contiguously.
    """
    left = weight.clone()
    q, scales = torch.empty_like(weight, dtype=torch.int8), []
    for first in range(0, weight.shape[1], block):
        here = slice(first, min(first + block, weight.shape[1]))
        factor = spread[here, here]
        columns = left[:, here].T.contiguous()  # contiguous, as whole columns of the weight are read and written
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
