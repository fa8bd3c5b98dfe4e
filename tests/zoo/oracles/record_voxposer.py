"""Runs the authors' VoxPoser from the places of objects to the voxels of the way:

    .venv/bin/python -m tests.zoo.oracles.record_voxposer VOXPOSER

VOXPOSER: a checkout of huangwl18/VoxPoser, e3a4c9e. Its maps are composed as a language model's code does, with its own
functions; the scene is stood in for: two objects, where the end effector is, and no other points.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import scipy

from tests.zoo.oracles.voxposer_inputs import PROBES, RECORDED, SCENES, SIDE, Scene
from vlacompile.zoo.systems.voxposer import HIGH, LOW, STEPS

PLANNER = {"stop_threshold": 0.001, "savgol_polyorder": 3, "savgol_window_size": 20, "obstacle_map_weight": 1,
           "max_steps": STEPS, "obstacle_map_gaussian_sigma": 10, "target_map_weight": 2, "target_spacing": 1,
           "max_curvature": 3, "pushing_skip_per_k": 5}  # src/configs/rlbench_config.yaml
STAND_INS = {"LMP": {"LMP": None}, "controllers": {"Controller": lambda env, config: None}, "plotly": {},
             "plotly.graph_objects": {}, "transforms3d": {}, "transforms3d.quaternions": {"mat2quat": None}}


class Settings(dict):
    __getattr__ = dict.__getitem__


class World:
    """In place of the simulator."""

    workspace_bounds_min, workspace_bounds_max = np.array(LOW), np.array(HIGH)

    def __init__(self, scene: Scene):
        self.scene = scene

    def get_ee_pos(self) -> np.ndarray:
        return np.array(self.scene.place)

    def get_3d_obs_by_name(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        at = np.array(self.scene.objects[("drawer", "vase").index(name)])
        return at[None], np.array([[0.0, 0.0, 1.0]])

    def get_last_gripper_action(self) -> float:
        return 1.0


def answer(interfaces: types.ModuleType, scene: Scene) -> dict:
    """"open the drawer, but mind the vase", in the authors' functions."""
    tools = interfaces.LMP_interface(World(scene), {"map_size": SIDE}, {}, Settings(PLANNER))
    drawer, vase = tools.detect("drawer"), tools.detect("vase")
    affordance, avoidance = tools.get_empty_affordance_map(), tools.get_empty_avoidance_map()
    velocity, gripper = tools.get_empty_velocity_map(), tools.get_empty_gripper_map()
    x, y, z = drawer.position
    affordance[max(x - tools.cm2index(10, "x"), 0), y, z] = 1
    tools.set_voxel_by_radius(avoidance, vase.position, radius_cm=20, value=1)
    tools.set_voxel_by_radius(velocity, vase.position, radius_cm=25, value=0.5)
    tools.set_voxel_by_radius(gripper, drawer.position, radius_cm=12, value=0)
    maps = [getattr(m, "array", m) for m in (affordance, avoidance)]
    start = tools.get_ee_pos()
    with contextlib.redirect_stdout(io.StringIO()):
        _, info = interfaces.PathPlanner(Settings(PLANNER), SIDE).optimize(start, *maps)
    way = info["planner_raw_path"]
    at = tuple(np.array(PROBES).T)
    return {"way": way.tolist(), "costs": [float(f"{c:.8g}") for c in info["costmap"][at]],
            "velocity": [float(velocity[tuple(v)]) for v in way], "gripper": [float(gripper[tuple(v)]) for v in way]}


def record(checkout: Path) -> None:
    for name, content in STAND_INS.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    sys.modules["plotly"].graph_objects = sys.modules["plotly.graph_objects"]
    sys.path.insert(0, str(checkout / "src"))
    with contextlib.redirect_stdout(io.StringIO()):
        interfaces = importlib.import_module("interfaces")
        found = [answer(interfaces, scene) for scene in SCENES]
    commit = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True,
                            check=True).stdout.strip()
    told = {"commit": commit, "versions": {"numpy": np.__version__, "scipy": scipy.__version__}, "scenes": found}
    RECORDED.write_text("{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in told.items()) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
