"""An X-VLA checkpoint directory -> Policy: raw frames, an instruction and the robot's state in; robot actions out.

Frames have the size that the processor makes of them; the host scales them as the training did. State and actions are
in the units of the training: the checkpoint has no statistics, and its code none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS, Environment
from vlacompile.frontends.finite_numbers import finite_numbers
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.tensor_files import TensorFiles, weights_in
from vlacompile.frontends.tokenizer_files import TOKENIZER, encode, tokenizer_json
from vlacompile.frontends.xvla.settings import VIEWS, XvlaSettings, xvla_settings
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Fit, Text
from vlart.errors import SourceError, VlaError, nearest

TOKENS, STATE, NOISE = "observation.language.tokens", "observation.state", "noise"
CAMERAS = tuple(f"observation.images.image{i}" for i in range(VIEWS))  # as the authors' server calls them
CONFIG, IMAGES = "config.json", "preprocessor_config.json"
LENGTH = 50  # XVLAProcessor.language_max_length; all of it is read, padding included
SPACES = {"ee6d": 20, "joint": 14, "agibot_ee6d": 20, "auto": None}  # numbers of an action
EXAMPLE_INSTRUCTION = "pick up the object"
EMBEDDINGS = ("vlm.language_model.shared.weight", "vlm.language_model.encoder.embed_tokens.weight")
_AGAIN = "copy the directory that the training wrote again, completely"
# XVLAConfig's defaults, of which config.json stores what differs too
DEFAULTS = {"hidden_size": 1024, "depth": 24, "num_heads": 16, "num_domains": 30, "len_soft_prompts": 32,
            "dim_time": 32, "max_len_seq": 512, "num_actions": 30, "max_action_dim": 20, "real_action_dim": 20}


@dataclass(frozen=True)
class Checkpoint:
    """files: None if they are not there. side: of the frames. moments: mean and deviation of pixels. numbers: of the
    model's action, and of the state. acts: of the robot's action."""

    path: Path
    config: Mapping
    settings: XvlaSettings
    side: int
    moments: tuple[torch.Tensor, torch.Tensor]
    numbers: int
    acts: int
    files: TensorFiles | None
    options: CheckpointOptions


def open_checkpoint(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Checkpoint:
    """Reads and checks all but the content of the weights. Raises SourceError, ConfigError."""
    options.require_only(str(path), "xvla_config")
    config, where = read_json(path / CONFIG), str(path / CONFIG)
    for key, default in DEFAULTS.items():
        value = config.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise SourceError(f"{key} = {value!r} is no size", where=where, why="the model is made with it", fix=_AGAIN)
    if not isinstance(config.get("florence_config"), Mapping):
        raise SourceError("config.json has no sizes of the backbone", where=where, why="florence_config is needed",
                          fix=_AGAIN)
    mode = str(config.get("action_mode", "ee6d")).lower()
    if mode not in SPACES:
        raise SourceError(f'action_mode = "{mode}" is not known', where=where, why=nearest(mode, SPACES),
                          fix="write a factory that returns vlacompile.Policy(...) around the model's inference "
                              "function")
    numbers = SPACES[mode] or int(config.get("max_action_dim", 20))
    acts = SPACES[mode] or int(config.get("real_action_dim", 20))
    settings = xvla_settings(options.xvla_config, config.get("num_domains", 30), str(path))
    side, moments = _frames(path)
    files = None
    try:
        files = weights_in(path)
    except SourceError:
        if weights:
            raise
    return Checkpoint(path, config, settings, side, moments, numbers, acts, files, options)


def _frames(path: Path) -> tuple[int, tuple[torch.Tensor, torch.Tensor]]:
    """Their size, and the mean and deviation of grey levels."""
    if not (path / IMAGES).is_file():
        raise SourceError(f"{IMAGES} is missing", where=str(path), why="it says how frames are prepared", fix=_AGAIN)
    found = read_json(path / IMAGES)
    size = found.get("size") or {}
    height, width = size.get("height"), size.get("width")
    if not isinstance(height, int) or height != width or found.get("do_center_crop"):
        raise SourceError("frames are not resized to a square", where=str(path / IMAGES),
                          why=f"size is {size}, do_center_crop {found.get('do_center_crop')}; the backbone takes "
                              "squares",
                          fix="use the files of one training")
    mean, std = (finite_numbers(found.get(f"image_{k}")) for k in ("mean", "std"))
    scale = found.get("rescale_factor", 1 / 255)
    if mean is None or std is None or len(mean) != 3 or len(std) != 3 or min(std) <= 0 or not isinstance(scale, float):
        raise SourceError("image_mean and image_std are no three numbers", where=str(path / IMAGES),
                          why="pixels are normalised with them", fix=_AGAIN)
    return height, (torch.tensor(mean).view(1, 3, 1, 1) / scale, torch.tensor(std).view(1, 3, 1, 1) / scale)


def environments_for(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> tuple[Environment, ...]:
    """Those that can build it. Raises SourceError for a checkpoint that none can read."""
    open_checkpoint(path, weights, options)
    return (ENVIRONMENTS["lerobot061"],)


def needed_weights(path: Path, options: CheckpointOptions = NONE) -> str:
    """Why the checkpoint cannot be read without its weights; "" if it can. Raises SourceError."""
    open_checkpoint(path, False, options)
    return ""


def read_policy(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Policy:
    """weights: False reads only the shapes, within `weightless`. Raises SourceError for a checkpoint that cannot be
    read, or whose parts do not fit together."""
    checkpoint = open_checkpoint(path, weights, options)
    ENVIRONMENTS["lerobot061"].require()
    with lerobot_importable():
        return _policy(checkpoint, _load(checkpoint, weights))


def make(checkpoint: Checkpoint) -> nn.Module:
    """LeRobot's model with random weights."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.xvla.configuration_xvla import XVLAConfig
    from lerobot.policies.xvla.modeling_xvla import XVLAModel
    from transformers.initialization import no_init_weights

    said = {k: checkpoint.config.get(k, v) for k, v in DEFAULTS.items() if k not in ("num_actions", "real_action_dim")}
    chunk = checkpoint.config.get("num_actions", DEFAULTS["num_actions"])
    settings = XVLAConfig(florence_config=dict(checkpoint.config["florence_config"]), chunk_size=chunk,
                          n_action_steps=chunk, action_mode=checkpoint.config.get("action_mode", "ee6d"), device="cpu",
                          use_hetero_proj=bool(checkpoint.config.get("use_hetero_proj", False)),
                          mlp_ratio=float(checkpoint.config.get("mlp_ratio", 4.0)), output_features={
                              "action": PolicyFeature(FeatureType.ACTION, (checkpoint.acts,))}, **said)
    with no_init_weights():  # some initialisers look at numbers, which a model without content has not
        return XVLAModel(settings, settings.get_florence_config(), checkpoint.numbers)


