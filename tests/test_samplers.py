"""Random numbers as inputs: what is drawn from them has the distribution of what they replace."""

from __future__ import annotations

import pytest
import torch

from vlacompile.errors import SourceError
from vlacompile.frontends.lerobot.vqbet import drawn_from
from vlacompile.frontends.samplers import sampler_of


def test_codes_are_drawn_with_their_probabilities():
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).expand(20000, 4)
    uniforms = torch.rand(1, 20000, generator=torch.Generator().manual_seed(0))
    with drawn_from(uniforms):
        drawn = torch.multinomial(probabilities, num_samples=1)
    frequencies = torch.bincount(drawn[:, 0], minlength=4) / len(drawn)
    assert torch.allclose(frequencies, probabilities[0], atol=0.015) and frequencies[1] == 0


def test_the_patch_ends_with_its_block_and_must_apply():
    original = torch.multinomial
    with pytest.raises(AssertionError, match="0 of 3"), drawn_from(torch.rand(1, 3)):
        pass
    assert torch.multinomial is original
    with pytest.raises(ValueError, match="inside"), drawn_from(torch.rand(1, 3)):
        raise ValueError("inside")
    assert torch.multinomial is original


class UnknownScheduler:
    """A scheduler that no sampler covers."""

    config = {"prediction_type": "epsilon", "thresholding": False}


def test_an_unsupported_scheduler_is_refused():
    with pytest.raises(SourceError) as error:
        sampler_of(UnknownScheduler(), 10)
    assert "UnknownScheduler" in error.value.what and error.value.fix
