"""How jerky the chunks of a precision are, beside those of fp32.

Rounding differs from row to row of a chunk: a chunk whose every number is near fp32's can still shake an arm, because a
motor feels the differences of successive actions. Owns this measure. Must not know precisions or choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vlart.errors import ConfigError

STILL = 1e-3  # spreads per tick^3: less of it is no motion, and is not counted


@dataclass(frozen=True)
class Measured:
    """Of the actions that a precision causes. error: f64[D], see ActionScale.errors. jerk: f64[D], how many times as
    jerky as in fp32; None: chunks of fewer than four actions have no jerk."""

    error: torch.Tensor
    jerk: torch.Tensor | None

    @property
    def worst(self) -> float:
        return float(self.error.max())

    @property
    def jerkiest(self) -> float:
        return 1.0 if self.jerk is None else float(self.jerk.max())


def jerk(chunks: Sequence[torch.Tensor], spread: torch.Tensor) -> torch.Tensor | None:
    """chunks: [1,H,D] each. f64[D]: root mean square of the third difference of successive actions, in spreads per
    tick^3."""
    if chunks[0].dim() < 2 or chunks[0].shape[-2] < 4:
        return None
    third = torch.cat([c.double().diff(3, dim=-2).reshape(-1, c.shape[-1]) for c in chunks])
    moved = third.square().mean(0).sqrt()
    return torch.where(moved == 0, 0.0, moved / spread).nan_to_num(nan=torch.inf, posinf=torch.inf)


def require_steps(policy: str, chunks: Sequence[torch.Tensor]) -> None:
    """Raises ConfigError if such chunks have no jerk."""
    if jerk(chunks, torch.ones(1)) is None:
        raise ConfigError("the recipe limits the jerk of chunks, and they have none", where=f'policy "{policy}"',
                          why=f"the actions are {list(chunks[0].shape)}: a third difference needs four in a chunk",
                          fix="drop max_jerk from the recipe, and measure closed loops")


def times_as_jerky(got: Sequence[torch.Tensor], want: Sequence[torch.Tensor],
                   spread: torch.Tensor) -> torch.Tensor | None:
    """f64[D]. A dimension that neither moves is 1."""
    ours, original = jerk(got, spread), jerk(want, spread)
    return None if ours is None or original is None else ours.clamp(min=STILL) / original.clamp(min=STILL)
