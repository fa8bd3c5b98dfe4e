"""The action head of GR00T: a DiT denoises the actions of one embodiment, given what the backbone saw.

N1.5 has learned tokens beside state and actions, and every cross attention sees all of the backbone's tokens; N1.7's
see those of text and of images in turn. Originals do not pad the text; here padding is masked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def denoise(head: nn.Module, seen: torch.Tensor, keep: torch.Tensor, state: torch.Tensor, embodiment: torch.Tensor,
            actions: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
    """get_action of LeRobot's action heads (0.4.4: N1.5; 0.6.1: N1.7) from given noise. seen [1,n,d]. keep bool [1,n]:
    padding mask. image bool [1,n]: tokens of images, for a head whose blocks see text and images in turn. actions
    [1,H,D]: noise at t=0, returned at t=1."""
    bias, seen = _added(keep), head.vlln(seen)
    for block in getattr(head.vl_self_attention, "transformer_blocks", ()):
        seen = block(seen, attention_mask=bias)
    known = head.state_encoder(state, embodiment)
    if hasattr(head, "future_tokens"):
        known = torch.cat([known, head.future_tokens.weight[None]], 1)
    seen_by = (bias,) if image is None else (_added(keep & ~image), _added(keep & image))
    for step in range(head.num_inference_timesteps):
        time = torch.full((1,), int(step / float(head.num_inference_timesteps) * head.num_timestep_buckets))
        moving = head.action_encoder(actions, time, embodiment)
        if head.config.add_pos_embed:
            moving = moving + head.position_embedding(torch.arange(moving.shape[1]))[None]
        out = _transform(head.model, torch.cat([known, moving], 1), seen, seen_by, time)
        velocity = head.action_decoder(out, embodiment)[:, -head.action_horizon:]
        actions = actions + 1.0 / head.num_inference_timesteps * velocity
    return actions


def _added(keep: torch.Tensor) -> torch.Tensor:
    """[1,1,n], added to scores."""
    return torch.where(keep, 0.0, torch.finfo(torch.float32).min)[:, None]


def _transform(dit: nn.Module, x: torch.Tensor, seen: torch.Tensor, seen_by: Sequence[torch.Tensor],
               time: torch.Tensor) -> torch.Tensor:
    """DiT.forward with a mask in the cross attention. seen_by: the masks of (all tokens,), or of (text, images)."""
    condition = dit.timestep_encoder(time)
    turn = 2 * getattr(dit, "attend_text_every_n_blocks", 1)
    for i, block in enumerate(dit.transformer_blocks):
        if i % 2 == 1 and dit.config.interleave_self_attention:
            x = block(x, temb=condition)
            continue
        bias = seen_by[0 if i % turn == 0 else -1]  # N1.5's blocks take it as the first of these, N1.7's as the second
        x = block(x, attention_mask=bias, encoder_attention_mask=bias, encoder_hidden_states=seen, temb=condition)
    shift, scale = dit.proj_out_1(nn.functional.silu(condition)).chunk(2, dim=1)
    return dit.proj_out_2(dit.norm_out(x) * (1 + scale[:, None]) + shift[:, None])
