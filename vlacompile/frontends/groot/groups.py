"""State and actions of GR00T as named groups of numbers, each normalised in its own way.

A group of actions can be relative: offsets to a group of the state, or poses in the frame of one. Statistics of
relative actions can have a row for each step of the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

MIN_MAX, MEAN_STD, SIN_COS, BINARY, AS_IS = "min_max", "mean_std", "sin_cos", "binary", "as_is"
POSE = 9  # a position, and the first two rows of a rotation


@dataclass(frozen=True)
class Scale:
    """mode: one of MIN_MAX: [first, second] <-> [-1, 1]; MEAN_STD: first mean, second deviation; SIN_COS; BINARY: 1
    above a half, else 0; AS_IS. first, second: [d], or [steps, d]. varies: bool [d] or [steps, d], where a value is
    mapped at all. keeps: whether one that does not vary stays as it is, rather than become 0. clip: whether the policy
    gets values limited to [-1, 1]. limits: whether its own are limited so before they are mapped back."""

    mode: str
    first: torch.Tensor
    second: torch.Tensor
    varies: torch.Tensor
    clip: bool = False
    keeps: bool = False
    limits: bool = True

    @property
    def size(self) -> int:
        return self.first.shape[-1]

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """[..., d] -> what the policy gets; twice as many numbers in mode SIN_COS."""
        if self.mode == AS_IS:
            return x
        if self.mode == BINARY:
            return (x > 0.5).to(x.dtype)
        if self.mode == SIN_COS:
            return torch.cat([torch.sin(x), torch.cos(x)], -1)
        width = torch.where(self.varies, self.second - self.first if self.mode == MIN_MAX else self.second, 1.0)
        mapped = (x - self.first) / width
        mapped = 2.0 * mapped - 1.0 if self.mode == MIN_MAX else mapped
        x = torch.where(self.varies, mapped, x if self.keeps else torch.zeros_like(x))
        return torch.clamp(x, -1.0, 1.0) if self.clip else x

    def unnormalise(self, x: torch.Tensor) -> torch.Tensor:
        """[1,T,d] of the policy -> robot units."""
        assert self.mode != SIN_COS, "actions are not encoded so"
        if self.mode == AS_IS:
            return x
        if self.mode == BINARY:
            return (x > 0.5).to(x.dtype)
        first, second = (t if t.dim() == 1 else t[: x.shape[1]] for t in (self.first, self.second))
        if self.mode == MEAN_STD:
            return x * second + first
        x = torch.clamp(x, -1.0, 1.0) if self.limits else x
        return (x + 1.0) / 2.0 * (second - first) + first


@dataclass(frozen=True)
class Group:
    """of: (first, end) of the state's numbers that the actions are relative to. pose: composed with it as poses."""

    name: str
    scale: Scale
    of: tuple[int, int] | None = None
    pose: bool = False


def spans_of(groups: Sequence[Group]) -> dict[str, tuple[int, int]]:
    """{group: (first, end)} of the numbers, one group after the other."""
    spans, begin = {}, 0
    for group in groups:
        spans[group.name], begin = (begin, begin + group.scale.size), begin + group.scale.size
    return spans


def example_state(groups: Sequence[Group]) -> torch.Tensor:
    """A state [1,d] of the kind that the statistics are of."""
    draw, parts = torch.Generator().manual_seed(0), []
    for scale in (g.scale for g in groups):
        share = torch.rand(scale.first.shape, generator=draw)
        parts.append(scale.first + share * (scale.second if scale.mode == MEAN_STD else scale.second - scale.first))
    return torch.cat(parts)[None]


def normalised_state(groups: Sequence[Group], state: torch.Tensor, size: int) -> torch.Tensor:
    """state [1,d], the groups' numbers one after the other -> [1,size], padded with zeros."""
    parts, begin = [], 0
    for group in groups:
        parts.append(group.scale.normalise(state[..., begin: begin + group.scale.size]))
        begin += group.scale.size
    out = torch.cat(parts, -1)
    return torch.nn.functional.pad(out, (0, size - out.shape[-1]))


def decoded_actions(groups: Sequence[Group], actions: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """actions [1,T,D], the groups' numbers one after the other, then padding; state [1,d] in robot units."""
    parts, begin = [], 0
    for group in groups:
        part = group.scale.unnormalise(actions[..., begin: begin + group.scale.size])
        begin += group.scale.size
        if group.of is not None:
            reference = state[:, None, group.of[0]: group.of[1]]
            part = _composed(reference, part) if group.pose else part + reference
        parts.append(part)
    return torch.cat(parts, -1)


def _composed(reference: torch.Tensor, relative: torch.Tensor) -> torch.Tensor:
    """Poses [..., POSE] in a frame given as a pose -> poses in that frame's own frame."""
    turn, other = _rotation(reference[..., 3:]), _rotation(relative[..., 3:])
    place = reference[..., :3] + (turn @ relative[..., :3, None])[..., 0]
    return torch.cat([place, (turn @ other)[..., :2, :].flatten(-2)], -1)


def _rotation(rows: torch.Tensor) -> torch.Tensor:
    """[..., 6] -> [..., 3, 3]: two rows, made orthonormal (Zhou et al. 2019, arXiv 1812.07035)."""
    first, second = rows[..., :3], rows[..., 3:]
    first = first / first.square().sum(-1, keepdim=True).sqrt()
    second = second - (first * second).sum(-1, keepdim=True) * first
    second = second / second.square().sum(-1, keepdim=True).sqrt()
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)
