"""The policy of the plugin `reach`."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.utils import populate_queues
from torch import Tensor, nn

from .configuration_reach import ReachConfig

STATE, IMAGES, ACTION = "observation.state", "observation.images", "action"


class ReachPolicy(PreTrainedPolicy):
    """habits: "remembers" the last chunk when it computes the next one; "averages" chunks in select_action; is "blind";
    "branches" on the value of an observation; draws by "numpy"; "listens" to the task otherwise than by
    tokens."""

    config_class = ReachConfig
    name = "reach"

    def __init__(self, config: ReachConfig, **kwargs):
        super().__init__(config)
        config.validate_features()
        width, action = config.width, config.action_feature.shape[0]
        self.see = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.SiLU(), nn.Conv2d(8, 8, 4, 4), nn.SiLU(),
                                 nn.AdaptiveAvgPool2d(2), nn.Flatten())
        seen = 32 * len(config.image_features) + config.robot_state_feature.shape[0]
        self.condition = nn.Linear(config.n_obs_steps * seen, width)
        self.velocity = nn.Sequential(nn.Linear(width + action + 1, width), nn.SiLU(), nn.Linear(width, action))
        self.reset()

    def reset(self):
        steps = self.config.n_obs_steps
        self._queues = {STATE: deque(maxlen=steps), IMAGES: deque(maxlen=steps),
                        ACTION: deque(maxlen=self.config.n_action_steps)}
        self._last = None

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        self.eval()
        batch = dict(batch)
        batch[IMAGES] = torch.stack([batch[key] for key in self.config.image_features], dim=-4)
        self._queues = populate_queues(self._queues, batch, exclude_keys=[ACTION])
        if len(self._queues[ACTION]) == 0:
            chunk = self.predict_action_chunk(batch)[:, :self.config.n_action_steps]
            if self.config.habit == "averages":
                self._last = chunk if self._last is None else (self._last + chunk) / 2
                chunk = self._last
            self._queues[ACTION].extend(chunk.transpose(0, 1))
        return self._queues[ACTION].popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        habit = self.config.habit
        states, images = (torch.stack(list(self._queues[key]), dim=1) for key in (STATE, IMAGES))
        if habit == "branches" and states.sum() > 0:
            states = -states
        if habit == "blind":
            states, images = torch.zeros_like(states), torch.zeros_like(images)
        seen = torch.cat([self.see(images.flatten(0, 2)).reshape(*states.shape[:2], -1), states], -1)
        condition = self.condition(seen.flatten(1))
        if habit == "listens":
            condition = condition + len(batch["task"][0]) / 10
        sample = torch.randn(1, self.config.chunk_size, self.config.action_feature.shape[0])
        if habit == "numpy":
            sample = sample + torch.from_numpy(np.random.default_rng().standard_normal(sample.shape)).float()
        for step in range(self.config.num_steps):
            time = torch.full((1, self.config.chunk_size, 1), step / self.config.num_steps)
            given = torch.cat([condition[:, None].expand(-1, self.config.chunk_size, -1), sample, time], -1)
            sample = sample + self.velocity(given) / self.config.num_steps
        if habit == "remembers":
            sample = sample if self._last is None else sample + self._last
            self._last = sample
        return sample

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
        raise NotImplementedError("it is not trained here")

    def get_optim_params(self) -> dict:
        return self.parameters()
