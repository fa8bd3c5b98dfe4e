"""A scripted expert with privileged state: waypoints of the gripper, one list per task.

It knows where objects are; the policies that learn from it only see images. `python -m
examples.libero_goal.expert --tasks 1,8` prints its success rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from examples.libero_goal.scene import ACTION_DIM, CLOSE, OPEN, GoalScene

GAIN = 12.0  # action units per metre of distance; clipped to 1
BOWL, CHEESE, PLATE, BOTTLE = "akita_black_bowl_1_main", "cream_cheese_1_main", "plate_1_main", "wine_bottle_1_main"
RIM = np.array([0.0, 0.048, 0.0])  # the bowl is held at its rim, this far from its centre

Target = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Move:
    """Go to `target` with the gripper at `grip` until within `tolerance` metres (and for at least
    `least` steps), or until `until` holds, or for `most` steps. turn: rotation action about z. entry:
    when it holds, an expert that takes over may begin with this move."""

    target: Target
    grip: float
    tolerance: float = 0.012
    most: int = 60
    least: int = 0
    turn: float = 0.0
    until: Callable[[], bool] | None = None
    entry: Callable[[], bool] | None = None


class Expert:
    """Follows the waypoints of one task; `act` returns (action [7], done)."""

    def __init__(self, scene: GoalScene, task: int):
        self.scene = scene
        self.hand = scene.state[:3].astype(float)
        self._moves = TASKS[task](self)
        self.take_over()

    def take_over(self) -> None:
        """Begin at the last waypoint whose entry condition holds in the current scene."""
        self.hand = self.scene.state[:3].astype(float)
        self._at = max([i for i, m in enumerate(self._moves) if m.entry is not None and m.entry()], default=0)
        self._steps = 0
        self._held: dict[str, np.ndarray] = {}

    def act(self) -> tuple[np.ndarray, bool]:
        self.hand = self.scene.state[:3].astype(float)
        while self._at < len(self._moves):
            move = self._moves[self._at]
            error = move.target() - self.hand
            near = np.linalg.norm(error) < move.tolerance and self._steps >= move.least
            if near or self._steps >= move.most or (move.until is not None and move.until()):
                self._at, self._steps = self._at + 1, 0
                continue
            self._steps += 1
            action = np.zeros(ACTION_DIM)
            action[:3] = np.clip(error * GAIN, -1.0, 1.0)
            action[5], action[6] = move.turn, move.grip
            return action, False
        rest = np.zeros(ACTION_DIM)
        rest[6] = self._moves[-1].grip
        return rest, True

    def once(self, key: str, value: Target) -> np.ndarray:
        """`value` at its first use."""
        if key not in self._held:
            self._held[key] = value()
        return self._held[key]

    def body(self, name: str, dx: float = 0.0, dy: float = 0.0, dz: float = 0.0) -> Target:
        return lambda: self.scene.body(name) + (dx, dy, dz)

    def along(self, name: str, distance: float) -> Target:
        """The point on a body's own vertical axis, `distance` from its origin."""
        return lambda: self.scene.body(name) + distance * self.scene.body_rotation(name)[:, 2]

    def closed_on(self, grasp: Target, steps: int) -> Callable[[], bool]:
        """Whether the gripper has been closing for `steps` steps and the hand is at `grasp`."""
        return lambda: self.scene.closed_for >= steps and float(np.linalg.norm(grasp() - self.hand)) < 0.03

    def lift(self, height: float) -> Target:
        """Straight up from the hand's position at the beginning of the lift."""
        return lambda: np.array([*self.once("lift", self.hand.copy)[:2], height])

    def above(self, place: Target, height: float) -> Target:
        return lambda: np.array([*place()[:2], height])


def pick_and_place(e: Expert, grasp: Target, place: Target, *, hover: float, travel: float, drop: float,
                   close_steps: int, retreat: float = 0.1) -> list[Move]:
    """grasp, place: where the hand closes, and above which it opens. hover: start above the
    grasp. travel: absolute height on the way. drop: height above `place` at which it opens. Metres."""

    def raised(target: Target, dz: float) -> Target:
        return lambda: target() + (0.0, 0.0, dz)

    return [
        Move(raised(grasp, hover), OPEN, 0.02), Move(grasp, OPEN, 0.008),
        Move(grasp, CLOSE, 0, close_steps, close_steps, entry=e.closed_on(grasp, 1)),
        Move(e.lift(travel), CLOSE, 0.03, entry=e.closed_on(grasp, close_steps)),
        Move(e.above(place, travel), CLOSE, 0.018, 90),
        Move(raised(place, drop), CLOSE, 0.012, 50), Move(raised(place, drop), OPEN, 0, 6, 6),
        Move(raised(place, drop + retreat), OPEN, 0.03),
    ]


