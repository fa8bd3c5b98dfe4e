"""What VoxPoser's original and the zoo's module are given: places in metres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlacompile.zoo.systems.voxposer import SMALL, Sizes

RECORDED = Path(__file__).with_name("voxposer.json")
SIDE = 100  # the authors' neighbourhood has two voxels to each side at this size alone
SIZES = Sizes(SMALL.text, SMALL.image, SMALL.frame, SMALL.depth, SIDE)
PROBES = [[(i * 37) % SIDE, (i * 61) % SIDE, (i * 89) % SIDE] for i in range(60)]


@dataclass(frozen=True)
class Scene:
    """objects: the drawer and the vase. place: of the end effector."""

    objects: tuple[tuple[float, float, float], tuple[float, float, float]]
    place: tuple[float, float, float]


SCENES = (
    Scene(((0.45, 0.2, 0.3), (0.2, 0.0, 0.35)), (0.0, -0.3, 0.55)),
    Scene(((0.3, -0.31, 0.62), (0.31, 0.14, 0.21)), (0.52, 0.4, 0.1)),
    Scene(((-0.29, 0.45, 0.03), (0.1, 0.1, 0.1)), (0.69, -0.49, 0.98)),  # at the borders
    Scene(((0.4, 0.1, 0.4), (0.28, 0.1, 0.4)), (0.0, 0.1, 0.4)),  # through the vase, every side of which is as near
)
ALIKE = 3  # the number of that
