r"""A LeRobot 0.4.4 policy plugin: LeRobot's scripts run a bundle as the policy type "vlab".

    lerobot-eval --policy.discover_packages_path=vlacompile.frontends.lerobot.plugin \
        --policy.type=vlab --policy.bundle=act.vlab --env.type=...

Importing this package registers the type. LeRobot finds the policy and the processors by the names of the three
modules (`lerobot/policies/factory.py`), which therefore follow LeRobot's convention.
"""

from __future__ import annotations

from vlacompile.frontends.lerobot.plugin.configuration_vlab import VlabConfig

__all__ = ["VlabConfig"]