def bowl_to(place: Callable[[Expert], Target], travel: float, drop: float) -> Callable[[Expert], list[Move]]:
    def moves(e: Expert) -> list[Move]:
        centre = place(e)
        return pick_and_place(e, e.body(BOWL, 0.0, RIM[1], 0.028), lambda: centre() + RIM, hover=0.112, travel=travel,
                              drop=drop, close_steps=14)
    return moves


def bottle_to_cabinet(e: Expert) -> list[Move]:
    return pick_and_place(e, e.along(BOTTLE, 0.13), lambda: e.scene.site("wooden_cabinet_1_top_side"), hover=0.11,
                          travel=1.36, drop=0.145, close_steps=8)


def cheese_to_bowl(e: Expert) -> list[Move]:
    return pick_and_place(e, e.body(CHEESE, dz=0.005), e.body(BOWL), hover=0.115, travel=1.08, drop=0.075,
                          close_steps=8)


def push_plate(e: Expert) -> list[Move]:
    """Press down inside the plate and drag it."""
    goal: Target = lambda: e.scene.site("main_table_stove_front_region")

    def way() -> np.ndarray:
        d = goal()[:2] - e.scene.body(PLATE)[:2]
        return d / max(float(np.linalg.norm(d)), 1e-6)

    def drag() -> np.ndarray:
        return np.array([*(e.hand[:2] + np.clip(goal()[:2] - e.scene.body(PLATE)[:2], -0.04, 0.04)), 0.905])

    def pressing() -> bool:
        return bool(np.linalg.norm(e.scene.body(PLATE)[:2] - e.hand[:2]) < 0.065 and e.hand[2] < 0.925)

    solved = e.scene.success
    stroke = [
        Move(lambda: np.array([*(e.scene.body(PLATE)[:2] + way() * 0.02), 1.03]), CLOSE, 0.02, until=solved),
        Move(lambda: np.array([*(e.scene.body(PLATE)[:2] + way() * 0.03), 0.908]), CLOSE, 0.012, 30, until=solved),
        Move(drag, CLOSE, 0.012, 110, entry=pressing, until=lambda: not pressing() or solved()),
    ]
    # The hand may slip over the rim; then it returns to the plate.
    again = [replace(move, entry=None) for move in stroke]
    return [*stroke, *again, *again, Move(lambda: np.array([*goal()[:2], 1.02]), CLOSE, 0.03)]


def bottle_to_rack(e: Expert) -> list[Move]:
    """Lower the bottle onto the rack; it leans back into the rack when released."""
    return pick_and_place(e, e.along(BOTTLE, 0.13), lambda: e.scene.site("wine_rack_1_top_region"), hover=0.11,
                          travel=1.40, drop=0.11, close_steps=8)


def turn_knob(e: Expert) -> list[Move]:
    """Close on the knob's bar and turn the hand; pushing from the side is too slow, because the knob is damped."""
    knob = "flat_stove_1_button"
    grasp = e.body(knob, dz=0.025)
    return [
        Move(e.body(knob, dz=0.12), OPEN, 0.02), Move(grasp, OPEN, 0.01, 30), Move(grasp, CLOSE, 0, 8, 8),
        Move(lambda: e.once("held", e.hand.copy), CLOSE, -1.0, 60, turn=1.0, entry=e.closed_on(grasp, 8),
             until=lambda: e.scene.joint(knob) > 0.9),
        Move(e.body(knob, dz=0.15), OPEN, 0.03, 40),
    ]


TASKS: dict[int, Callable[[Expert], list[Move]]] = {
    1: bowl_to(lambda e: lambda: e.scene.site("flat_stove_1_cook_region"), travel=1.12, drop=0.06),
    2: bottle_to_cabinet,
    4: bowl_to(lambda e: lambda: e.scene.site("wooden_cabinet_1_top_side"), travel=1.28, drop=0.075),
    5: push_plate,
    6: cheese_to_bowl,
    7: turn_knob,
    8: bowl_to(lambda e: e.body(PLATE), travel=1.06, drop=0.058),
    9: bottle_to_rack,
}
STEP_LIMIT = 260


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(map(str, TASKS)))
    parser.add_argument("--episodes", type=int, default=3)
    arguments = parser.parse_args()
    scene = GoalScene()
    for task in map(int, arguments.tasks.split(",")):
        done_after = []
        for episode in range(arguments.episodes):
            scene.reset_sampled(task, 100 + episode)
            expert, steps, done = Expert(scene, task), 0, False
            while not done and steps < STEP_LIMIT and not scene.success():
                action, done = expert.act()
                scene.step(action)
                steps += 1
            done_after.append(steps if scene.success() else None)
        print(f"{task} {scene.instructions[task]}: {done_after}", flush=True)


if __name__ == "__main__":
    main()
