"""GR00T N1.5: Eagle 2.5 (SigLIP 2, some layers of Qwen3) and an action head, as LeRobot 0.4.4 carries them.

Neither LeRobot's nor NVIDIA's checkpoints contain Eagle's sizes, tokenizer and image settings: `Eagle` names where they
are. Its code is LeRobot's own copy; no downloaded code is executed. The text of the prompt comes after its images, so
that all tokens up to the last image are the same for every instruction; the policy's input is the rest, padded. The
original does not pad, and attends to all tokens: here padding is masked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.groot.action_head import denoise
from vlacompile.frontends.groot.downloads import downloaded
from vlacompile.frontends.groot.robot import Tokens, padded
from vlacompile.frontends.groot.unread import Unread
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.prompt_runs import runs
from vlart.errors import SourceError

TEXT_TOKENS = 64  # after the last image: instruction, end of turn
ONE_TILE = {"min_dynamic_tiles": 1, "max_dynamic_tiles": 1, "use_thumbnail": False}


@dataclass(frozen=True)
class Eagle:
    """assets: repository or directory of its small files. named_by: where it is named."""

    assets: str
    named_by: str

    def file(self, name: str) -> Path:
        return downloaded(self.assets, name, self.named_by)

    @property
    def side(self) -> int:
        """Of the frames that it takes."""
        return processor(self).image_processor.size["height"]


def model_of(settings: dict, eagle: Eagle) -> nn.Module:
    """LeRobot's GR00TN15 with random weights. settings: the model's config.json."""
    from lerobot.policies.groot import groot_n1

    backbone = groot_n1.EagleBackbone
    groot_n1.EagleBackbone = functools.partial(_backbone, backbone, eagle)
    try:
        return groot_n1.GR00TN15(groot_n1.GR00TN15Config(**settings | {"compute_dtype": "float32"}),
                                 local_model_path="")
    finally:
        groot_n1.EagleBackbone = backbone


def _backbone(original: type, eagle: Eagle, select_layer: int, project_to_dim: int | None = 1536,
              **training) -> nn.Module:
    """EagleBackbone with its modules, bypassing its constructor, which downloads files."""
    from lerobot.policies.groot.eagle2_hg_model.configuration_eagle2_5_vl import Eagle25VLConfig
    from lerobot.policies.groot.eagle2_hg_model.modeling_eagle2_5_vl import Eagle25VLForConditionalGeneration
    from transformers import Qwen3ForCausalLM, SiglipVisionModel

    config = Eagle25VLConfig(**read_json(eagle.file("config.json")) | {"_attn_implementation": "eager"})
    config.text_config.num_hidden_layers = select_layer  # the original drops the other layers
    for part in (config.vision_config, config.text_config):
        part._attn_implementation = "eager"
    backbone = original.__new__(original)
    nn.Module.__init__(backbone)
    backbone.eagle_model = Eagle25VLForConditionalGeneration(config, SiglipVisionModel(config.vision_config),
                                                             Qwen3ForCausalLM(config.text_config))
    backbone.eagle_model.language_model.lm_head = Unread()
    width = config.text_config.hidden_size
    backbone.eagle_linear = nn.Identity() if project_to_dim is None else nn.Linear(width, project_to_dim)
    backbone.select_layer, backbone.tune_llm, backbone.tune_visual = select_layer, False, False
    return backbone


@functools.cache
def processor(eagle: Eagle):
    """LeRobot's copy of Eagle's processor, with the downloaded tokenizer and chat template."""
    from lerobot.policies.groot.eagle2_hg_model.image_processing_eagle2_5_vl_fast import Eagle25VLImageProcessorFast
    from lerobot.policies.groot.eagle2_hg_model.processing_eagle2_5_vl import Eagle25VLProcessor
    from transformers import AutoTokenizer

    images, settings = (read_json(eagle.file(f"{part}_config.json")) for part in ("preprocessor", "processor"))
    images = {k: v for k, v in images.items() if k not in ("auto_map", "image_processor_type", "processor_class")}
    settings = {k: v for k, v in settings.items() if k not in ("auto_map", "processor_class")}
    template = read_json(eagle.file("chat_template.json"))["chat_template"]
    tokenizer = AutoTokenizer.from_pretrained(eagle.file("tokenizer_config.json").parent, padding_side="left")
    return Eagle25VLProcessor(Eagle25VLImageProcessorFast(**images), tokenizer, chat_template=template, **settings)


def prompt(eagle: Eagle, cameras: int, instruction: str) -> tuple[list[int], list[int]]:
    """Token ids up to the last image, and those after it. The original says a list with the instruction."""
    from PIL import Image

    made = processor(eagle)
    images = [{"type": "image", "image": Image.new("RGB", (eagle.side,) * 2)}] * cameras
    talk = [{"role": "user", "content": [*images, {"type": "text", "text": str([instruction])}]}]
    text = made.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    seen, _ = made.process_vision_info(talk)
    ids = made(text=[text], images=seen, images_kwargs=ONE_TILE, return_tensors="pt")["input_ids"][0].tolist()
    end = len(ids) - ids[::-1].index(made.image_token_id)
    return ids[:end], ids[end:]


def tokens_of(eagle: Eagle, cameras: int, instruction: str) -> Tokens:
    """The host's part. Raises SourceError."""
    return padded(prompt(eagle, cameras, instruction)[1], TEXT_TOKENS, instruction)


def sampler(model: nn.Module, eagle: Eagle, cameras: int) -> Callable[..., torch.Tensor]:
    """model: LeRobot's GR00TN15. Returns the function of (frames: whole grey levels f32 [1,3,side,side] of each camera,
    tokens, mask, state [1,size] normalised and padded, embodiment [1], noise [1,H,D]) that gives normalised actions
    [1,H,D]."""
    before, own = torch.tensor([prompt(eagle, cameras, "")[0]]), model.backbone.eagle_model
    segments, places = runs(before[0].tolist(), own.image_token_index), (before == own.image_token_index).sum()
    if segments.count(None) != cameras or places != cameras * own.num_image_token:
        raise SourceError("the prompt does not have a placeholder for every image",
                          where=f"{eagle.named_by}: {eagle.assets}",
                          why=f"{cameras} cameras of {own.num_image_token} tokens; the template gives "
                              f"{segments.count(None)} runs of token {own.image_token_index}",
                          fix="use the processor files of this model")
    images = processor(eagle).image_processor
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) / images.rescale_factor for v in (images.image_mean,
                                                                                     images.image_std))

    def sample(frames: Sequence[torch.Tensor], tokens, mask, state, embodiment, noise) -> torch.Tensor:
        taken, embed = iter(frames), own.language_model.get_input_embeddings()
        parts = [own.extract_feature((next(taken) - mean) / std) if s is None else embed(s) for s in segments]
        hidden = own.language_model.model(inputs_embeds=torch.cat([*parts, embed(tokens)], 1),
                                          use_cache=False).last_hidden_state
        keep = torch.cat([torch.ones_like(before, dtype=torch.bool), mask], 1)
        return denoise(model.action_head, model.backbone.eagle_linear(hidden), keep, state[:, None], embodiment, noise)

    return sample
