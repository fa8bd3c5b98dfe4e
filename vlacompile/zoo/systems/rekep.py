"""ReKep: keypoints of DINOv2, constraints on them that a language model wrote, and poses that satisfy these."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.cost_functions import CostFunction, read
from vlacompile.policy.iterate import iterate
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.dinov2 import SMALL as DINOV2_SMALL
from vlacompile.zoo.blocks.dinov2 import DinoV2, VisionSizes
from vlacompile.zoo.blocks.inputs import FRAME, IMAGENET, TASK, frame, unit
from vlacompile.zoo.blocks.projected_gradient import Descent, best
from vlacompile.zoo.blocks.rigid_motion import angle_between, placed, quaternion, rotation, seen_from
from vlacompile.zoo.system import TINY, System

FIRST, MARKED, HELD = "image.first", "marked", "held"
NOW, DEPTH, CAMERA, INTRINSICS = "image.now", "depth", "camera", "intrinsics"
POSE, FIELD, BODY = "pose", "field", "body"
KEYPOINTS, SEEDS, CONTROLS, EXECUTED = 12, 64, 6, 5
LOW, HIGH = (0.2, -0.45, 0.7), (0.9, 0.45, 1.3)  # of the workspace, in metres
NEAR, NEAR_PATH = 0.10, 0.20  # metres from obstacles within which a goal, and a path, cost more

TEXTS = {
    "pour": '''
def goal_spout_above_cup(end_effector, keypoints):
    """The spout is 5 cm above the opening of the cup."""
    above = keypoints[5] + np.array([0, 0, 0.05])
    return np.linalg.norm(keypoints[1] - above) - 0.01

def goal_tilted(end_effector, keypoints):
    """The pot is tilted by 45 degrees."""
    axis = keypoints[1] - keypoints[0]
    down = np.array([0, 0, -1])
    angle = np.arccos(np.clip(np.dot(axis, down) / np.linalg.norm(axis), -1, 1))
    return np.abs(angle - np.pi / 4) - 0.05

def path_not_over_the_edge(end_effector, keypoints):
    """On its way the pot stays above all that stands on the table."""
    highest = np.max(np.array([keypoints[i][2] for i in range(4, 8)]))
    return highest - min(keypoints[0][2], keypoints[1][2])
''',
    "grasp": '''
def goal_at_the_handle(end_effector, keypoints):
    """The end effector is at the handle."""
    return np.linalg.norm(end_effector - keypoints[0]) - 0.005

def path_from_above(end_effector, keypoints):
    """It does not go below the handle."""
    return keypoints[0][2] - end_effector[2] - 0.02
''',
}


GOAL, PATH = Descent(), Descent(rates=(0.05, 0.002))


@dataclass(frozen=True)
class Sizes:
    """frame: (height, width). field: cells of the distances to obstacles along x, y, z. body: points of the gripper and
    what it holds. between: dense samples of the path from one control pose to the next."""

    vision: VisionSizes = DINOV2_SMALL
    frame: tuple[int, int] = (476, 644)
    field: tuple[int, int, int] = (70, 90, 60)
    body: int = 60
    between: int = 5
    goal: Descent = GOAL
    path: Descent = PATH


SMALL = Sizes(replace(DINOV2_SMALL, width=24, depth=2, heads=2, hidden=48, side=70), (42, 56), (7, 9, 6), 4, 2)


Scene = dict[str, torch.Tensor]


class ReKep(nn.Module):
    """Of a task: the first frame u8 [1,H,W,3], keypoints marked in it f32 [1,12,2] as (column, row), which of them move
    with the end effector, bool [1,12]. Of an observation: the frame, depth f32 [1,H,W] in metres, the camera's pose f32
    [1,6] and intrinsics f32 [1,4] (focal lengths, centre), the end effector's pose f32 [1,6], distances to obstacles
    f32 [1,X,Y,Z], points of the body f32 [1,n,3] in the end effector's frame.
    -> {"action": f32 [1,7,7]: positions and quaternions of six control poses and the goal, "keypoints": f32 [1,12,3],
    "cost": f32 [1,2]: of the goal and of the path}."""

    def __init__(self, sizes: Sizes, stage: str):
        super().__init__()
        self.sizes, self.vision, self.grasps = sizes, DinoV2(sizes.vision), stage == "grasp"
        costs = read(TEXTS[stage])
        self.goals, self.ways = ([c for n, c in costs.items() if n.startswith(kind)] for kind in ("goal", "path"))
        self.register_buffer("low", torch.tensor([*LOW, *[-math.pi] * 3]), persistent=False)
        self.register_buffer("high", torch.tensor([*HIGH, *[math.pi] * 3]), persistent=False)
        seeds = torch.quasirandom.SobolEngine(6).draw(SEEDS)
        self.register_buffer("seeds", 2 * seeds - 1, persistent=False)
        self.register_buffer("corners", torch.cartesian_prod(*[torch.arange(2)] * 3), persistent=False)  # [8,3]
        bow = torch.sin(torch.arange(1, CONTROLS + 1) / (CONTROLS + 1) * math.pi)[:, None]
        detours = 0.2 * self.seeds[:, None] * bow  # [64,6,6], the first straight
        self.register_buffer("detours", (detours * (torch.arange(SEEDS) > 0)[:, None, None]).flatten(1),
                             persistent=False)

    # keypoints

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """[n,width], of length one."""
        return F.normalize(self.vision(unit(image, *IMAGENET))[0], dim=-1)

    def tracked(self, inputs: Scene) -> torch.Tensor:
        """Keypoints [12,3]: each where the frame looks as it did at the keypoint in the first one."""
        patch, (height, width) = self.sizes.vision.patch, self.sizes.frame
        columns, rows = torch.arange(width // patch), torch.arange(height // patch)
        at = inputs[MARKED][0] / patch - 0.5
        near = [(1 - (at[:, i, None] - line[None]).abs()).clamp(min=0) for i, line in enumerate((columns, rows))]
        weights = (near[1][:, :, None] * near[0][:, None]).flatten(1)
        wanted = F.normalize(weights @ self.features(inputs[FIRST]), dim=-1)
        alike = torch.softmax(wanted @ self.features(inputs[NOW]).T / 0.02, -1)  # [12,n]
        depth = F.avg_pool2d(inputs[DEPTH][:, None], patch).flatten(1)
        middles = torch.stack([columns.repeat(len(rows)), rows.repeat_interleave(len(columns))], 1)
        focal, centre = inputs[INTRINSICS].chunk(2, -1)
        rays = (alike @ (middles * patch + 0.5 * patch) - centre) / focal
        seen = torch.cat([rays, torch.ones(KEYPOINTS, 1)], 1) * (alike @ depth.T)
        return placed(inputs[CAMERA], rotation(inputs[CAMERA]), seen)[0]

    # costs, each of poses [n,6] in metres and radians -> [n]

    def violated(self, costs: list[CostFunction], poses: torch.Tensor, turns: torch.Tensor, scene: Scene) \
            -> torch.Tensor:
        moved = torch.where(scene["held"][:, None], placed(poses, turns, scene["own"]), scene["keypoints"])
        return sum((F.relu(cost(poses[:, :3], moved)) for cost in costs), torch.zeros(poses.shape[0]))

    def collision(self, poses: torch.Tensor, turns: torch.Tensor, scene: Scene, near: float) -> torch.Tensor:
        """How far points of the body are within `near` of an obstacle, in the mean; between its cells the field is
        linear."""
        sides = torch.tensor(self.sizes.field)
        at = (placed(poses, turns, scene["body"]) - self.low[:3]) * ((sides - 1) / (self.high[:3] - self.low[:3]))
        at = torch.minimum(at.clamp(min=0), sides - 1.001)
        cell = at.detach().floor()
        corners = self.corners
        weights = 1 - (corners - (at - cell)[..., None, :]).abs()
        _, rows, columns = self.sizes.field
        places = ((cell[..., None, :].to(torch.int64) + corners) * torch.tensor([rows * columns, columns, 1])).sum(-1)
        distance = (weights.prod(-1) * scene["field"].flatten()[places]).sum(-1)
        return F.relu(near - distance).mean(-1)

    def goal_cost(self, x: torch.Tensor, scene: Scene) -> torch.Tensor:
        """x [n,6]: poses at the end of the stage."""
        poses = self.poses(x)
        turns = rotation(poses)
        same = _length(poses - scene["pose"]) + 1.5 * angle_between(turns, scene["turn"])
        cost = 0.8 * self.collision(poses, turns, scene, NEAR) + same
        if self.grasps:
            cost = cost + 10 * (1 + turns[:, 2, 0])  # the x axis points down
        return cost + 200 * self.violated([*self.goals, *self.ways], poses, turns, scene)

    def way(self, x: torch.Tensor, goal: torch.Tensor, scene: Scene) -> torch.Tensor:
        """x [n,36]: how far six control poses lie from the straight way to the goal [1,6] -> [n,8,6], with both
        ends."""
        parts = torch.arange(CONTROLS + 2)[None, :, None] / (CONTROLS + 1)
        straight = scene["start"][:, None] * (1 - parts) + goal[:, None] * parts
        return self.poses((straight + F.pad(x.unflatten(1, (CONTROLS, 6)), (0, 0, 1, 1))).clamp(-1, 1))

    def path_cost(self, x: torch.Tensor, goal: torch.Tensor, scene: Scene) -> torch.Tensor:
        way, count, between = self.way(x, goal, scene), x.shape[0], self.sizes.between
        parts = torch.arange(between).view(1, 1, -1, 1) / between
        dense = (way[:, :-1, None] * (1 - parts) + way[:, 1:, None] * parts).reshape(-1, 6)
        turns = rotation(dense)
        controls, turned = dense.view(count, -1, 6)[:, between::between], turns.view(count, -1, 3, 3)[:, ::between]
        steps = _length(way[:, 1:-1] - way[:, :-2]).sum(1) + angle_between(turned[:, 1:], turned[:, :-1]).sum(1) \
            + _length(way[:, -1] - way[:, -2]) + angle_between(rotation(way[:, -1]), turned[:, -1])
        cost = 0.5 * self.collision(dense, turns, scene, NEAR_PATH).view(count, -1).sum(-1) + 4 * steps
        bad = self.violated(self.ways, controls.reshape(-1, 6), turned[:, 1:].reshape(-1, 3, 3), scene)
        return cost + 200 * bad.view(count, -1).sum(-1)

    def poses(self, x: torch.Tensor) -> torch.Tensor:
        return self.low + (x + 1) / 2 * (self.high - self.low)

    def scaled(self, poses: torch.Tensor) -> torch.Tensor:
        return (2 * (poses - self.low) / (self.high - self.low) - 1).clamp(-1, 1)

    def scene(self, inputs: Scene) -> Scene:
        """What the costs of an observation are computed from."""
        keypoints, pose = self.tracked(inputs), inputs[POSE]
        return {"keypoints": keypoints, "own": seen_from(pose, keypoints), "held": inputs[HELD][0], "pose": pose,
                "turn": rotation(pose), "start": self.scaled(pose), "body": inputs[BODY][0],
                "field": inputs[FIELD][0]}

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        scene, goals, paths = self.scene(inputs), self.sizes.goal, self.sizes.path

        def step(k: int, state: dict[str, dict]) -> dict[str, dict]:
            """A path ends at the best goal so far."""
            goal = goals.step(k, state["goal"], lambda x: self.goal_cost(x, scene))
            end = best(goal)[0]
            return {"goal": goal, "path": paths.step(k, state["path"], lambda x: self.path_cost(x, end, scene))}

        state = {"goal": goals.begin(torch.cat([scene["start"], self.seeds[1:]])),
                 "path": paths.begin(self.detours)}
        state = iterate(step, state, goals.iterations,
                        until=lambda s: goals.over(s["goal"]) & paths.over(s["path"]))
        (goal, at_goal), (path, at_path) = best(state["goal"]), best(state["path"])
        way = self.way(path, goal, scene)[0, 1:]
        return {"action": torch.cat([way[:, :3], quaternion(way[:, 3:])], 1)[None],
                "keypoints": scene["keypoints"][None], "cost": torch.stack([at_goal, at_path], 1)}


def _length(apart: torch.Tensor) -> torch.Tensor:
    """Of differences of poses [...,6] the metres [...]. Smooth at 0."""
    return torch.sqrt(apart[..., :3].square().sum(-1) + 1e-12)


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    height, width = sizes.frame
    example = {
        FIRST: frame(height, width), MARKED: torch.rand(1, KEYPOINTS, 2) * torch.tensor([width, height]),
        HELD: torch.arange(KEYPOINTS)[None] < (0 if variant == "grasp" else 4), NOW: frame(height, width),
        DEPTH: torch.rand(1, height, width) + 0.5,
        CAMERA: torch.tensor([[0.0, 0.0, 1.4, -2.2, 0.0, -1.57]]),
        INTRINSICS: torch.tensor([[0.9 * width, 0.9 * width, width / 2, height / 2]]),
        POSE: torch.tensor([[0.45, 0.1, 0.95, 3.0, 0.1, 0.2]]), FIELD: torch.rand(1, *sizes.field) * 0.3,
        BODY: torch.randn(1, sizes.body, 3) * 0.05}
    sources = {FIRST: TASK, MARKED: TASK, HELD: TASK, CAMERA: TASK, INTRINSICS: TASK, NOW: FRAME, DEPTH: FRAME,
               POSE: FRAME, FIELD: FRAME, BODY: FRAME}
    return Policy(f"rekep_{variant}", ReKep(sizes, variant).eval(), sources, example,
                  outputs=("action", "keypoints", "cost"), execute=EXECUTED)


SYSTEM = System(
    "ReKep", 2024, 4, "arXiv 2409.01652", make,
    says=("the constraints of pouring", "the constraints of grasping"),
    variants=("pour", "grasp"),
    assumptions=(
        "the authors' code has no licence: the terms and weights of the costs are facts of it, the code is ours",
        "constraints of one stage, as a language model writes them, are part of the policy; those here are examples",
        "64 points and at most 30 iterations of projected gradient descent in place of dual annealing and SLSQP, from "
        "the same points at every replan; terms of inverse kinematics are left out, as they have no gradient",
        "keypoints are given in the first frame: their proposal clusters features on masks and is no network; they are "
        "tracked by the likeness of DINOv2's features, 12 of them",
        "a path always has six control poses; between them it is linear in position and angles",
    ))
