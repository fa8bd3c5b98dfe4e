"""The processors of the policy type "vlab": batching and devices only. Normalisation is inside the bundle, and the
policy itself renames (LeRobot overrides the map of a stored step with its own, which is empty unless it is given)."""

from __future__ import annotations

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME

from lerobot_policy_vlacompile.configuration_vlab import VlabConfig


def make_vlab_pre_post_processors(config: VlabConfig, dataset_stats: Any = None):
    """dataset_stats: not needed; the bundle contains those of its checkpoint."""
    before = [RenameObservationsProcessorStep(rename_map={}), AddBatchDimensionProcessorStep(),
              DeviceProcessorStep(device=config.device)]
    return (PolicyProcessorPipeline(steps=before, name=POLICY_PREPROCESSOR_DEFAULT_NAME),
            PolicyProcessorPipeline(steps=[DeviceProcessorStep(device="cpu")], name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
                                    to_transition=policy_action_to_transition, to_output=transition_to_policy_action))
