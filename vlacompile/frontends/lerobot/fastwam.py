"""FastWAM: Wan 2.2's video transformer reads one frame, and an expert for actions attends to its keys and values.

The autoencoder and the text encoder of Wan 2.2, which see frame and instruction, are in no checkpoint: they are read
from the hub's cache, as LeRobot does it. The noise is LeRobot's too: of the seed in config.json the same for every
chunk, a constant.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from vlacompile.frontends.lerobot import generic

CORE = "lerobot.policies.fastwam.wan.modular"


def _ready(config) -> None:
    generic.FAMILY.ready(config)
    config.torch_dtype = "float32"


def _encoded(model, prompt) -> tuple[torch.Tensor, torch.Tensor]:
    """In place of FastWAM.encode_prompt, which cuts at a number of tokens that it reads from the mask."""
    ids, mask = model.tokenizer(prompt, return_mask=True, add_special_tokens=True)
    mask = mask.to(torch.bool)
    encoded = model.text_encoder(ids, mask)
    return torch.where(mask[..., None], encoded, 0.0), torch.ones_like(mask)


def _noise(model, action_horizon: int, seed: int | None, rand_device: str) -> torch.Tensor:
    """In place of FastWAM._make_action_latents."""
    return torch.randn(1, action_horizon, model.action_expert.action_dim) if seed is None else model.noise_of_seed


@contextlib.contextmanager
def within() -> Iterator[None]:
    model = importlib.import_module(CORE).FastWAM
    with mock.patch.object(model, "encode_prompt", _encoded), \
            mock.patch.object(model, "_make_action_latents", _noise), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "CUDA is not available")  # its autocast is for CUDA alone
        yield


def _with_noise(policy: nn.Module, config) -> None:
    if config.inference_seed is not None:
        policy.model.noise_of_seed = torch.randn(1, config.action_horizon, config.action_dim,
                                                 generator=torch.Generator().manual_seed(config.inference_seed))


def _make(policy_class: type, config) -> nn.Module:
    policy = generic.FAMILY.make(policy_class, config)
    _with_noise(policy, config)
    return policy


def _load(policy_class: type, config, path: Path) -> tuple[nn.Module, list[str], list[str]]:
    assert generic.FAMILY.load is not None
    policy, missing, unknown = generic.FAMILY.load(policy_class, config, path)
    _with_noise(policy, config)
    return policy, missing, unknown


FAMILY = replace(generic.FAMILY, ready=_ready, make=_make, load=_load, within=within)
