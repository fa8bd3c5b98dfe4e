"""Where a robot should drive to see more of a map: the border of the unknown (Yamauchi 1997) as a tensor program."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

UNKNOWN, FREE = -1, 20  # an occupancy in percent, free up to FREE


@dataclass(frozen=True)
class FrontierSettings:
    """Lengths in metres. cell: side of a grid cell. reach: goals lie within it around the middle of the grid. sight,
    view, views: range and angle of the camera in degrees, and how many directions are tried. gain: unknown cells that
    must be in view. apart: least distance of two goals."""

    cell: float = 0.1
    reach: float = 7.5
    sight: float = 1.5
    view: float = 70.0
    views: int = 15
    gain: float = 50.0
    apart: float = 1.0
    goals: int = 15


SETTINGS = FrontierSettings()


class Frontiers(nn.Module):
    """grid i32 [1,H,W]: occupancy in percent or -1; robot f32 [1,2]: metres from the middle of the grid -> goals
    [1,goals,5]: x, y, direction to look, unknown cells in view, 1 if there is such a goal; the nearest first."""

    def __init__(self, side: int, settings: FrontierSettings = SETTINGS):
        super().__init__()
        self.settings = s = settings
        middles = (torch.arange(side) + 0.5 - side / 2) * s.cell
        self.register_buffer("x", middles.expand(side, side).clone(), persistent=False)
        self.register_buffer("y", middles[:, None].expand(side, side).clone(), persistent=False)
        self.register_buffer("wedges", _wedges(s), persistent=False)

    def forward(self, grid: torch.Tensor, robot: torch.Tensor) -> torch.Tensor:
        s = self.settings
        unknown, free = grid == UNKNOWN, (grid >= 0) & (grid <= FREE)
        within = self.x.square() + self.y.square() <= s.reach**2
        border = unknown & _grown(free, 3) & ~_grown(grid > FREE, 5) & within
        seen = F.conv2d(unknown.to(torch.float32)[:, None], self.wedges, padding="same")  # [1,views,H,W]
        gain, view = seen.max(1)
        border = border & (gain >= s.gain)
        x, y = robot.unbind(-1)
        far = (self.x - x[:, None, None]).square() + (self.y - y[:, None, None]).square()
        far = torch.where(border, far, torch.inf).flatten(1)  # [1,H*W]
        places, goals = (self.x.flatten()[None], self.y.flatten()[None]), []
        columns = (*places, view.flatten(1) * (2 * math.pi / s.views), gain.flatten(1))
        for _ in range(s.goals):
            distance, at = far.min(1, keepdim=True)
            exists = torch.isfinite(distance)
            goal = [torch.where(exists, c.gather(1, at), 0.0) for c in columns]
            goals.append(torch.cat([*goal, exists.to(torch.float32)], 1))
            near = sum((p - g).square() for p, g in zip(places, goal, strict=False))
            far = torch.where((near < s.apart**2) & exists, torch.inf, far)
        return torch.stack(goals, 1)


def _grown(mask: torch.Tensor, side: int) -> torch.Tensor:
    """True where any cell of the square around it is."""
    return F.max_pool2d(mask.to(torch.float32)[:, None], side, 1, side // 2)[:, 0] > 0


def _wedges(s: FrontierSettings) -> torch.Tensor:
    """[views,1,n,n]: 1 at cells that a camera in the middle sees, for each direction."""
    radius = math.ceil(s.sight / s.cell)
    at = torch.arange(-radius, radius + 1).to(torch.float32) * s.cell
    bearing, distance = torch.atan2(at[:, None], at[None, :]), torch.hypot(at[:, None], at[None, :])
    views = torch.arange(s.views)[:, None, None] * (2 * math.pi / s.views)
    off = torch.remainder(bearing - views + math.pi, 2 * math.pi) - math.pi
    return ((off.abs() <= math.radians(s.view) / 2) & (distance <= s.sight)).to(torch.float32)[:, None]
