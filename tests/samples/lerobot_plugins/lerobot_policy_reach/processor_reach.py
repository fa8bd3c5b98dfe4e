"""Processors of the plugin `reach`: LeRobot's usual steps and two of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    ObservationProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStep,
    ProcessorStepRegistry,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action


@dataclass
@ProcessorStepRegistry.register(name="reach_whiten")
class WhitenStep(ObservationProcessorStep):
    """Frames minus a picture of the empty table, which the step stores."""

    table: torch.Tensor = field(default_factory=lambda: torch.full((3, 1, 1), 0.25))

    def observation(self, observation):
        return {n: x - self.table if n.startswith("observation.images.") else x for n, x in observation.items()}

    def get_config(self):
        return {}

    def state_dict(self):
        return {"table": self.table}

    def load_state_dict(self, state):
        self.table = state["table"]

    def transform_features(self, features):
        return features


@dataclass
@ProcessorStepRegistry.register(name="reach_limit")
class LimitStep(ProcessorStep):
    """Actions within `most`; written for one action per robot."""

    most: float = 1.5

    def __call__(self, transition):
        action = transition[TransitionKey.ACTION]
        return {**transition, TransitionKey.ACTION: torch.stack([column.clamp(-self.most, self.most)
                                                                 for column in action.unbind(1)], 1)}

    def get_config(self):
        return {"most": self.most}

    def transform_features(self, features):
        return features


def make_reach_pre_post_processors(config, dataset_stats=None):
    stored = WhitenStep(torch.tensor([0.2, 0.3, 0.4])[:, None, None])
    before = [RenameObservationsProcessorStep(rename_map={}), AddBatchDimensionProcessorStep(),
              DeviceProcessorStep(device=config.device), stored,
              NormalizerProcessorStep(features={**config.input_features, **config.output_features},
                                      norm_map=config.normalization_mapping, stats=dataset_stats)]
    after = [LimitStep(), UnnormalizerProcessorStep(features=config.output_features,
                                                    norm_map=config.normalization_mapping, stats=dataset_stats),
             DeviceProcessorStep(device="cpu")]
    return (PolicyProcessorPipeline(steps=before, name="policy_preprocessor"),
            PolicyProcessorPipeline(steps=after, name="policy_postprocessor", to_transition=policy_action_to_transition,
                                    to_output=transition_to_policy_action))
