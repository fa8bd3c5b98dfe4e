"""Poses as six numbers: a position in metres and angles about x, y and z, in radians, turned in this order."""

from __future__ import annotations

import torch

# a turn by an angle about axis i is FIXED[i] + cosine * COSINE[i] + sine * SINE[i]
FIXED = torch.diag_embed(torch.eye(3))
COSINE = torch.diag_embed(1 - torch.eye(3))
SINE = torch.tensor([[[0.0, 0, 0], [0, 0, -1], [0, 1, 0]], [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
                     [[0, -1, 0], [1, 0, 0], [0, 0, 0]]])


def rotation(poses: torch.Tensor) -> torch.Tensor:
    """[n,6] -> [n,3,3]: Rz Ry Rx."""
    angles = poses[:, 3:, None, None]
    turns = FIXED + torch.cos(angles) * COSINE + torch.sin(angles) * SINE
    return turns[:, 2] @ turns[:, 1] @ turns[:, 0]


def quaternion(angles: torch.Tensor) -> torch.Tensor:
    """[n,3] -> [n,4]: x, y, z, w."""
    (cx, cy, cz), (sx, sy, sz) = (f(angles / 2).unbind(-1) for f in (torch.cos, torch.sin))
    return torch.stack([sx * cy * cz - cx * sy * sz, cx * sy * cz + sx * cy * sz, cx * cy * sz - sx * sy * cz,
                        cx * cy * cz + sx * sy * sz], -1)


def placed(poses: torch.Tensor, turns: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Points [m,3] of a body of which the poses [n,6] are given, with their rotations [n,3,3] -> [n,m,3]."""
    return points @ turns.transpose(1, 2) + poses[:, None, :3]


def seen_from(pose: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Points [m,3] in the frame of a body with pose [1,6] -> [m,3]; `placed` puts them back."""
    return (points - pose[:, :3]) @ rotation(pose)[0]


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of rotations [...,3,3] the angle of the turn from one to the other [...], from 0 to nearly pi. Smooth at 0."""
    chord = torch.sqrt((a - b).square().sum((-2, -1)) / 8 + 1e-12)  # the sine of half the angle
    return 2 * torch.asin(chord.clamp(max=0.9999))
