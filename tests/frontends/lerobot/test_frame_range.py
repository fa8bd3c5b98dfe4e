"""Checks of a frame's range in a policy's own code: answered without the frame where the answer is the same for all."""

from __future__ import annotations

import pytest
import torch

from vlacompile.frontends.lerobot.frame_range import KnownRange, bounds_suffice

TOP, STATE = "observation.images.top", "observation.state"


def scaled(frame: torch.Tensor) -> torch.Tensor:
    """As processor steps do that take bytes and fractions."""
    if frame.max().item() <= 1.0:
        return frame.float()
    return frame / 255.0


def in_range(frame: torch.Tensor) -> torch.Tensor:
    if torch.min(frame).item() < 0.0 or torch.max(frame).item() > 1.0:
        raise ValueError("the frame is not in [0, 1]")
    return frame * 2 - 1


STEPS = {  # what a step does to a frame, whether the bounds give the same for every frame
    "scaled": (scaled, True),
    "in range": (in_range, True),
    "both, after a change of shape": (lambda x: in_range(scaled(x).unsqueeze(0).flatten(0, 1)), True),
    "without a check": (lambda x: x + 1, True),
    "brightened where it is dark": (lambda x: x * 2 if x.max().item() < 0.5 else x, False),
    "stretched": (lambda x: (x - x.min()) / (x.max() - x.min() + 1e-3), False),
}


@pytest.mark.parametrize("name", STEPS)
def test_bounds_are_used_where_they_change_nothing(name):
    step, same = STEPS[name]
    frame = {TOP: torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.9, STATE: torch.ones(1, 2)}
    assert bounds_suffice(lambda given: given | {TOP: step(given[TOP])}, frame, frozenset({TOP})) == same


def test_other_tensors_and_parts_of_frames_are_read():
    frame, state = torch.rand(1, 3, 4, 4), torch.tensor([2.0, 5.0])
    with KnownRange([frame]):
        assert frame.max() == 1 and frame.amin() == 0 and frame.to(torch.float64).max() == 1
        assert state.max() == 5 and (frame * 2).max() < 2
        assert torch.equal(frame.max(-1).values, frame.amax(-1)) and frame.amax(-1).shape == (1, 3, 4)
