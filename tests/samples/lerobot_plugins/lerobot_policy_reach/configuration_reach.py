"""Configuration of the plugin `reach`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig


@PreTrainedConfig.register_subclass("reach")
@dataclass
class ReachConfig(PreTrainedConfig):
    """habit: what the class does beside what LeRobot expects of it; see ReachPolicy."""

    n_obs_steps: int = 2
    chunk_size: int = 6
    n_action_steps: int = 4
    num_steps: int = 3
    width: int = 32
    habit: str = ""
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=lambda: {
        "VISUAL": NormalizationMode.IDENTITY, "STATE": NormalizationMode.MEAN_STD,
        "ACTION": NormalizationMode.MIN_MAX})

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig()

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        if not self.image_features or self.robot_state_feature is None:
            raise ValueError("reach needs a camera and the state")
