"""OpenVLA-OFT (Kim et al., RSS 2025) with the L1 head: two cameras, the arm's state, all actions in one pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.policies import _openvla_oft as oft

ORIGINAL = replace(oft.ORIGINAL, name="OpenVLA-OFT, L1 head")


def make(checkout: Path) -> vc.Policy:
    with oft.importing(checkout):
        from prismatic.models.action_heads import L1RegressionActionHead
        from prismatic.models.projectors import ProprioProjector

        modeling, policy = oft.vision_language_action()
        head, projector = L1RegressionActionHead(oft.WIDTH, oft.WIDTH, 7), ProprioProjector(oft.WIDTH, 8)
    torch.nn.ModuleList([policy, head, projector]).eval()

    def infer(tokens, front, wrist, state):
        return oft.predicted(modeling, policy, tokens, front, wrist, state, proprio_projector=projector,
                             action_head=head)

    return vc.Policy("openvla_oft_l1", infer, oft.SOURCES, oft.examples())
