"""pi0 (Black et al. 2024, arXiv 2410.24164) as implemented in transformers: flow matching beside a PaliGemma prefix.

The prompt's image tokens are the same for every instruction, so they are prepended here, and the policy's input is only
the tokens of the text.
"""

from __future__ import annotations

import torch

from vlacompile.frontends.huggingface.read import Checkpoint, Family, statistics
from vlacompile.policy.policy import Policy, Source

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")  # openpi's names
TEXT_LENGTH = 48  # tokens of the prompt's text, padded on the right
TOKENS, MASK, STATE = "observation.language.tokens", "observation.language.attention_mask", "observation.state"
STD_EPS = 1e-8  # PI0Processor's


def policy_of(checkpoint: Checkpoint, model: torch.nn.Module) -> Policy:
    config, images = model.config, checkpoint.processor.get("image_processor", {})
    vision = config.vlm_config.vision_config
    side, per_image = vision.image_size, (vision.image_size // vision.patch_size) ** 2
    image_mean, image_std = (torch.tensor(images.get(k, [0.5] * 3)).view(1, 3, 1, 1)
                             for k in ("image_mean", "image_std"))
    state_mean, state_std = statistics(checkpoint, "state_mean"), statistics(checkpoint, "state_std")
    action_mean, action_std = statistics(checkpoint, "actions_mean"), statistics(checkpoint, "actions_std")
    prefix = torch.full((1, per_image * len(CAMERAS)), config.vlm_config.image_token_id, dtype=torch.long)
    seen = torch.ones(1, len(CAMERAS), dtype=torch.bool)
    image_name = {c: f"observation.images.{c}" for c in CAMERAS}

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = [(inputs[n].permute(0, 3, 1, 2).to(torch.float32) / 255.0 - image_mean) / image_std
                  for n in image_name.values()]
        state = (inputs[STATE] - state_mean) / (state_std + STD_EPS)
        state = torch.nn.functional.pad(state, (0, config.max_state_dim - state.shape[-1]))
        mask = torch.cat([torch.ones_like(prefix), inputs[MASK].to(torch.long)], 1)
        chunk = model.sample_actions(state, torch.cat([prefix, inputs[TOKENS]], 1), torch.stack(frames, 1),
                                     noise=inputs["noise"], attention_mask=mask, pixel_attention_mask=seen)
        return {"action": chunk[..., : len(action_mean)] * (action_std + STD_EPS) + action_mean}

    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(len(CAMERAS), 3, 8, 8, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").permute(0, 2, 3, 1)
    example = {n: (smooth[i: i + 1] * 255).to(torch.uint8).contiguous() for i, n in enumerate(image_name.values())}
    mask = torch.zeros(1, TEXT_LENGTH, dtype=torch.bool)
    mask[:, :10] = True
    ids = torch.randint(3, min(200, config.vlm_config.text_config.vocab_size), (1, TEXT_LENGTH), generator=draw)
    example |= {TOKENS: ids * mask, MASK: mask, STATE: state_mean[None] + 0.5 * state_std[None],
                "noise": torch.randn(1, config.chunk_size, config.max_action_dim, generator=draw)}
    sources = {n: Source("observation") for n in (*image_name.values(), STATE)}
    return Policy("pi0", observe,
                  sources | {TOKENS: Source("task"), MASK: Source("task"), "noise": Source("step")}, example)


FAMILY = Family("PI0ForConditionalGeneration", policy_of)
