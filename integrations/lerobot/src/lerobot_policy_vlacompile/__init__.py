r"""A LeRobot policy plugin: LeRobot's programs run a bundle as the policy type "vlab".

    lerobot-rollout --policy.type=vlab --policy.bundle=act.vlab --robot.type=...

Importing this package registers the type; LeRobot does so for every installed distribution named `lerobot_policy_*`.
It finds the policy and the processors by the names of the modules (`lerobot/policies/factory.py`), which therefore
follow LeRobot's convention. The package uses the runtime of vlacompile, none of its compiler.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("vlart") is None:
    raise ImportError("lerobot_policy_vlacompile needs the runtime of vlacompile: pip install vlacompile-runtime")

from lerobot_policy_vlacompile.configuration_vlab import VlabConfig

__all__ = ["VlabConfig"]
