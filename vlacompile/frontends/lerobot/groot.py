"""GR00T N1.5 (NVIDIA 2025, arXiv 2503.14734, release N1.5) as LeRobot 0.4.4 carries it: Eagle 2.5 (SigLIP 2, twelve
layers of Qwen3) and a flow-matching DiT with weights of its own for every embodiment.

A LeRobot checkpoint has the weights, but not the sizes: LeRobot takes those from the base model's config.json and from
Eagle's, which it downloads. Here they are read from where the checkpoint's config.json points to: `base_model_path` and
`tokenizer_assets_repo`, directories or ids of downloaded repositories.

The embodiment is a static input: the weights of other embodiments are dropped.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.groot import n15
from vlacompile.frontends.groot.downloads import downloaded
from vlacompile.frontends.groot.n15 import TEXT_TOKENS, Eagle
from vlacompile.frontends.lerobot.checkpoint import Checkpoint, Tokenization
from vlacompile.frontends.lerobot.files import POSTPROCESSOR, PREPROCESSOR, read_json, read_tensors
from vlacompile.frontends.lerobot.read import MASK, NOISE, STATE, TOKENS, Batch, Family, Predict, normal
from vlacompile.frontends.lerobot.statistics import choose_normalisation
from vlart.errors import SourceError

PACK, UNPACK = "groot_pack_inputs_v3", "groot_action_unpack_unnormalize_v1"
EMBODIMENT = "embodiment_id"
NAMED_BY = "config.json: base_model_path, tokenizer_assets_repo"


def _ready(config) -> None:
    config.use_bf16 = False
    horizon = _base(config)["action_horizon"]
    if config.n_action_steps < horizon:  # LeRobot's queue, if too short, keeps the end of the chunk
        raise SourceError(f"n_action_steps is {config.n_action_steps}", where="config.json",
                          why=f"of a chunk of {horizon} actions LeRobot 0.4.4 would execute the last ones",
                          fix=f"set n_action_steps to {horizon} or more")
    config.n_action_steps = horizon


def _base(config) -> dict:
    """The base model's sizes."""
    return read_json(downloaded(config.base_model_path, "config.json", NAMED_BY))


def eagle_of(assets: str) -> Eagle:
    return Eagle(assets, NAMED_BY)


def _make(policy_class: type, config) -> nn.Module:
    """LeRobot's policy with random weights, of the sizes of the base model."""

    class Groot(policy_class):
        def _create_groot_model(self):
            return n15.model_of(_base(self.config), eagle_of(self.config.tokenizer_assets_repo))

    Groot.__name__ = policy_class.__name__
    return Groot(config)


def _tokens(checkpoint: Checkpoint, instruction: str) -> Batch:
    eagle = eagle_of(checkpoint.config["tokenizer_assets_repo"])
    ids, mask = n15.tokens_of(eagle, len(checkpoint.images()), instruction)
    return {TOKENS: ids, MASK: mask}


def _check_frames(side: int, cameras: dict[str, tuple[int, ...]]) -> None:
    for name, shape in cameras.items():
        if tuple(shape[1:]) != (side, side):
            raise SourceError(f"{name} is {shape[1]}x{shape[2]}", where="input_features in config.json",
                              why=f"LeRobot resizes frames to {side}x{side} in OpenCV's fixed point, which is not "
                                  "reproduced",
                              fix=f"resize the frames before write(), and set their shape to [3, {side}, {side}]")


def _bind(policy) -> Predict:
    config = policy.config
    eagle, cameras = eagle_of(config.tokenizer_assets_repo), sorted(config.image_features)
    _check_frames(eagle.side, {c: config.image_features[c].shape for c in cameras})
    sample, width = n15.sampler(policy._groot_model, eagle, len(cameras)), config.output_features["action"].shape[0]

    def predict(batch: Batch) -> torch.Tensor:
        # LeRobot converts back to uint8, rounding down
        frames = [torch.floor(batch[c].clamp(0.0, 1.0) * 255.0) for c in cameras]
        state = nn.functional.pad(batch[STATE], (0, config.max_state_dim - batch[STATE].shape[-1]))
        return sample(frames, batch[TOKENS], batch[MASK], state, batch[EMBODIMENT], batch[NOISE])[..., :width]

    return predict


def _complete(checkpoint: Checkpoint) -> Checkpoint:
    """Read the statistics from this policy's own steps. Raises SourceError if one is missing or does not normalise:
    LeRobot always writes both as normalising, and always applies them so, whatever the file says."""
    normalise = {}
    for step, name, file in ((PACK, STATE, PREPROCESSOR), (UNPACK, "action", POSTPROCESSOR)):
        own = next((s for s in checkpoint.steps if s["registry_name"] == step), None)
        if own is None or not own["config"].get("normalize_min_max", True):
            raise SourceError(f"{file} has no step {step}" if own is None else f"{step} does not normalise",
                              where=str(checkpoint.path / file),
                              why="this policy computes with normalised numbers: without the step the robot would get "
                                  "them as actions, or the policy would get raw observations",
                              fix="copy the directory that the training wrote again, "
                                                                     "whole")
        tensors = read_tensors(checkpoint.path / own["state_file"]) if "state_file" in own else {}
        normalise[name] = choose_normalisation(checkpoint.path / file, name, "MIN_MAX_OR_ZERO", tensors, 0.0)
    rule = Tokenization(checkpoint.config["tokenizer_assets_repo"], TEXT_TOKENS, "right", False)
    return replace(checkpoint, normalise=normalise, tokenization=rule)


def _static(checkpoint: Checkpoint) -> Batch:
    pack = next(s["config"] for s in checkpoint.steps if s["registry_name"] == PACK)
    return {EMBODIMENT: torch.tensor([pack["embodiment_mapping"].get(pack["embodiment_tag"], 0)])}


def _noise(config) -> Batch:
    base = _base(config)
    return {NOISE: normal(1, base["action_horizon"], base["action_dim"])}


def family(path: Path) -> Family:
    """Of N1.7, which LeRobot carries since 0.6.0 under the same name, if its files have what came with it."""
    from vlacompile.frontends.lerobot import groot_n17

    return groot_n17.family(path) if groot_n17.SINCE & read_json(path / "config.json").keys() else FAMILY


FAMILY = Family("lerobot.policies.groot.modeling_groot", "GrootPolicy", _bind, ready=_ready, make=_make, noise=_noise,
                complete=_complete, static=_static, tokens=_tokens,
                known_steps=frozenset({"groot_eagle_encode_v3", "groot_eagle_collate_v3"}),
                normalised_by=(PACK, UNPACK), only="lerobot")
