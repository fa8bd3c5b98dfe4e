"""An Evo-1 checkpoint directory -> Policy: raw frames, an instruction and the robot's state in; robot actions out.

Frames have the size that the vision transformer takes; the host scales them as the training did. Sizes and tokenizer of
the backbone are those of the model that config.json names; no code of it is executed. The head sees every token of the
prompt, padding included, so that its length is the original's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.environments import Environment
from vlacompile.frontends.evo1.files import ACCELERATE, CONFIG, DEEPSPEED, STATE_DICTS
from vlacompile.frontends.evo1.model import TIMES, Evo1, Sizes, is_unused, waves
from vlacompile.frontends.evo1.settings import VIEWS, Evo1Settings, evo1_settings
from vlacompile.frontends.evo1.statistics import Scale, scales
from vlacompile.frontends.hub import directory
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.prompt_runs import runs
from vlacompile.frontends.tensor_files import TensorFiles, fill, torch_file, weights_in
from vlacompile.frontends.tokenizer_files import encode, tokenizer_json
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Fit, Text
from vlart.errors import SourceError

TOKENS, MASK, STATE, NOISE = ("observation.language.tokens", "observation.language.attention_mask",
                              "observation.state", "noise.uniform")
CAMERAS = tuple(f"observation.images.image_{i + 1}" for i in range(VIEWS))  # as the prompt counts them
TAKEN = ("evo1_config", "unnorm_key", "tokenizer")
LENGTH, LAYERS, SIDE = 1024, 14, 448  # tokens of the prompt; of the language model; of the frames (the authors' code)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE, BEGIN, END = "<IMG_CONTEXT>", "<img>", "</img>"
EXAMPLE_INSTRUCTION = "pick up the object"
# What config.json of the training and of InternVL3 must say, where it is said
FIXED = {"action_head": "flowmatching", "num_categories": 1, "return_cls_only": False, "image_size": SIDE}
FIXED_VLM = {"select_layer": -1, "downsample_ratio": 0.5, "ps_version": "v2", "force_image_size": SIDE,
             "use_backbone_lora": 0, "use_llm_lora": 0}
FIXED_VISION = {"norm_type": "layer_norm", "qkv_bias": True, "qk_normalization": False, "hidden_act": "gelu",
                "image_size": SIDE}
FIXED_LANGUAGE = {"architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "use_sliding_window": False}
_AGAIN = "copy the directory that the training wrote again, completely"
_FACTORY = "write a factory that returns vlacompile.Policy(...) around the model's inference function"


@dataclass(frozen=True)
class Checkpoint:
    """key: of the statistics. files: None if they are not there. vlm: directory of the backbone's small files."""

    path: Path
    config: Mapping
    vlm: Path
    settings: Evo1Settings
    sizes: Sizes
    key: str
    state: Scale
    action: Scale
    files: TensorFiles | None
    options: CheckpointOptions


