"""GR00T N1.6 of one robot: frames, instruction and state in, actions in robot units out.

Which cameras, how frames are prepared, how numbers are normalised: `Robot`. The rest of N1.6 is N1.7's action head.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.groot import eagle3
from vlacompile.frontends.groot.action_head import denoise
from vlacompile.frontends.groot.downloads import downloaded
from vlacompile.frontends.groot.groups import decoded_actions, normalised_state
from vlacompile.frontends.groot.qwen3 import Pixels
from vlacompile.frontends.groot.robot import Robot, Tokens, padded
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.prompt_runs import runs
from vlacompile.frontends.resize import Size, resize
from vlart.errors import SourceError

TEXT_TOKENS = 80  # up to the first image: system prompt, instruction, name of the image
LEAST, MOST = 4 * 28**2, 4096 * 28**2  # pixels of an image, in NVIDIA's code
_GET = "copy gr00t/model/modules/NAME of Isaac-GR00T's code at N1.6 to NAME in the current directory"


@dataclass(frozen=True)
class Assets:
    """Of the directory in NVIDIA's code. image, start: ids of an image's tokens, and of the one before them. side: of
    the square of pixels that a token is of."""

    tokenizer: object
    template: str
    settings: dict
    image: int
    start: int
    side: int
    pixels: Pixels


def asset(robot: Robot, name: str) -> Path:
    """Raises SourceError."""
    return downloaded(robot.processor, name, robot.named_by, _GET.replace("NAME", robot.processor))


@functools.cache
def _assets(folder: Path) -> Assets:
    from transformers import AutoTokenizer

    images, settings, template = (read_json(folder / f"{n}.json") for n in ("preprocessor_config", "processor_config",
                                                                            "chat_template"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start, image = (tokenizer.convert_tokens_to_ids(settings[f"image_{k}token"]) for k in ("start_", ""))
    side = math.isqrt(settings["pixels_per_token"])
    if images.get("do_resize") or images.get("do_center_crop"):
        raise SourceError("images are resized by the processor", where=str(folder / "preprocessor_config.json"),
                          why="GR00T N1.6 gives them in the size that they have", fix="use the files of N1.6's code")
    pixels = Pixels(side, 1, LEAST, MOST, images["rescale_factor"], tuple(images["image_mean"]),
                    tuple(images["image_std"]))
    return Assets(tokenizer, template["chat_template"], settings, image, start, side, pixels)


def assets_of(robot: Robot) -> Assets:
    """Raises SourceError."""
    for name in ("preprocessor_config.json", "processor_config.json", "chat_template.json"):
        asset(robot, name)
    return _assets(asset(robot, "tokenizer_config.json").parent)


def _image_sizes(robot: Robot) -> list[Size]:
    """Of every image of the prompt, as the vision tower gets it."""
    pixels = assets_of(robot).pixels
    return [pixels.size(size) for size in robot.prepared_sizes()]


def prompt(robot: Robot, instruction: str) -> tuple[list[int], list[int]]:
    """Token ids up to the first image, and those from it on, which are the same for every instruction. Raises
    SourceError."""
    made, sizes = assets_of(robot), _image_sizes(robot)
    words = {"type": "text", "text": robot.said(instruction)}
    talk = [{"role": "user", "content": [words, *[{"type": "image"}] * len(sizes)]}]
    text = made.tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=False,
                                              chat_template=made.template)
    name, settings = made.settings.get("image_placeholder", "image"), made.settings
    found: list[int] = []

    def placed(match: re.Match) -> str:
        number = int(match[1])
        found.append(number)
        count = eagle3.tokens_in(sizes[number - 1], made.side) if 0 < number <= len(sizes) else 0
        return (f"<{name} {number}>{settings['image_start_token']}{settings['image_token'] * count}"
                f"{settings['image_end_token']}")

    ids = made.tokenizer(re.sub(rf"<{name}-(\d+)>", placed, text))["input_ids"]
    if found != list(range(1, len(sizes) + 1)) or ids.count(made.start) != len(sizes):
        raise SourceError("the prompt does not have a placeholder for every image", where=robot.processor,
                          why=f"{len(sizes)} images; template and instruction give {len(found)}",
                          fix=f"use the files of N1.6's code, and an instruction without <{name}-1>")
    begin = ids.index(made.start)
    return ids[:begin], ids[begin:]


def tokens_of(robot: Robot, instruction: str) -> Tokens:
    """The host's part. Raises SourceError."""
    return padded(prompt(robot, instruction)[0], TEXT_TOKENS, instruction, before=True)


def sampler(model: nn.Module, robot: Robot) -> Callable[..., torch.Tensor]:
    """model: with `backbone.model` an Eagle3 and `action_head` LeRobot's of N1.7. Returns the function of (frames
    {camera: as `Robot.prepared` takes them}, tokens, mask, state [1,d] in robot units, embodiment [1], noise [1,H,D])
    that gives actions [1,steps,d] in robot units."""
    after, pixels = prompt(robot, "")[1], assets_of(robot).pixels
    eagle, head = model.backbone.model, model.action_head
    parts = runs(after, eagle.image_token)
    image = eagle3.image_mask(TEXT_TOKENS, after, eagle.image_token) if head.config.use_alternate_vl_dit else None
    size = head.config.max_state_dim

    def look(ready: torch.Tensor) -> torch.Tensor:
        return eagle.see(pixels.normalised(resize(ready, pixels.size((ready.shape[-2], ready.shape[-1])), "pillow")))

    def sample(frames, tokens, mask, state, embodiment, noise) -> torch.Tensor:
        seen = eagle.features(tokens, mask, [look(ready) for ready in robot.prepared(frames)], parts)
        keep = torch.cat([mask, torch.ones(1, len(after), dtype=torch.bool)], 1)
        numbers = normalised_state(robot.state, state, size)[:, None]
        actions = denoise(head, seen, keep, numbers, embodiment, noise, image)
        return decoded_actions(robot.actions, actions[:, : robot.steps], state)

    return sample
