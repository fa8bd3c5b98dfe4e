"""A vision backbone alone as a policy whose output is its tokens: to measure it, or to use it from C."""

from __future__ import annotations

import torch

from vlacompile.frontends.hub import name_of
from vlacompile.frontends.huggingface.backbones import vision_backbone
from vlacompile.policy.policy import Policy, Source

FRAME, TOKENS = "frame", "tokens"


def policy_of(path) -> Policy:
    """One input, uint8 [1,H,W,3] in the model's native size; one output, f32 [N,D]."""
    backbone = vision_backbone(path)

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {TOKENS: backbone(inputs[FRAME])[0]}  # without the batch dimension: these are not actions to be queued

    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 8, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, backbone.frame, mode="bilinear").permute(0, 2, 3, 1)
    named = name_of(path)
    name = path.name if named is None else named.repository.partition("/")[2]
    return Policy(name, observe, {FRAME: Source("observation")},
                  {FRAME: (smooth * 255).to(torch.uint8).contiguous()}, outputs=(TOKENS,))
