"""Sources of a system: names, rates and example values, in one spelling for the whole zoo."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlacompile.policy.policy import Source

TOKENS, MASK, STATE = "tokens", "mask", "state"
NOISE = "noise"
PRESENT = "timestep_pad_mask"  # bool [1,window], oldest first: which of the frames of a window there are
TASK, FRAME, STEP = Source("task"), Source("observation"), Source("step")


def frame(height: int, width: int | None = None) -> torch.Tensor:
    """A frame uint8 [1,height,width,3] of seeded noise with a gradient, so that its mean differs from place to
    place."""
    width = width or height
    slope = torch.linspace(0, 128, width)[None, :, None] * torch.linspace(0.5, 1, height)[:, None, None]
    return (slope + torch.rand(height, width, 3) * 127).to(torch.uint8)[None]


def words(length: int, vocabulary: int, used: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids i64 [1,length] and their padding mask bool [1,length], of which the first `used` are tokens."""
    mask = torch.arange(length)[None] < used
    return torch.where(mask, torch.randint(1, vocabulary, (1, length)), 0), mask


def places(present: torch.Tensor) -> torch.Tensor:
    """PRESENT, bool [1,window] -> i64 [window]: the first frame there is has place 0. So a window whose newest frame is
    the last has the places of one that is filled from its beginning."""
    return (present[0].cumsum(0) - 1).clamp(min=0)


def unit(image: torch.Tensor, mean: Sequence[float] | float = 0.0, std: Sequence[float] | float = 1.0) -> torch.Tensor:
    """uint8 [1,H,W,3] -> f32 [1,3,H,W]: grey levels over 255, normalised."""
    pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255.0
    if isinstance(mean, (int, float)):
        return (pixels - mean) / std
    return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
