"""An openpi checkpoint directory -> Policy: raw frames and joint state in, robot actions out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.environments import Environment
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.openpi.files import ASSETS, CONFIG, jax_files
from vlacompile.frontends.openpi.model import FlowPolicy, Sizes, load, sizes_of
from vlacompile.frontends.openpi.prompt import instruction_tokenizer, plain_tokenizer, with_state
from vlacompile.frontends.openpi.robots import from_internal, to_internal
from vlacompile.frontends.openpi.settings import OPTION, Settings, settings_of
from vlacompile.frontends.openpi.statistics import Affine, statistics_of
from vlacompile.frontends.tensor_files import TensorFiles, weights_in
from vlacompile.frontends.tokenizer_files import encode, tokenizer_json
from vlacompile.policy.host_encoding import HostEncoding
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Fit, Text
from vlart.errors import SourceError

TOKENS, MASK, STATE, NOISE = ("observation.language.tokens", "observation.language.attention_mask",
                              "observation.state", "noise")
IMAGE = "observation.images."
EXAMPLE_INSTRUCTION = "pick up the object and put it in the bin"
TAKEN = ("openpi_config", "tokenizer")


@dataclass(frozen=True)
class Checkpoint:
    """tokenizer: the content of a tokenizer.json, or None: the host writes token ids."""

    path: Path
    files: TensorFiles
    sizes: Sizes
    settings: Settings
    statistics: dict[str, Affine]
    tokenizer: str | None
    options: CheckpointOptions


def open_checkpoint(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Checkpoint:
    """Reads and checks all but the content of the weights. Raises SourceError, ConfigError."""
    options.require_only(str(path), *TAKEN)
    files = weight_files(path)
    sizes = sizes_of(files)
    settings = settings_of(sizes.kind, options, str(path), _known(path))
    if settings.robot.state > sizes.action or settings.robot.action > sizes.action:
        raise SourceError(f"the model has {sizes.action} actions", where=str(path),
                          why=f"the robot has {settings.robot.action}, and {settings.robot.state} numbers of state",
                          fix=f"give the robot that it was trained for: {OPTION} ...,robot=...")
    tokenizer = None if options.tokenizer is None else tokenizer_json(options.tokenizer, pieces=True)
    return Checkpoint(path, files, sizes, settings, statistics_of(path, settings), tokenizer, options)


def weight_files(path: Path) -> TensorFiles:
    """Raises SourceError for weights that JAX wrote."""
    _require_torch(path)
    return weights_in(path)


def _require_torch(path: Path) -> None:
    if (jax := jax_files(path)) is not None:
        folder = jax.parent if jax.name == "params" else jax
        raise SourceError("the weights are JAX's", where=str(jax), why="openpi's policies are read in PyTorch",
                          fix=f"in openpi: python examples/convert_jax_model_to_pytorch.py --checkpoint_dir {folder} "
                              f"--config_name NAME --output_path OUT, and copy {ASSETS}/ into OUT")


def _known(path: Path) -> dict[str, str]:
    """What the config.json of the conversion from JAX says."""
    config = read_json(path / CONFIG) if (path / CONFIG).is_file() else {}
    return {"horizon": str(config["action_horizon"])} if "action_horizon" in config else {}


def environments_for(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> tuple[Environment, ...]:
    """None is needed. Raises SourceError for a checkpoint that cannot be read."""
    open_checkpoint(path, weights, options)
    return ()


def needed_weights(path: Path, options: CheckpointOptions = NONE) -> str:
    """Why the checkpoint cannot be read without its weights. Raises SourceError for one that is not read at all."""
    options.require_only(str(path), *TAKEN)
    _require_torch(path)
    statistics_of(path, settings_of(None, options, str(path), _known(path)))
    return "the model's sizes are read from them"


def read_policy(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Policy:
    """weights: False reads only the shapes, within `weightless`. Raises SourceError for a checkpoint that cannot be
    read, or whose parts do not fit together."""
    checkpoint = open_checkpoint(path, weights, options)
    sizes, settings = checkpoint.sizes, checkpoint.settings
    return policy_of(checkpoint, load(checkpoint.files, sizes, settings.horizon, settings.steps, weights))


def policy_of(checkpoint: Checkpoint, model: FlowPolicy) -> Policy:
    sizes, settings, statistics = checkpoint.sizes, checkpoint.settings, checkpoint.statistics
    robot, names = settings.robot, [f"{IMAGE}{name}" for _, name in sorted(settings.cameras)]
    offsets = torch.tensor(settings.offsets, dtype=torch.float32)
    reads_state = settings.state == "input" or any(settings.offsets)

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = [inputs[n].permute(0, 3, 1, 2).to(torch.float32) / 255.0 * 2.0 - 1.0 for n in names]
        state = known = None
        if reads_state:
            known = to_internal(inputs[STATE]) if settings.internal else inputs[STATE]
        if settings.state == "input":
            assert known is not None
            state = statistics["state"].normalise(known)
            state = torch.nn.functional.pad(state, (0, sizes.action - robot.state))
        chunk = model(frames, inputs[TOKENS], inputs[MASK], state, inputs[NOISE])[..., : robot.action]
        action = statistics["actions"].unnormalise(chunk)
        if any(settings.offsets):
            assert known is not None
            action = action + (known[:, : robot.action] * offsets)[:, None]
        return {"action": from_internal(action) if settings.internal else action}

    example, texts, encoding = _example(checkpoint, names, reads_state), {}, None
    text_changes = "observation" if settings.state == "prompt" else "task"
    if checkpoint.tokenizer is not None and settings.state == "prompt":
        encoding = HostEncoding((TOKENS, MASK), {STATE: (robot.state,)},
                                lambda instruction, recorded: tokens_of(checkpoint, instruction, recorded[STATE]))
    elif checkpoint.tokenizer is not None:
        texts = {TOKENS: Text(_encoder(checkpoint), MASK, Fit(0, "right", "right"), examples=(EXAMPLE_INSTRUCTION,))}
    sources = {n: Source("observation") for n in (*names, *([STATE] if reads_state else []))}
    sources |= {TOKENS: Source(text_changes), MASK: Source(text_changes), NOISE: Source("step")}
    return Policy(sizes.kind, observe, sources, example, texts=texts, encoding=encoding, origin=_origin(checkpoint))


def tokens_of(checkpoint: Checkpoint, instruction: str, state: np.ndarray | None = None) -> dict[str, torch.Tensor]:
    """The host's part: ids int64 [1,L] and padding mask bool [1,L]. state [d], as the robot gives it: for a policy
    that reads it as text. Raises SourceError without a tokenizer."""
    settings = checkpoint.settings
    if checkpoint.tokenizer is None:
        raise SourceError("the checkpoint has no tokenizer", where=str(checkpoint.path),
                          why="openpi downloads PaliGemma's",
                          fix="add --tokenizer PATH, to a tokenizer.json or paligemma_tokenizer.model")
    text = instruction.strip()
    if settings.state == "prompt":
        assert state is not None
        known = torch.as_tensor(state, dtype=torch.float32)[None]
        known = to_internal(known) if settings.internal else known
        text = with_state(instruction, checkpoint.statistics["state"].normalise(known)[0].numpy())
    ids, mask = encode(_encoder(checkpoint), text, settings.prompt_tokens)
    return {TOKENS: ids, MASK: mask}


def _encoder(checkpoint: Checkpoint) -> str:
    assert checkpoint.tokenizer is not None
    if checkpoint.settings.state == "prompt":
        return plain_tokenizer(checkpoint.tokenizer)
    return instruction_tokenizer(checkpoint.tokenizer, str(checkpoint.options.tokenizer))


def _example(checkpoint: Checkpoint, names: list[str], reads_state: bool) -> dict[str, torch.Tensor]:
    """Smooth random frames, a state around the data set's mean, noise, and an instruction or random ids."""
    sizes, settings, draw = checkpoint.sizes, checkpoint.settings, torch.Generator().manual_seed(0)
    side, length = sizes.vision.side, settings.prompt_tokens
    coarse = torch.rand(len(names), 3, 8, 8, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").permute(0, 2, 3, 1)
    example = {n: (smooth[i: i + 1] * 255).to(torch.uint8).contiguous() for i, n in enumerate(names)}
    state = checkpoint.statistics["state"].unnormalise(torch.randn(1, settings.robot.state, generator=draw) * 0.3)
    if reads_state:
        example[STATE] = state
    example[NOISE] = torch.randn(1, settings.horizon, sizes.action, generator=draw)
    if checkpoint.tokenizer is not None:
        return example | tokens_of(checkpoint, EXAMPLE_INSTRUCTION, state[0].numpy())
    mask = torch.arange(length)[None] < 12
    return example | {TOKENS: torch.randint(3, sizes.vocabulary, (1, length), generator=draw) * mask, MASK: mask}


def _origin(checkpoint: Checkpoint) -> dict[str, str]:
    settings, robot = checkpoint.settings, checkpoint.settings.robot
    said = [f"openpi's {checkpoint.sizes.kind} in fp32, {settings.steps} steps, {settings.horizon} actions",
            f"{robot.state} numbers of state ({settings.state}), {robot.action} of action, "
            f"{sum(settings.offsets)} of them offsets", "quantiles" if settings.quantiles else "mean and deviation"]
    prompt = "the host writes token ids: no tokenizer was given"
    if checkpoint.tokenizer is not None:  # by its content: where it was is nothing that the bundle depends on
        prompt = f"tokenizer.json {hashlib.sha256(checkpoint.tokenizer.encode()).hexdigest()[:12]}; " + (
            "the host writes token ids: the state is part of the text" if settings.state == "prompt" else
            "blanks around an instruction are encoded; openpi strips them")
    return {"read as": ", ".join(said), "spelled out": f"{OPTION} {checkpoint.options.openpi_config}", "prompt": prompt}
