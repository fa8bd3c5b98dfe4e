"""GR00T N1.7 of one robot: frames, instruction and state in, actions in robot units out.

Which cameras, how frames are prepared, how numbers are normalised: `Robot`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from vlacompile.frontends.groot.action_head import denoise
from vlacompile.frontends.groot.downloads import downloaded
from vlacompile.frontends.groot.groups import decoded_actions, normalised_state
from vlacompile.frontends.groot.qwen3 import Backbone, Pixels
from vlacompile.frontends.groot.robot import Robot, Tokens, padded
from vlacompile.frontends.resize import Size, resize
from vlart.errors import SourceError

TEXT_TOKENS = 64  # after the last image: the end of its tag, the instruction, the end of the turn
IMAGE_TOKEN = "<|image_pad|>"


@functools.cache
def _assets(processor: str, named_by: str):
    """(tokenizer, Pixels). Raises SourceError."""
    from transformers import AutoTokenizer, Qwen2VLImageProcessor

    tokenizer = AutoTokenizer.from_pretrained(downloaded(processor, "tokenizer_config.json", named_by).parent)
    images = Qwen2VLImageProcessor.from_pretrained(downloaded(processor, "preprocessor_config.json", named_by).parent)
    return tokenizer, Pixels.of(images)


def _image_sizes(robot: Robot) -> list[Size]:
    """Of every image of the prompt, as the vision tower gets it."""
    pixels = _assets(robot.processor, robot.named_by)[1]
    return [pixels.size(size) for size in robot.prepared_sizes()]


def prompt(robot: Robot, instruction: str) -> tuple[list[int], list[int]]:
    """Token ids up to the last image, and those after it. Raises SourceError."""
    tokenizer, pixels = _assets(robot.processor, robot.named_by)
    sizes = _image_sizes(robot)
    words = {"type": "text", "text": robot.said(instruction)}
    talk = [{"role": "user", "content": [*[{"type": "image"}] * len(sizes), words]}]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=False)
    between = text.split(IMAGE_TOKEN)
    if len(between) != len(sizes) + 1:
        raise SourceError("the prompt does not have a placeholder for every image", where=robot.processor,
                          why=f"{len(sizes)} images; the chat template gives {len(between) - 1}",
                          fix="use the processor files of this model")
    counts = [h * w // (pixels.patch * pixels.merge) ** 2 for h, w in sizes]
    text = between[0] + "".join(IMAGE_TOKEN * c + part for c, part in zip(counts, between[1:], strict=True))
    ids = tokenizer(text)["input_ids"]
    end = len(ids) - ids[::-1].index(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    return ids[:end], ids[end:]


def tokens_of(robot: Robot, instruction: str) -> Tokens:
    """The host's part. Raises SourceError."""
    return padded(prompt(robot, instruction)[1], TEXT_TOKENS, instruction)


def sampler(model: nn.Module, robot: Robot) -> Callable[..., torch.Tensor]:
    """model: LeRobot's GR00TN17. Returns the function of (frames {camera: as `Robot.prepared` takes them}, tokens,
    mask, state [1,d] in robot units, embodiment [1], noise [1,H,D]) that gives actions [1,steps,d] in robot units."""
    before, _ = prompt(robot, "")
    pixels = _assets(robot.processor, robot.named_by)[1]
    backbone = Backbone(model.backbone.model, before, _image_sizes(robot), TEXT_TOKENS)
    head = model.action_head
    alternate, size = model.config.use_alternate_vl_dit, model.config.max_state_dim

    def look(ready: torch.Tensor) -> torch.Tensor:
        return pixels.normalised(resize(ready, pixels.size((ready.shape[-2], ready.shape[-1])), "bicubic"))

    def sample(frames, tokens, mask, state, embodiment, noise) -> torch.Tensor:
        seen = backbone.features([look(ready) for ready in robot.prepared(frames)], tokens)
        keep = torch.cat([torch.ones(1, len(before), dtype=torch.bool), mask], 1)
        numbers = normalised_state(robot.state, state, size)[:, None]
        actions = denoise(head, seen, keep, numbers, embodiment, noise, backbone.image if alternate else None)
        return _gripped(robot, decoded_actions(robot.actions, actions[:, : robot.steps], state))

    return sample


def _gripped(robot: Robot, actions: torch.Tensor) -> torch.Tensor:
    """LIBERO's sign convention: 0 and 1 become 1 and -1."""
    if robot.grip is None:
        return actions
    grip = -torch.sign(2.0 * actions[..., robot.grip: robot.grip + 1] - 1.0)
    return torch.cat([actions[..., : robot.grip], grip, actions[..., robot.grip + 1:]], -1)
