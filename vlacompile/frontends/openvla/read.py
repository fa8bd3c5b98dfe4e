"""An OpenVLA or OpenVLA-OFT checkpoint directory -> Policy: raw frames, an instruction and, if it was trained with it,
the robot's state in; robot actions out.

Frames have the size that the vision transformers take; the host scales and crops as the training did.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.decoding import greedy
from vlacompile.frontends.environments import Environment
from vlacompile.frontends.finite_numbers import finite_numbers
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.openvla import heads
from vlacompile.frontends.openvla.components import Components, film_weights, find_components
from vlacompile.frontends.openvla.config import (
    EMBEDDING,
    TOKENS_OF_ACTIONS,
    check_config,
    check_generation,
    check_tokens,
)
from vlacompile.frontends.openvla.model import (
    BACKBONES,
    TOWERS,
    VISION,
    VisionLanguage,
    is_unused,
    llama_sizes,
    tower_sizes,
)
from vlacompile.frontends.openvla.settings import CAMERAS, OPTION, Oft, oft_settings
from vlacompile.frontends.openvla.statistics import CONFIG, EPS_OF_OFT, Range, chosen, range_of
from vlacompile.frontends.openvla.text import EXAMPLE_INSTRUCTION, prompt_text, tokens_of
from vlacompile.frontends.tensor_files import TensorFiles, fill, weights_in
from vlacompile.policy.action_decoding import Decoder, Lookup, centres, lower_edges
from vlacompile.policy.policy import Policy, Source
from vlart.errors import SourceError

TOKENS, MASK, STATE, NOISE = ("observation.language.tokens", "observation.language.attention_mask",
                              "observation.state", "noise")
IMAGE, IMAGES = "observation.images.", "preprocessor_config.json"
TAKEN = ("oft_config", "unnorm_key")
ADAPTER = "lora_adapter"


@dataclass(frozen=True)
class Checkpoint:
    """oft: None of OpenVLA itself. key: of the statistics. proprio: range of the state, if the policy reads it.
    moments: per vision transformer, mean and deviation of pixels."""

    path: Path
    config: dict
    files: TensorFiles
    components: Components
    oft: Oft | None
    key: str
    action: Range
    proprio: Range | None
    moments: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    options: CheckpointOptions


def open_checkpoint(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Checkpoint:
    """Reads and checks all but the content of the weights. Raises SourceError, ConfigError."""
    options.require_only(str(path), *TAKEN)
    config, components = read_json(path / CONFIG), find_components(path)
    check_config(config, str(path / CONFIG))
    oft = None if options.oft_config is None else oft_settings(options.oft_config)
    if oft is None and components.any():
        raise SourceError("the checkpoint does not say how it was trained", where=str(path),
                          why=f"it has {components.names()}: OpenVLA-OFT keeps chunk, normalisation and the number of "
                              "images in its code", fix=f"add {OPTION} PLATFORM,images=N, as libero,images=2")
    if oft is None:
        check_generation(path, config)
    key, row, where = chosen(path, config, options.unnorm_key)
    bounds = oft is not None and oft.bounds
    action = range_of(row, "action", bounds, where, key)
    proprio = None if components.proprio is None else range_of(row, "proprio", bounds, where, key)
    if not any(path.glob("*.safetensors")) and (path / ADAPTER / "adapter_config.json").is_file():
        raise SourceError("the checkpoint has an adapter and no weights", where=str(path),
                          why=f"{ADAPTER} is what LoRA learnt, apart from the weights that it changes",
                          fix="in openvla-oft: python vla-scripts/merge_lora_weights_and_save.py --base_checkpoint "
                              f"BASE --lora_finetuned_checkpoint_dir {path}")
    if (path / "adapter_config.json").is_file():
        raise SourceError("the checkpoint has an adapter that is not merged", where=str(path / "adapter_config.json"),
                          why="transformers adds it to the weights when it loads this directory",
                          fix="merge it with peft's merge_and_unload, and save the model; or remove the file, if the "
                              "weights have it already")
    files = weights_in(path)
    check_tokens(config, files, str(path / CONFIG))
    if components.vision is not None:
        files = files.instead(film_weights(components.vision), VISION)
    _check_sizes(path, components, action, proprio, key, oft)
    return Checkpoint(path, config, files, components, oft, key, action, proprio, _moments(path, config), options)


def _check_sizes(path: Path, components: Components, action: Range, proprio: Range | None, key: str,
                 oft: Oft | None) -> None:
    """The statistics are those of the robot that the heads were trained for."""
    for name, made, found in (("action", components.action_size(), len(action.low)),
                              ("proprio", components.state_size(), len(proprio.low) if proprio else None)):
        if made is not None and made != found:
            raise SourceError(f'the statistics "{key}" are for another robot', where=str(path),
                              why=f'the weights have {made} numbers of "{name}", the statistics {found}',
                              fix="give --unnorm-key of the robot that it was trained for")
    if components.noisy is None and oft is not None and (oft.steps or oft.trained_steps):
        raise SourceError("steps and trained_steps do not apply", where=str(path),
                          why="the checkpoint has no diffusion head",
                          fix=f"leave them out of {OPTION}")
    if components.noisy is not None and oft is not None and (oft.steps is None or oft.trained_steps is None):
        raise SourceError("the steps of the diffusion head are not given", where=str(path),
                          why="no file of the checkpoint says how many it was trained with, and samples with",
                          fix=f"add steps=50,trained_steps=50 to {OPTION}, if the training's defaults were kept")


def _moments(path: Path, config: dict) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    backbone = str(config.get("vision_backbone_id"))
    count = len(BACKBONES.get(backbone, ()))
    images, found = read_json(path / IMAGES), []
    for name in ("means", "stds"):
        values = images.get(name)
        rows = [finite_numbers(v) for v in values] if isinstance(values, list) else []
        if len(rows) != count or not all(v and len(v) == 3 and (name == "means" or min(v) > 0) for v in rows):
            raise SourceError(f'"{name}" does not fit the vision backbone', where=str(path / IMAGES),
                              why=f"{backbone} has {count} vision transformers, and frames three colours, each with a "
                              "mean and a spread",
                              fix="copy the checkpoint again, completely")
        found.append([torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in rows])
    return tuple(zip(*found, strict=True))


def environments_for(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> tuple[Environment, ...]:
    """None is needed. Raises SourceError for a checkpoint that cannot be read."""
    open_checkpoint(path, weights, options)
    return ()


def needed_weights(path: Path, options: CheckpointOptions = NONE) -> str:
    """Why the checkpoint cannot be read without its weights. Raises SourceError for one that is not read at all."""
    options.require_only(str(path), *TAKEN)
    if options.oft_config is not None:
        oft_settings(options.oft_config)
    chosen(path, read_json(path / CONFIG), options.unnorm_key)
    return "the model's sizes are read from them"


def read_policy(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Policy:
    """weights: False reads only the shapes, within `weightless`. Raises SourceError for a checkpoint that cannot be
    read, or whose parts do not fit together."""
    checkpoint = open_checkpoint(path, weights, options)
    model, parts = load(checkpoint, weights)
    return _autoregressive(checkpoint, model) if checkpoint.oft is None else _parallel(checkpoint, model, parts)


def load(checkpoint: Checkpoint, weights: bool) -> tuple[VisionLanguage, dict[str, nn.Module]]:
    """The model, and the heads by name. Raises SourceError if names or shapes do not fit."""
    files, config, where = checkpoint.files, checkpoint.config, str(checkpoint.path / CONFIG)
    llama = llama_sizes(config, files, where)
    film = llama.width if checkpoint.components.vision is not None else None
    towers = tower_sizes(str(config.get("vision_backbone_id")), files, film, where)
    count = sum(n.startswith("projector.") and n.endswith(".weight") for n in files.shapes)
    projector = [sum(t.width for t in towers)]
    projector += [files.shapes.get(f"projector.fc{i}.weight", (0, 0))[0] for i in range(1, count + 1)]

    def made() -> tuple[VisionLanguage, dict[str, nn.Module]]:
        has_head = checkpoint.components.head is None
        return (VisionLanguage(towers, llama, projector, has_head, checkpoint.moments),
                checkpoint.components.modules(llama.width))

    if weights:
        with torch.device("meta"):  # nothing is initialised that the files replace
            model, parts = made()
    else:
        model, parts = made()
    unused = is_unused({name: t.depth for name, t in zip(TOWERS, towers, strict=False)})
    fill(model, files, unused=unused, weights=weights)
    for name, part in parts.items():
        fill(part, checkpoint.components.files(name), weights=weights)
    return model, parts


def _autoregressive(checkpoint: Checkpoint, model: VisionLanguage) -> Policy:
    language, count = model.language_model.model, len(checkpoint.action.low)
    head = model.language_model.lm_head
    camera = f"{IMAGE}{CAMERAS[0]}"

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        patches, text, mask = model.see(inputs[camera]), model.embed(inputs[TOKENS]), inputs[MASK]
        prompt = torch.cat([text[:, :1], patches, text[:, 1:]], 1)
        seen = torch.ones(1, patches.shape[1], dtype=torch.bool)
        whole = torch.cat([mask[:, :1], seen, mask[:, 1:]], 1)
        return {"action_tokens": greedy(language, model.embed, head, prompt, whole, count)}

    return _policy(checkpoint, model, "openvla", observe, 1, outputs=("action_tokens",),
                   decoder=_decoder(checkpoint, 0.0))


def _parallel(checkpoint: Checkpoint, model: VisionLanguage, parts: dict[str, nn.Module]) -> Policy:
    oft, language, size = checkpoint.oft, model.language_model.model, len(checkpoint.action.low)
    assert oft is not None
    cameras = [f"{IMAGE}{c}" for c in CAMERAS[: oft.images]]
    shape, with_film = (1, oft.chunk, size), checkpoint.components.vision is not None
    head, proprio, noisy = (parts.get(n) for n in ("head", "proprio", "noisy"))
    width = language.embed_tokens.weight.shape[1]

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        text, mask = model.embed(inputs[TOKENS]), inputs[MASK]
        condition = heads.film_condition(language, text, mask) if with_film else None
        extra = [model.see(inputs[c], condition) for c in cameras]
        if proprio is not None:
            assert checkpoint.proprio is not None
            extra.append(proprio(checkpoint.proprio.normalise(inputs[STATE]))[:, None])

        def features(places: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
            return heads.features(language, text[:, :1], [*extra, *more], text[:, 1:], mask, places)

        if noisy is not None:
            def noise_in(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
                places = noisy(sample.reshape(1, -1, 1))
                return head(features(places, heads.moment(time, width)).reshape(1, oft.chunk, -1))

            chunk = heads.sampler(oft.steps, oft.trained_steps).denoise(noise_in, inputs[NOISE])
            return {"action": checkpoint.action.unnormalise(chunk)}
        hidden = features(torch.zeros(1, oft.chunk * size, width))
        if head is not None:
            return {"action": checkpoint.action.unnormalise(head(hidden.reshape(1, oft.chunk, -1)))}
        return {"action_tokens": model.language_model.lm_head(hidden).argmax(-1)}

    noise = {} if noisy is None else {NOISE: torch.randn(shape, generator=torch.Generator().manual_seed(0))}
    by_tokens = {} if head is not None else {"outputs": ("action_tokens",), "decoder": _decoder(checkpoint, EPS_OF_OFT)}
    return _policy(checkpoint, model, "openvla_oft", observe, oft.images, noise, **by_tokens)


def _decoder(checkpoint: Checkpoint, epsilon: float) -> Decoder:
    """The last tokens of the vocabulary, counted down, are the bins' centres."""
    bins, padding = (checkpoint.config.get(k, v) for k, v in TOKENS_OF_ACTIONS.items())
    last = checkpoint.files.shapes[EMBEDDING][0] - padding - 1
    table = centres(lower_edges(-1.0, 1.0, bins))
    tables = Lookup((table,) * len(checkpoint.action.low), last, -1, "clip")
    return Decoder((tables, checkpoint.action.decoder(epsilon)))


