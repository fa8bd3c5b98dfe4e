"""OpenVLA-OFT (Kim et al., RSS 2025) with the diffusion head: the whole language model in each of its DDIM steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.policies import _openvla_oft as oft

ORIGINAL = replace(oft.ORIGINAL, name="OpenVLA-OFT, diffusion head")

STEPS = 50


def make(checkout: Path) -> vc.Policy:
    with oft.importing(checkout):
        from prismatic.models.action_heads import DiffusionActionHead
        from prismatic.models.projectors import NoisyActionProjector, ProprioProjector

        modeling, policy = oft.vision_language_action()
        head, projector = DiffusionActionHead(oft.WIDTH, oft.WIDTH, 7), ProprioProjector(oft.WIDTH, 8)
        noisy = NoisyActionProjector(oft.WIDTH)
    head.noise_scheduler.set_timesteps(STEPS)
    torch.nn.ModuleList([policy, head, projector, noisy]).eval()

    def infer(tokens, front, wrist, state, noise):
        with vc.drawn_from(normal=noise):
            return oft.predicted(modeling, policy, tokens, front, wrist, state, proprio_projector=projector,
                                 action_head=head, noisy_action_projector=noisy)

    return vc.Policy("openvla_oft_diffusion", infer, oft.SOURCES | {"noise": vc.Source("step")},
                     oft.examples() | {"noise": torch.randn(1, 8, 7)})
