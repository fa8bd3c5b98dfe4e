"""Names of Evo-1's files, and what a directory with them is. Without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

CONFIG, STATISTICS = "config.json", "norm_stats.json"
DEEPSPEED, ACCELERATE = "mp_rank_00_model_states.pt", "checkpoint.pt"  # as a training with the one or the other saves
STATE_DICTS = {DEEPSPEED: "module", ACCELERATE: "model_state_dict"}  # where in such a file the weights are


def is_one(config: Mapping) -> bool:
    """Whether a config.json is one of Evo-1's."""
    return "vlm_name" in config and "action_head" in config and "model_type" not in config and "type" not in config