def _policy(checkpoint: Checkpoint, model: VisionLanguage, name: str, observe, images: int,
            noise: dict[str, torch.Tensor] | None = None, **rest) -> Policy:
    draw, cameras = torch.Generator().manual_seed(0), [f"{IMAGE}{c}" for c in CAMERAS[:images]]
    coarse = torch.rand(images, 3, 8, 8, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (model.side,) * 2, mode="bilinear").permute(0, 2, 3, 1)
    example = {n: (smooth[i: i + 1] * 255).to(torch.uint8).contiguous() for i, n in enumerate(cameras)}
    if checkpoint.proprio is not None:
        low, high = (torch.tensor([v]) for v in (checkpoint.proprio.low, checkpoint.proprio.high))
        example[STATE] = low + (high - low) * torch.rand(low.shape, generator=draw)
    sources = {n: Source("observation") for n in example} | {n: Source("step") for n in noise or {}}
    ids, mask = tokens_of(checkpoint.path, EXAMPLE_INSTRUCTION)
    sources |= {TOKENS: Source("task"), MASK: Source("task")}
    return Policy(name, observe, sources, example | {TOKENS: ids, MASK: mask} | (noise or {}),
                  texts={TOKENS: prompt_text(checkpoint.path, MASK)}, origin=_origin(checkpoint), **rest)


def _origin(checkpoint: Checkpoint) -> dict[str, str]:
    oft, parts = checkpoint.oft, checkpoint.components
    how = "OpenVLA: tokens one by one"
    if oft is not None:
        how = f"OpenVLA-OFT: {oft.chunk} actions at once, " + (
            f"{oft.steps} denoising steps" if parts.noisy else "regression" if parts.head else "tokens")
        how += (", state" if parts.proprio else "") + (", FiLM" if parts.vision else "")
    given = checkpoint.options.spelled_out()
    return {"read as": f"{how}, in fp32", "actions of": json.dumps(checkpoint.key)[1:-1]} | (
        {"spelled out": " ".join(given)} if given else {})
