"""VoxPoser: maps of values that a language model's code composes from detected objects, and a way through them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.cost_functions import read
from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks import owl_vit
from vlacompile.zoo.blocks.clip import ImageSizes, TextSizes
from vlacompile.zoo.blocks.inputs import FRAME, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.owl_vit import IMAGE, TEXT, UNREAD, OwlViT, of_transformers
from vlacompile.zoo.blocks.rigid_motion import placed, rotation
from vlacompile.zoo.blocks.voxel_maps import descent, distances, normalised, smoothed
from vlacompile.zoo.checkpoint import Checkpoint, Places, tensor_files
from vlacompile.zoo.system import TINY, Published, System

IMAGE_NOW, DEPTH, CAMERA, INTRINSICS, PLACE = "image.now", "depth", "camera", "intrinsics", "place"
LOW, HIGH = (-0.3, -0.5, 0.0), (0.7, 0.5, 1.0)  # of the workspace, in metres
QUERIES, STEPS, REACH, THRESHOLD = 2, 300, 2, 1e-3
TARGET_WEIGHT, OBSTACLE_WEIGHT = 2.0, 1.0
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

# "open the drawer, but mind the vase": functions of a voxel, as the language model writes them. Lengths in voxels, and
# what is "around" an object is a box, as in the authors' set_voxel_by_radius.
TEXT_OF_MAPS = '''
def affordance(voxel, objects, cm, last):
    """A point 10 cm in front of the drawer."""
    x, y, z = objects[0]
    place = np.array([np.maximum(x - 10 * cm, 0), y, z])
    return np.max(np.abs(voxel - place)) <= 0.5

def avoidance(voxel, objects, cm, last):
    """20 cm around the vase."""
    return np.max(np.abs(voxel - objects[1])) <= 20 * cm

def velocity(voxel, objects, cm, last):
    """Half as fast within 25 cm of the vase."""
    return np.where(np.max(np.abs(voxel - objects[1])) <= 25 * cm, 0.5, 1.0)

def gripper(voxel, objects, cm, last):
    """Open but at the drawer."""
    return np.max(np.abs(voxel - objects[0])) > 12 * cm
'''


@dataclass(frozen=True)
class Sizes:
    """map: voxels of a side. depth: (height, width) of the depth frame, whose points are clustered by boxes."""

    text: TextSizes = TEXT
    image: ImageSizes = IMAGE
    frame: int = 768
    depth: tuple[int, int] = (96, 96)
    map: int = 100


SMALL = Sizes(TextSizes(16, 2, 2, 16, 100, 16), ImageSizes(16, 2, 2, 32, 96), 96, (12, 12), 16)


class VoxPoser(nn.Module):
    """Texts of the objects i64 [2,16]; a frame u8 [1,side,side,3], depth f32 [1,h,w] in metres, the camera's pose f32
    [1,6] and intrinsics f32 [1,4] (focal lengths and centre, in cells of the depth frame), the end effector's place f32
    [1,3] -> {"action": f32 [1,301,5]: places in metres, velocity, gripper, the last one repeated; "steps": i64 [1];
    "objects": f32 [1,2,3]}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, self.detector = sizes, OwlViT(sizes.text, sizes.image)
        self.maps = read(TEXT_OF_MAPS)
        voxels = torch.cartesian_prod(*[torch.arange(sizes.map, dtype=torch.float32)] * 3)
        self.register_buffer("voxels", voxels, persistent=False)
        self.register_buffer("low", torch.tensor(LOW), persistent=False)
        self.register_buffer("span", torch.tensor(HIGH) - torch.tensor(LOW), persistent=False)

    def objects(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """[2,3]: means of the points within the most likely box of each text."""
        boxes, logits = self.detector(unit(inputs[IMAGE_NOW], *CLIP), self.detector.queries(inputs[TOKENS]))
        centre, size = boxes[0][logits[0].argmax(0)].chunk(2, -1)  # [2,2]
        (height, width), depth = self.sizes.depth, inputs[DEPTH].flatten(1)
        rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
        cells = torch.stack([columns, rows], 1) + 0.5
        off = (cells / torch.tensor([width, height]) - centre[:, None]).abs()
        within = (off <= size[:, None] / 2 + 0.5 / min(height, width)).all(-1).to(torch.float32)  # [2,n]
        focal, middle = inputs[INTRINSICS].chunk(2, -1)
        rays = torch.cat([(cells - middle) / focal, torch.ones(len(cells), 1)], 1)
        points = placed(inputs[CAMERA], rotation(inputs[CAMERA]), rays * depth.T)[0]
        return within @ points / within.sum(1, keepdim=True).clamp(min=1)

    def in_voxels(self, places: torch.Tensor) -> torch.Tensor:
        """The voxels, whole numbers, that places of the workspace are in; of others, the nearest."""
        at = (places - self.low).clamp(min=0).minimum(self.span)
        return (at / self.span * (self.sizes.map - 1)).round()

    def known(self, objects: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the maps are functions of, beside a voxel."""
        side = self.sizes.map
        return self.in_voxels(objects)[None], side / (100 * self.span[:1]), torch.tensor([float(side - 1)])

    def costs(self, known: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Of every voxel [side,side,side], from 0 to 1."""
        side = self.sizes.map
        target, obstacle = (self.maps[name](self.voxels, *known).view(side, side, side)
                            for name in ("affordance", "avoidance"))
        return normalised(TARGET_WEIGHT * normalised(distances(target == 1))
                          + OBSTACLE_WEIGHT * normalised(smoothed(obstacle, side / 10)))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        objects = self.objects(inputs)
        known = self.known(objects)
        start = self.in_voxels(inputs[PLACE][0]).to(torch.int64)
        way, steps = descent(self.costs(known), start, STEPS, REACH, THRESHOLD)
        at = way.to(torch.float32)
        columns = [at / (self.sizes.map - 1) * self.span + self.low]
        columns += [self.maps[name](at, *known)[:, None] for name in ("velocity", "gripper")]
        return {"action": torch.cat(columns, 1)[None], "steps": steps, "objects": objects[None]}


def places(module: nn.Module, files: TensorFiles) -> Places:
    """Of the detector's tensors; no others have weights."""
    own = [n.removeprefix("detector.") for n in module.state_dict()]
    return {f"detector.{n}": theirs for n, theirs in owl_vit.places(own).items()}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    height, width = sizes.depth
    texts = torch.cat([F.pad(words(6 + i, sizes.text.vocabulary - 1, 6 + i)[0], (0, 10 - i)) for i in range(QUERIES)])
    texts[torch.arange(QUERIES), torch.arange(5, 5 + QUERIES)] = sizes.text.vocabulary - 1  # the end of the text
    example = {TOKENS: texts, IMAGE_NOW: frame(sizes.frame), DEPTH: torch.rand(1, height, width) * 0.6 + 0.4,
               CAMERA: torch.tensor([[0.2, 0.0, 1.0, 3.14159, 0.0, 0.0]]),
               INTRINSICS: torch.tensor([[0.9 * width, 0.9 * width, width / 2, height / 2]]),
               PLACE: torch.tensor([[0.1, -0.3, 0.8]])}
    sources = {TOKENS: TASK, CAMERA: TASK, INTRINSICS: TASK, IMAGE_NOW: FRAME, DEPTH: FRAME, PLACE: FRAME}
    return Policy("voxposer", VoxPoser(sizes).eval(), sources, example, outputs=("action", "steps", "objects"))


_PAPER, _CODE = "arXiv 2307.05973", "github.com/huangwl18/VoxPoser"
SYSTEM = System(
    "VoxPoser", 2023, 3, f"{_PAPER} and {_CODE}", make,
    says=("maps of values from detected objects, and a way through them",),
    code="MIT", weights="Apache-2.0 (OWL-ViT)",
    checkpoint=Checkpoint(places=places, unread=UNREAD,
                          files=lambda path, module: of_transformers(tensor_files(path))),
    assumptions=(
        "the code that a language model writes is part of the policy, as functions of a voxel; those here are an "
        "example. Velocity and gripper are evaluated at waypoints alone; the end effector keeps its rotation",
        "an object is where the points within its box are: SAM's masks and XMem's tracks are left out, which the "
        "authors' code replaces by the simulator's truth",
        "what is to be avoided is what the language model's map says: the authors add all points of the scene that are "
        "not near the target or the end effector",
        "the way is not smoothed: the authors' filter over a way of unknown length is left to the robot; the map's "
        "Gaussian has a tenth of its side, as theirs",
    ),
    published=(
        Published("rate", 5, "replans/s", "closed loop, from a secondary page", _PAPER),
        Published("success", 88, "% of tasks", "real robot, without disturbance, from a secondary page", _PAPER),
    ))
