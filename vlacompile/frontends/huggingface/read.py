"""A transformers checkpoint directory -> Policy: raw frames, tokens and joint state in, robot actions out.

A vision backbone alone is compiled as an encoder; for a text backbone the error explains how to build a policy from it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS, Environment
from vlacompile.frontends.huggingface import backbones
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.quiet import quiet
from vlacompile.policy.policy import Policy
from vlart.errors import SourceError, nearest

PROCESSOR = "processor_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """processor: the content of processor_config.json, with the statistics and image settings."""

    path: Path
    type: str
    config: dict
    processor: dict


@dataclass(frozen=True)
class Family:
    """Differences between model types. model: class in transformers. policy_of: (checkpoint, model) -> Policy."""

    model: str
    policy_of: Callable[[Checkpoint, Any], Policy]


FAMILIES = ("pi0",)  # modules beside this one


def open_checkpoint(path: Path, weights: bool = True,
                    options: CheckpointOptions = NONE) -> tuple[Checkpoint, Family] | None:
    """Reads and checks the files, without transformers; None for a vision backbone. weights: whether they must exist.
    Raises SourceError."""
    options.require_none(str(path))
    config = read_json(path / "config.json")
    kind = str(config.get("model_type"))
    if kind in backbones.VISION:
        backbones.check(path, backbones.VISION, "vision_backbone", weights)
        return None
    if kind in backbones.TEXT:
        raise SourceError(f'a model of type "{kind}" alone is not a policy', where=str(path / "config.json"),
                          why="it has no image inputs and no actions",
                          fix=f"python -m vlacompile.frontends.huggingface.factory VISION_DIR {path} > my_policy.py, "
                              "edit it, then vlacompile build my_policy:make")
    if kind not in FAMILIES:
        raise SourceError(f'no frontend reads models of type "{kind}"', where=str(path / "config.json"),
                          why=nearest(kind, (*FAMILIES, *backbones.VISION)),
                          fix="write a factory that returns vlacompile.Policy(...) around the model's inference "
                              "function")
    if weights and not list(path.glob("*.safetensors")):
        raise SourceError("the checkpoint has no weights", where=str(path), why="there is no .safetensors file",
                          fix="give the complete directory that save_pretrained wrote")
    family = importlib.import_module(f"vlacompile.frontends.huggingface.{kind}").FAMILY
    return Checkpoint(path, kind, config, read_json(path / PROCESSOR)), family


def needed_weights(path: Path, options: CheckpointOptions = NONE) -> str:
    """Why the checkpoint cannot be read without its weights; "" if it can. Raises SourceError."""
    return "" if open_checkpoint(path, False, options) is not None else "a backbone is read with them"


def environments_for(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> tuple[Environment, ...]:
    """Those that can build it. Raises SourceError for a checkpoint that none can read."""
    open_checkpoint(path, weights, options)
    return (ENVIRONMENTS["huggingface"],)


def read_policy(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Policy:
    """weights: False reads only the shapes, within `weightless`. Raises SourceError for a checkpoint that cannot be
    read, or whose parts do not fit together."""
    found = open_checkpoint(path, weights, options)
    if found is None:
        from vlacompile.frontends.huggingface import encoder

        return encoder.policy_of(path)
    checkpoint, family = found
    ENVIRONMENTS["huggingface"].require()
    with quiet():
        try:
            import transformers

            kind = getattr(transformers, family.model)
            model = (kind.from_pretrained(path, local_files_only=True, dtype=torch.float32) if weights else
                     kind(kind.config_class.from_pretrained(path, local_files_only=True)))
        except Exception as error:  # transformers and safetensors raise many kinds of errors
            first = (str(error).strip().splitlines() or [""])[0]
            raise SourceError("transformers cannot load this model", where=str(path),
                              why=f"{type(error).__name__}: {first}",
                              fix="load it with transformers itself to see why") from error
    return family.policy_of(checkpoint, model.eval().requires_grad_(False))


def statistics(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """A list of numbers in the processor's file, as f32. Raises SourceError if it is missing."""
    values = checkpoint.processor.get(name)
    if not isinstance(values, list) or not values:
        raise SourceError(f"statistics are missing: {name}", where=str(checkpoint.path / PROCESSOR),
                          why="without them the policy would get other numbers than in training",
                          fix="save the processor with state_mean, state_std, actions_mean and actions_std")
    return torch.tensor(values, dtype=torch.float32)
