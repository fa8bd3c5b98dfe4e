"""GR00T N1.5 (NVIDIA 2025, arXiv 2503.14734, release N1.5) as LeRobot 0.4.4 carries it: Eagle 2.5 (SigLIP 2, twelve
layers of Qwen3) and a flow-matching DiT with weights of its own for every embodiment.

A LeRobot checkpoint has the weights, but not the sizes: LeRobot takes those from the base model's config.json and from
Eagle's, which it downloads. Here they are read from where the checkpoint's config.json points to: `base_model_path` and
`tokenizer_assets_repo`, directories or ids of downloaded repositories. Eagle's code is LeRobot's own copy; no
downloaded code is executed.

The text of the prompt comes after its images, so that all tokens up to the last image are the same for every
instruction; the policy's input is the rest, padded. LeRobot does not pad, and attends to all tokens: here padding is
masked. The embodiment is a static input: the weights of other embodiments are dropped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from vlacompile.errors import SourceError
from vlacompile.frontends.lerobot.checkpoint import Checkpoint, Tokenization
from vlacompile.frontends.lerobot.files import POSTPROCESSOR, PREPROCESSOR, read_json, read_tensors
from vlacompile.frontends.lerobot.read import MASK, NOISE, STATE, TOKENS, Batch, Family, Predict, normal
from vlacompile.frontends.lerobot.statistics import choose_normalisation

PACK, UNPACK = "groot_pack_inputs_v3", "groot_action_unpack_unnormalize_v1"
EMBODIMENT = "embodiment_id"
TEXT_TOKENS = 64  # after the last image: instruction, end of turn
ONE_TILE = {"min_dynamic_tiles": 1, "max_dynamic_tiles": 1, "use_thumbnail": False}  # LeRobot's setting


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
    return read_json(downloaded(config.base_model_path, "config.json"))


def downloaded(repository: str, file: str) -> Path:
    """A file in a directory, in LeRobot's own downloads, or in the hub's cache. Raises SourceError."""
    from huggingface_hub import try_to_load_from_cache
    from lerobot.utils.constants import HF_LEROBOT_HOME

    places = [Path(repository) / file, Path(HF_LEROBOT_HOME) / repository / file]
    if not Path(repository).is_absolute():
        cached = try_to_load_from_cache(repository, file)
        places += [Path(cached)] if isinstance(cached, str) else []
    for place in places:
        if place.is_file():
            return place
    raise SourceError(f"{file} of {repository} is not on this machine",
                      where="config.json: base_model_path, tokenizer_assets_repo",
                      why="a LeRobot checkpoint of this policy does not contain the sizes of its model",
                      fix="download it once (huggingface-cli download), or put a local directory into config.json")


def _make(policy_class: type, config) -> nn.Module:
    """LeRobot's policy with random weights, of the sizes of the base model."""
    from lerobot.policies.groot import groot_n1

    class Groot(policy_class):
        def _create_groot_model(self):
            settings = groot_n1.GR00TN15Config(**_base(self.config), compute_dtype="float32")
            backbone = groot_n1.EagleBackbone
            groot_n1.EagleBackbone = functools.partial(_backbone, backbone, self.config)
            try:
                return groot_n1.GR00TN15(settings, local_model_path="")
            finally:
                groot_n1.EagleBackbone = backbone

    Groot.__name__ = policy_class.__name__
    return Groot(config)


def _backbone(original: type, config, select_layer: int, project_to_dim: int | None = 1536, **training) -> nn.Module:
    """EagleBackbone with its modules, bypassing its constructor, which downloads files."""
    from lerobot.policies.groot.eagle2_hg_model.configuration_eagle2_5_vl import Eagle25VLConfig
    from lerobot.policies.groot.eagle2_hg_model.modeling_eagle2_5_vl import Eagle25VLForConditionalGeneration
    from transformers import Qwen3ForCausalLM, SiglipVisionModel

    settings = read_json(downloaded(config.tokenizer_assets_repo, "config.json"))
    eagle = Eagle25VLConfig(**settings | {"_attn_implementation": "eager"})
    eagle.text_config.num_hidden_layers = select_layer  # LeRobot drops the other layers
    for part in (eagle.vision_config, eagle.text_config):
        part._attn_implementation = "eager"
    backbone = original.__new__(original)
    nn.Module.__init__(backbone)
    backbone.eagle_model = Eagle25VLForConditionalGeneration(eagle, SiglipVisionModel(eagle.vision_config),
                                                             Qwen3ForCausalLM(eagle.text_config))
    width = eagle.text_config.hidden_size
    backbone.eagle_linear = nn.Identity() if project_to_dim is None else nn.Linear(width, project_to_dim)
    backbone.select_layer, backbone.tune_llm, backbone.tune_visual = select_layer, False, False
    return backbone