def _load(checkpoint: Checkpoint, weights: bool) -> nn.Module:
    from vlacompile.frontends.lerobot.read import load_weights

    missing, extra = [], []
    try:
        model = make(checkpoint)
        if weights:
            missing, extra = load_weights(model, named(checkpoint))
    except VlaError:
        raise
    except Exception as error:  # the model's own code raises many kinds of errors
        raise SourceError("the weights do not fit config.json", where=str(checkpoint.path),
                          why=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1].strip()}",
                          fix="use config.json and weights of one training") from error
    if missing or extra:
        raise SourceError("the weights do not fit config.json", where=str(checkpoint.path),
                          why=f"{len(missing)} weights missing, {len(extra)} unknown: "
                              + ", ".join([*missing, *extra][:3]), fix="use config.json and weights of one training")
    return model.float().eval().requires_grad_(False)


def named(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights under the names that transformers gives Florence 2; the authors' are Microsoft's."""
    from lerobot.policies.xvla import modeling_xvla

    assert checkpoint.files is not None
    tensors = {n: checkpoint.files.read(n).float() for n in checkpoint.files.shapes}
    found = modeling_xvla._remap_vendored_florence_state_dict(tensors, prefix="vlm.")
    for one, other in (EMBEDDINGS, EMBEDDINGS[::-1]):  # one tensor, saved under one of its names
        if one in found:
            found.setdefault(other, found[one])
    return found


def _tokenizer(path: Path) -> tuple[str, int]:
    """(tokenizer.json, id of padding)"""
    content = tokenizer_json(path / TOKENIZER if (path / TOKENIZER).is_file() else path)
    document = json.loads(content)
    known = document["model"]["vocab"] | {t["content"]: t["id"] for t in document.get("added_tokens", ())}
    if "<pad>" not in known:
        raise SourceError("the tokenizer has no token <pad>", where=str(path / TOKENIZER),
                          why="the policy was trained with BART's", fix=_AGAIN)
    return content, known["<pad>"]


def _policy(checkpoint: Checkpoint, model: nn.Module) -> Policy:
    settings, (mean, std) = checkpoint.settings, checkpoint.moments
    cameras, encoder, space = CAMERAS[: settings.images], model.vlm.language_model.encoder, model.action_space
    content, pad = _tokenizer(checkpoint.path)
    domain = torch.tensor([settings.domain])

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = [(inputs[c].permute(0, 3, 1, 2).to(torch.float32) - mean) / std for c in cameras]
        seen = [model.vlm.get_image_features(p).pooler_output for p in pixels]
        text = model.vlm.get_input_embeddings()(inputs[TOKENS])
        features = encoder(inputs_embeds=torch.cat([seen[0], text], 1))[0]
        others = [*seen[1:], *[torch.zeros_like(seen[0])] * (VIEWS - len(seen))]
        noise, actions = inputs[NOISE], torch.zeros_like(inputs[NOISE])
        for step in range(settings.steps, 0, -1):
            time = torch.full((1,), step / settings.steps)
            mixed = noise * time[:, None, None] + actions * (1 - time[:, None, None])
            state, mixed = space.preprocess(inputs[STATE], mixed)
            actions = model.transformer(domain_id=domain, action_with_noise=mixed, proprio=state, t=time,
                                        vlm_features=features, aux_visual_inputs=torch.cat(others, 1))
        return {"action": space.postprocess(actions)}

    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(len(cameras), 3, 8, 8, generator=draw)
    smooth = nn.functional.interpolate(coarse, (checkpoint.side,) * 2, mode="bilinear").permute(0, 2, 3, 1)
    example = {n: (smooth[i: i + 1] * 255).to(torch.uint8).contiguous() for i, n in enumerate(cameras)}
    example[STATE] = 0.5 * torch.randn(1, checkpoint.numbers, generator=draw)
    sources = {n: Source("observation") for n in example} | {TOKENS: Source("task"), NOISE: Source("step")}
    chunk = int(checkpoint.config.get("num_actions", DEFAULTS["num_actions"]))
    example |= {TOKENS: encode(content, EXAMPLE_INSTRUCTION, LENGTH, pad, cut=False)[0],
                NOISE: torch.randn(1, chunk, checkpoint.numbers, generator=draw)}
    text = Text(content, None, Fit(pad, "right"), examples=(EXAMPLE_INSTRUCTION,))
    return Policy("xvla", observe, sources, example, execute=chunk, texts={TOKENS: text}, origin={
        "read as": f"X-VLA, domain {settings.domain}, {settings.steps} steps, in fp32",
        "actions of": f"the training's units, {checkpoint.config.get('action_mode', 'ee6d')}",
        "spelled out": " ".join(checkpoint.options.spelled_out())})
