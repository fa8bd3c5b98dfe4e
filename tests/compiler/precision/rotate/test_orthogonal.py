"""Matrices that spread one channel over all: orthogonal, of equal magnitudes where a Hadamard matrix is known."""

from __future__ import annotations

import pytest
import torch

from vlacompile.compiler.precision.rotate.orthogonal import hadamard, hadamard_orders, rotation

SIZES = (2, 4, 12, 20, 28, 64, 60, 80, 96, 112, 180, 7, 50)


@pytest.mark.parametrize("keeps_mean", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_orthogonal_and_keeps_the_mean_when_asked(size, keeps_mean):
    made = rotation(size, 3, keeps_mean)
    matrix = made.matrix()
    assert float((matrix @ matrix.T - torch.eye(size)).abs().max()) < 1e-13
    x = torch.randn(5, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    assert torch.allclose(made.right(x), x @ matrix, atol=1e-12)
    moved = float((made.right(x).mean(-1) - x.mean(-1)).abs().max())
    assert made.keeps_mean == keeps_mean and (moved < 1e-13 if keeps_mean else moved > 1e-3)


@pytest.mark.parametrize("size", [n for n in SIZES if n > 4 and hadamard_orders(n)])
def test_no_channel_stays_large(size):
    assert float(rotation(size, 0).matrix().abs().max()) == pytest.approx(size**-0.5)
    assert float(rotation(size, 0, True).matrix().abs().max()) < 5 * size**-0.5
    assert rotation(size, 0).kind.startswith("hadamard")


@pytest.mark.parametrize("order", [2, 12, 20, 28, 36, 60])
def test_hadamard_matrices_are_signs(order):
    made = hadamard(order)
    assert bool((made.abs() == 1).all()) and torch.equal(made @ made.T, order * torch.eye(order).double())


def test_sizes_without_a_hadamard_matrix_are_named():
    assert hadamard_orders(50) is None and hadamard_orders(7) is None
    assert rotation(50, 0).kind == "random orthogonal 50"
    assert rotation(768, 0).kind == "hadamard 12 x 64" and rotation(960, 0, True).kind == "hadamard 60 x 16, mean kept"
    with pytest.raises(ValueError, match="order 6"):
        hadamard(6)