@functools.cache
def processor(assets: str):
    """LeRobot's copy of Eagle's processor, with the downloaded tokenizer and chat template."""
    from lerobot.policies.groot.eagle2_hg_model.image_processing_eagle2_5_vl_fast import Eagle25VLImageProcessorFast
    from lerobot.policies.groot.eagle2_hg_model.processing_eagle2_5_vl import Eagle25VLProcessor
    from transformers import AutoTokenizer

    images, settings = (read_json(downloaded(assets, f"{part}_config.json")) for part in ("preprocessor", "processor"))
    images = {k: v for k, v in images.items() if k not in ("auto_map", "image_processor_type", "processor_class")}
    settings = {k: v for k, v in settings.items() if k not in ("auto_map", "processor_class")}
    template = read_json(downloaded(assets, "chat_template.json"))["chat_template"]
    tokenizer = AutoTokenizer.from_pretrained(downloaded(assets, "tokenizer_config.json").parent, padding_side="left")
    return Eagle25VLProcessor(Eagle25VLImageProcessorFast(**images), tokenizer, chat_template=template, **settings)


def _prompt(assets: str, cameras: int, instruction: str) -> tuple[list[int], list[int]]:
    """Token ids up to the last image, and those after it."""
    from PIL import Image

    eagle = processor(assets)
    side = eagle.image_processor.size["height"]
    images = [{"type": "image", "image": Image.new("RGB", (side, side))}] * cameras
    talk = [{"role": "user", "content": [*images, {"type": "text", "text": str([instruction])}]}]
    text = eagle.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    seen, _ = eagle.process_vision_info(talk)
    ids = eagle(text=[text], images=seen, images_kwargs=ONE_TILE, return_tensors="pt")["input_ids"][0].tolist()
    end = len(ids) - ids[::-1].index(eagle.image_token_id)
    return ids[:end], ids[end:]


def _tokens(checkpoint: Checkpoint, instruction: str) -> Batch:
    assets = checkpoint.config["tokenizer_assets_repo"]
    _, ids = _prompt(assets, len(checkpoint.images()), instruction)
    if len(ids) > TEXT_TOKENS:
        raise SourceError("the instruction is too long", where=repr(instruction),
                          why=f"with the end of the prompt it has {len(ids)} tokens of {TEXT_TOKENS}",
                          fix="use a shorter instruction")
    row = torch.tensor([ids + [0] * (TEXT_TOKENS - len(ids))])
    return {TOKENS: row, MASK: torch.arange(TEXT_TOKENS)[None] < len(ids)}


