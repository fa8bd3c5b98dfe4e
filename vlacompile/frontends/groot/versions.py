"""The versions of GR00T whose directories, as NVIDIA's own code saves them, are recognised."""

from __future__ import annotations

from collections.abc import Mapping

# model_type: module beside this one
VERSIONS = {"gr00t_n1_5": "isaac_n15", "Gr00tN1d6": "isaac_n16", "Gr00tN1d7": "isaac_n17"}
REFUSED = {"gr00t_n1": "GR00T N1, whose Eagle 2 is in no environment"}


def is_one(config: Mapping) -> bool:
    """Whether a config.json is one of NVIDIA's."""
    kind = str(config.get("model_type"))
    return kind in VERSIONS or kind in REFUSED
