"""Wall-X (X Square Robot 2025): Qwen2.5-VL whose action tokens have experts of their own, sampled by Euler's method.

LeRobot's class loads the weights of the model that the training began with before those of the checkpoint, which has
all of them: here only its configuration and its processor are read. Of two packages it calls one function each, whose
place others take, that compute the same.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vlacompile.frontends.lerobot import generic
from vlart.errors import SourceError

MODULE, RESIZES = "lerobot.policies.wall_x.modeling_wall_x", "qwen_vl_utils"


def odeint(function: Callable, start: torch.Tensor, times: torch.Tensor, method: str) -> list[torch.Tensor]:
    """torchdiffeq's fixed grid: the states at the times. Not stacked: only the last one is read, so that the steps
    become a loop."""
    assert method == "euler"
    states = [start]
    for before, after in itertools.pairwise(times):
        states.append(states[-1] + (after - before) * function(before, states[-1]))
    return states


class InFp32(TorchFunctionMode):
    """The policy is computed in fp32, whatever it was trained in: its code rounds one embedding to bf16."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to and torch.bfloat16 in args[1:]:
            args = (args[0], *(torch.float32 if a is torch.bfloat16 else a for a in args[1:]))
        return func(*args, **kwargs or {})


def _ready(config) -> None:
    """Raises SourceError for a policy whose actions are tokens."""
    if config.prediction_mode != "diffusion":
        raise SourceError(f'prediction_mode = "{config.prediction_mode}" is not compiled', where="config.json",
                          why="it writes its actions as tokens among text, which code of another repository decodes",
                          fix='train with prediction_mode = "diffusion"')
    generic.FAMILY.ready(config)
    config.vision_attn_implementation = "sdpa"  # as on any CPU
    complete()


def complete() -> None:
    """Gives LeRobot's module the two functions."""
    module = importlib.import_module(MODULE)
    module.odeint = odeint
    if next(iter(importlib.metadata.distributions(name=RESIZES)), None) is None:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        module.smart_resize = smart_resize


@contextlib.contextmanager
def without_base() -> Iterator[None]:
    module = importlib.import_module(MODULE)
    with mock.patch.object(module, "cached_file", lambda *args, **options: ""), \
            mock.patch.object(module, "load_file", lambda path: {}):
        yield


def _make(policy_class: type, config) -> nn.Module:
    with without_base():
        return generic.FAMILY.make(policy_class, config)


def _load(policy_class: type, config, path: Path) -> tuple[nn.Module, list[str], list[str]]:
    assert generic.FAMILY.load is not None
    with without_base():
        return generic.FAMILY.load(policy_class, config, path)


FAMILY = replace(generic.FAMILY, ready=_ready, make=_make, load=_load, within=InFp32)