def _pixels(assets: str, cameras: dict[str, tuple[int, ...]]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The preprocessing of LeRobot and Eagle's processor for a frame [1,3,H,W] in [0, 1]. Raises SourceError."""
    images = processor(assets).image_processor
    side = images.size["height"]
    for name, shape in cameras.items():
        if tuple(shape[1:]) != (side, side):
            raise SourceError(f"{name} is {shape[1]}x{shape[2]}", where="input_features in config.json",
                              why=f"LeRobot resizes frames to {side}x{side} in fixed point, which no engine reproduces",
                              fix=f"resize the frames before write(), and set their shape to [3, {side}, {side}]")
    moments = (torch.tensor(v).view(1, 3, 1, 1) for v in (images.image_mean, images.image_std))
    mean, std = (m / images.rescale_factor for m in moments)
    # LeRobot converts back to uint8, rounding down.
    return lambda frame: (torch.floor(frame.clamp(0.0, 1.0) * 255.0) - mean) / std


def _bind(policy) -> Predict:
    model, config = policy._groot_model, policy.config
    assets, cameras = config.tokenizer_assets_repo, sorted(config.image_features)
    pixels = _pixels(assets, {c: config.image_features[c].shape for c in cameras})
    before, eagle = torch.tensor([_prompt(assets, len(cameras), "")[0]]), model.backbone.eagle_model
    segments = _segments(before, eagle.image_token_index)
    places = (before == eagle.image_token_index).sum()
    if segments.count(None) != len(cameras) or places != len(cameras) * eagle.num_image_token:
        raise SourceError("the prompt does not have a placeholder for every image", where=f"tokenizer_assets_repo, "
                                                                                          f"{assets}",
                          why=f"{len(cameras)} cameras of {eagle.num_image_token} tokens; the template gives "
                              f"{segments.count(None)} runs of token {eagle.image_token_index}",
                          fix="use the processor files of this model")
    width = config.output_features["action"].shape[0]

    def predict(batch: Batch) -> torch.Tensor:
        frames, embed = iter(cameras), eagle.language_model.get_input_embeddings()
        parts = [eagle.extract_feature(pixels(batch[next(frames)])) if s is None else embed(s) for s in segments]
        tokens = torch.cat([*parts, embed(batch[TOKENS])], 1)
        hidden = eagle.language_model.model(inputs_embeds=tokens, use_cache=False).last_hidden_state
        keep = torch.cat([torch.ones_like(before, dtype=torch.bool), batch[MASK]], 1)
        state = nn.functional.pad(batch[STATE], (0, config.max_state_dim - batch[STATE].shape[-1]))[:, None]
        return denoise(model.action_head, model.backbone.eagle_linear(hidden), keep, state, batch[EMBODIMENT],
                       batch[NOISE])[..., :width]

    return predict


def _segments(ids: torch.Tensor, image: int) -> list[torch.Tensor | None]:
    """Runs of text tokens [1,n], with None for each image's run of image tokens, which the template encloses in
    text."""
    flags, runs, begin = (ids[0] == image).tolist(), [], 0
    for i in range(1, len(flags) + 1):
        if i == len(flags) or flags[i] != flags[begin]:
            runs.append(None if flags[begin] else ids[:, begin:i])
            begin = i
    return runs


def denoise(head: nn.Module, seen: torch.Tensor, keep: torch.Tensor, state: torch.Tensor, embodiment: torch.Tensor,
            actions: torch.Tensor) -> torch.Tensor:
    """FlowmatchingActionHead.get_action (LeRobot 0.4.4) from given noise. seen [1,n,d], keep bool [1,n]: padding mask.
    actions [1,H,D]: noise at t=0, returned at t=1."""
    bias = torch.where(keep, 0.0, torch.finfo(torch.float32).min)[:, None]  # [1,1,n], added to scores
    seen = head.vlln(seen)
    for block in head.vl_self_attention.transformer_blocks:
        seen = block(seen, attention_mask=bias)
    known = torch.cat([head.state_encoder(state, embodiment), head.future_tokens.weight[None]], 1)
    for step in range(head.num_inference_timesteps):
        time = torch.full((1,), int(step / float(head.num_inference_timesteps) * head.num_timestep_buckets))
        moving = head.action_encoder(actions, time, embodiment)
        if head.config.add_pos_embed:
            moving = moving + head.position_embedding(torch.arange(moving.shape[1]))[None]
        out = _transform(head.model, torch.cat([known, moving], 1), seen, bias, time)
        velocity = head.action_decoder(out, embodiment)[:, -head.action_horizon:]
        actions = actions + 1.0 / head.num_inference_timesteps * velocity
    return actions


def _transform(dit: nn.Module, x: torch.Tensor, seen: torch.Tensor, bias: torch.Tensor, time: torch.Tensor):
    """DiT.forward with a mask in the cross attention, which the original lacks."""
    condition = dit.timestep_encoder(time)
    for i, block in enumerate(dit.transformer_blocks):
        if i % 2 == 1 and dit.config.interleave_self_attention:
            x = block(x, temb=condition)
        else:
            x = block(x, attention_mask=bias, encoder_hidden_states=seen, temb=condition)
    shift, scale = dit.proj_out_1(nn.functional.silu(condition)).chunk(2, dim=1)
    return dit.proj_out_2(dit.norm_out(x) * (1 + scale[:, None]) + shift[:, None])


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


FAMILY = Family("lerobot.policies.groot.modeling_groot", "GrootPolicy", _bind, ready=_ready, make=_make, noise=_noise,
                complete=_complete, static=_static, tokens=_tokens,
                known_steps=frozenset({"groot_eagle_encode_v3", "groot_eagle_collate_v3"}),
                normalised_by=(PACK, UNPACK))
