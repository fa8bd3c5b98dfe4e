"""An environment as LeRobot documents them for packages of others: `lerobot_env_*`, a configuration that is registered.
An episode is a recorded one, whatever is done; the actions are written down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

STATE, CAMERA = "state", "camera."  # names of the file's arrays, and how those of cameras begin


@EnvConfig.register_subclass("recorded")
@dataclass
class RecordedEnvConfig(EnvConfig):
    """episode: .npz, of state f32 [steps,d], cameras u8 [steps,H,W,3]. actions: how many it takes. done: file, one line
    per action. task: what the policy is told."""

    episode: str = ""
    actions: int = 0
    done: str = ""
    task: str | None = "go on"

    def __post_init__(self):
        with np.load(self.episode) as found:
            self.recorded = dict(found)
        self.features = {"action": PolicyFeature(FeatureType.ACTION, (self.actions,))}
        self.features_map = {"action": "action"}
        for name, array in self.recorded.items():
            kind = FeatureType.STATE if name == STATE else FeatureType.VISUAL
            key = "agent_pos" if name == STATE else f"pixels/{name.removeprefix(CAMERA)}"
            self.features[key] = PolicyFeature(kind, array.shape[1:])
            self.features_map[key] = ("observation.state" if name == STATE else
                                      f"observation.images.{name.removeprefix(CAMERA)}")

    @property
    def gym_kwargs(self) -> dict:
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict:
        return {self.type: {0: gym.vector.SyncVectorEnv([lambda: RecordedEnv(self)] * n_envs)}}


class RecordedEnv(gym.Env):
    metadata = {"render_fps": 10}

    def __init__(self, config: RecordedEnvConfig):
        self.config, self.place, self.task = config, 0, config.task
        self.task_description, self._max_episode_steps = config.task, len(config.recorded[STATE])
        pixels = {n.removeprefix(CAMERA): gym.spaces.Box(0, 255, a.shape[1:], np.uint8)
                  for n, a in config.recorded.items() if n != STATE}
        self.observation_space = gym.spaces.Dict({
            "pixels": gym.spaces.Dict(pixels),
            "agent_pos": gym.spaces.Box(-np.inf, np.inf, config.recorded[STATE].shape[1:], np.float32)})
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (config.actions,), np.float32)

    def _observation(self) -> dict:
        seen = {n: a[self.place % len(a)] for n, a in self.config.recorded.items()}
        return {"agent_pos": seen.pop(STATE), "pixels": {n.removeprefix(CAMERA): a for n, a in seen.items()}}

    def reset(self, *, seed=None, options=None):
        self.place = 0
        return self._observation(), {}

    def step(self, action):
        with Path(self.config.done).open("a", encoding="utf-8") as file:
            file.write(json.dumps([self.place, [float(x) for x in action]]) + "\n")
        self.place += 1
        over = self.place == self._max_episode_steps
        return self._observation(), 0.0, over, False, {"is_success": over}

    def render(self):
        return next(a for n, a in self.config.recorded.items() if n != STATE)[0]
