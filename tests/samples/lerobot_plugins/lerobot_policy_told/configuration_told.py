"""Configuration of the plugin `told`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig


@PreTrainedConfig.register_subclass("told")
@dataclass
class ToldConfig(PreTrainedConfig):
    """mean_of: "tokens" of the instruction, or all "places" of its padded row. ids: how the tokenizer returns them.
    greeting: before the instruction."""

    chunk_size: int = 6
    n_action_steps: int = 6
    width: int = 32
    language: str = ""
    max_length: int | None = 12
    mean_of: str = "tokens"
    ids: str = "pt"
    greeting: str = ""
    temporal_ensemble_coeff: float | None = None
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=lambda: {
        "VISUAL": NormalizationMode.MEAN_STD, "STATE": NormalizationMode.MEAN_STD,
        "ACTION": NormalizationMode.MEAN_STD})

    @property
    def observation_delta_indices(self) -> None:
        return None

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
        if not self.image_features:
            raise ValueError("told needs a camera")