def open_checkpoint(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Checkpoint:
    """Reads and checks all but the content of the weights. Raises SourceError, ConfigError."""
    options.require_only(str(path), *TAKEN)
    config = read_json(path / CONFIG)
    _require(config, FIXED, str(path / CONFIG))
    settings = evo1_settings(options.evo1_config, str(path))
    key, state, action = scales(path, options.unnorm_key, str(config.get("normalization_type", "bounds")))
    vlm = directory(str(config["vlm_name"]), weights=False)
    sizes = _sizes(config, read_json(vlm / CONFIG), str(path / CONFIG), str(vlm / CONFIG))
    for name, scale, most in (("state", state, sizes.state), ("action", action, sizes.action)):
        if len(scale.first) > most:
            raise SourceError(f"the {name} is larger than the model's", where=str(path),
                              why=f"the statistics have {len(scale.first)} numbers, the model {most}",
                              fix="use norm_stats.json and config.json of one training")
    return Checkpoint(path, config, vlm, settings, sizes, key, state, action, _weights(path, weights), options)


def _weights(path: Path, needed: bool) -> TensorFiles | None:
    for name, under in STATE_DICTS.items():
        if (path / name).is_file():
            return torch_file(path / name, under)
    if any(path.glob("*.safetensors")):
        return weights_in(path)
    if needed:
        raise SourceError("the checkpoint has no weights", where=str(path),
                          why=f"there is neither {DEEPSPEED} nor {ACCELERATE} nor a .safetensors file", fix=_AGAIN)
    return None


def _require(found: Mapping, fixed: Mapping, where: str) -> None:
    for key, value in fixed.items():
        if found.get(key, value) not in (value, None):
            raise SourceError(f"{key} = {found[key]!r} is not covered", where=where,
                              why=f"Evo-1 is read with {value!r}", fix=_FACTORY)


def _sizes(config: Mapping, vlm: Mapping, where: str, of_vlm: str) -> Sizes:
    vision, language = vlm.get("vision_config") or {}, vlm.get("llm_config") or {}
    for found, fixed in ((vlm, FIXED_VLM), (vision, FIXED_VISION), (language, FIXED_LANGUAGE)):
        _require(found, fixed, of_vlm)
    horizon = _number(config, "horizon", where, 16)
    if config.get("action_horizon") not in (None, horizon):
        raise SourceError(f"action_horizon = {config['action_horizon']} is not horizon = {horizon}", where=where,
                          why="the head is made for one of them, and reads the other", fix="use the training's config")
    width = _number(language, "hidden_size", of_vlm)
    heads, kv_heads = (_number(language, f"num_{k}_heads", of_vlm) for k in ("attention", "key_value"))
    head = tuple(_number(config, k, where, d) for k, d in (("embed_dim", 896), ("hidden_dim", 1024), (
        "state_hidden_dim", 1024), ("num_layers", 8), ("num_heads", 8)))
    tower = tuple(_number(vision, k, of_vlm) for k in ("hidden_size", "intermediate_size", "num_hidden_layers",
                                                       "num_attention_heads"))
    if width % (2 * heads) or heads % kv_heads or tower[0] % tower[3] or head[0] % (2 * head[4]) or head[0] != width:
        raise SourceError("heads do not divide the widths", where=of_vlm, why=f"the language model is {width} wide, of "
                          f"{heads} and {kv_heads} heads, the policy's head {head[0]}", fix=_AGAIN)
    layers = min(LAYERS, _number(language, "num_hidden_layers", of_vlm))
    return Sizes(tower, _number(vision, "patch_size", of_vlm), SIDE,  # type: ignore[arg-type]
                 float(vision.get("layer_norm_eps", 1e-6)),
                 (width, _number(language, "intermediate_size", of_vlm), layers, heads), kv_heads,
                 _number(language, "vocab_size", of_vlm), float(language.get("rms_norm_eps", 1e-6)),
                 float(language.get("rope_theta", 10000.0)), head, horizon,  # type: ignore[arg-type]
                 _number(config, "state_dim", where, 7), _number(config, "per_action_dim", where, 7))


def _number(found: Mapping, key: str, where: str, default: int | None = None) -> int:
    value = found.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SourceError(f"{key} = {value!r} is no size", where=where, why="the model is made with it", fix=_AGAIN)
    return value


def environments_for(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> tuple[Environment, ...]:
    """None is needed. Raises SourceError for a checkpoint that cannot be read."""
    open_checkpoint(path, weights, options)
    return ()


def needed_weights(path: Path, options: CheckpointOptions = NONE) -> str:
    """Why the checkpoint cannot be read without its weights; "" if it can. Raises SourceError."""
    open_checkpoint(path, False, options)
    return ""


def read_policy(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Policy:
    """weights: False reads only the shapes, within `weightless`. Raises SourceError for a checkpoint that cannot be
    read, or whose parts do not fit together."""
    checkpoint = open_checkpoint(path, weights, options)
    if weights:
        with torch.device("meta"):  # nothing is initialised that the files replace
            model = Evo1(checkpoint.sizes)
        for module in model.modules():  # but tables, which are computed
            for name, _ in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, _tables(checkpoint.sizes)[name], persistent=False)
    else:
        model = Evo1(checkpoint.sizes)
    if checkpoint.files is not None:
        fill(model, checkpoint.files, unused=is_unused, weights=weights)
    return _policy(checkpoint, model.eval().requires_grad_(False))


def _tables(sizes: Sizes) -> dict[str, torch.Tensor]:
    return {"times": waves(TIMES, sizes.head[0]), "places": waves(sizes.horizon, sizes.head[0])}


def _tokenizer(checkpoint: Checkpoint) -> tuple[str, int, list[int], int]:
    """(tokenizer.json, id of padding, ids of the prompt before the instruction, id of an image's tokens)"""
    source = checkpoint.options.tokenizer or checkpoint.vlm
    content, where = tokenizer_json(source), str(source)
    document = json.loads(content)
    known = document["model"]["vocab"] | {t["content"]: t["id"] for t in document.get("added_tokens", ())}
    settings = directory(source, weights=False) / "tokenizer_config.json"
    said = read_json(settings) if settings.is_file() else {}
    pad = said.get("pad_token", "<|endoftext|>")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    missing = [t for t in (IMAGE, BEGIN, END, pad) if t not in known]
    if missing or said.get("padding_side", "right") != "right":
        raise SourceError(f"the tokenizer has no token {missing[0]}" if missing else "the tokenizer pads on the left",
                          where=where, why="Evo-1 was trained with InternVL3's, which pads on the right",
                          fix="add --tokenizer of the model that config.json names, as OpenGVLab/InternVL3-1B-hf")
    count = (checkpoint.sizes.side // checkpoint.sizes.patch // 2) ** 2
    text = "".join(f"Image-{i + 1}: {BEGIN}{IMAGE * count}{END}\n" for i in range(VIEWS))
    ids, kept = encode(content, text, LENGTH, cut=False)
    return content, known[pad], ids[0, : int(kept.sum())].tolist(), known[IMAGE]


def _policy(checkpoint: Checkpoint, model: Evo1) -> Policy:
    settings, sizes = checkpoint.settings, checkpoint.sizes
    content, pad, before, image = _tokenizer(checkpoint)
    parts, cameras, vlm = runs(before, image), CAMERAS[: settings.images], model.embedder.model
    length, count = LENGTH - len(before), len(checkpoint.action.first)
    moving = (torch.arange(sizes.action) < count).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    shown = _shown(before, image, settings.images)

    def look(frame: torch.Tensor) -> torch.Tensor:
        return vlm.see((frame.permute(0, 3, 1, 2).to(torch.float32) / 255.0 - mean) / std)

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        black = torch.zeros(1, sizes.side, sizes.side, 3, dtype=torch.uint8)
        seen = iter([look(inputs[c]) for c in cameras] + [look(black)] * (VIEWS - settings.images))
        embed = vlm.language_model.model.embed_tokens
        x = torch.cat([*(next(seen) if ids is None else embed(ids) for ids in parts), embed(inputs[TOKENS])], 1)
        hidden = vlm.read(x, torch.cat([shown, inputs[MASK]], 1), settings.flash)
        state = checkpoint.state.normalise(inputs[STATE])
        state = torch.nn.functional.pad(state, (0, sizes.state - state.shape[-1]))
        noise = (inputs[NOISE] * 2.0 - 1.0).view(1, sizes.horizon, sizes.action)
        chunk = model.action_head.denoise(hidden, state, noise, moving, settings.steps)
        return {"action": checkpoint.action.unnormalise(chunk[..., :count])}

    ids, mask = encode(content, EXAMPLE_INSTRUCTION, length, pad, cut=False)
    example = _example(checkpoint, cameras)
    sources = {name: Source("observation") for name in example}
    sources |= {TOKENS: Source("task"), MASK: Source("task"), NOISE: Source("step")}
    noise = torch.rand(1, sizes.horizon * sizes.action, generator=torch.Generator().manual_seed(0))
    text = Text(content, MASK, Fit(pad, "right"), examples=(EXAMPLE_INSTRUCTION,))
    return Policy("evo1", observe, sources, example | {TOKENS: ids, MASK: mask, NOISE: noise}, texts={TOKENS: text},
                  execute=sizes.horizon, origin={
                      "read as": f"Evo-1, {settings.steps} steps, attention "
                                 f"{'as FlashAttention' if settings.flash else 'without FlashAttention'}, in fp32",
                      "actions of": checkpoint.key, "spelled out": " ".join(checkpoint.options.spelled_out())})


def _shown(ids: list[int], image: int, images: int) -> torch.Tensor:
    """bool [1,n]: the tokens that others see: not those of cameras that are not there."""
    shown, number = [], 0
    for i, token in enumerate(ids):
        number += token == image and (i == 0 or ids[i - 1] != image)
        shown.append(token != image or number <= images)
    return torch.tensor([shown])


def _example(checkpoint: Checkpoint, cameras: tuple[str, ...]) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(len(cameras), 3, 8, 8, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (checkpoint.sizes.side,) * 2, mode="bilinear").permute(0, 2, 3, 1)
    example = {n: (smooth[i: i + 1] * 255).to(torch.uint8).contiguous() for i, n in enumerate(cameras)}
    first, second = (torch.tensor([v]) for v in (checkpoint.state.first, checkpoint.state.second))
    share = torch.rand(first.shape, generator=draw)
    return example | {STATE: first + share * (second if checkpoint.state.normal else second - first)}
