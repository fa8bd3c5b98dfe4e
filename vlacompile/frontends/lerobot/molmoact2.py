"""MolmoAct2 (Allen AI 2026): a vision-language model, and an expert for actions whose layers read its layers' keys and
values, sampled by Euler's method.

LeRobot's preprocessor writes the state's numbers into the prompt and cuts frames into crops, both by NumPy, which no
graph contains. Here both are tensor functions, and what depends on the instruction and on sizes alone is still made by
LeRobot's own code. Where that ends with an error because a number that is not normalised (a gripper's) is beyond
[-1, 1], a graph computes on.
Of the model that the training began with, whose weights the checkpoint has, only the small files are read.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import nn

from vlacompile.frontends.lerobot import generic
from vlacompile.frontends.lerobot.read import STATE
from vlacompile.frontends.lerobot.statistics import MASKED
from vlart.errors import SourceError

PACKAGE = "lerobot.policies.molmoact2"
DESCRIPTIONS = ["*.json", "*.jinja", "*.txt"]  # of a repository: configuration, processor, tokenizer; no weights
WHOLE = "resize"  # of the ways to cut frames, the one without crops


def _ready(config) -> None:
    """Raises SourceError for a policy whose actions are tokens."""
    modes = config.inference_action_mode, config.action_mode
    if "discrete" in modes:
        raise SourceError("actions as tokens are not compiled for MolmoAct2",
                          where="config.json: {}".format(("inference_action_mode", "action_mode")[
                              modes.index("discrete")]),
                          why="it writes until it writes an end, and another repository's code decodes what it wrote",
                          fix='train with action_mode "both" or "continuous", and let inference_action_mode be '
                              '"continuous"')
    config.inference_action_mode = "continuous"  # of a policy that was trained for both
    config.model_dtype = "float32"
    config.pretrained_path = None


def _described(name: str, revision: str | None = None, force_download: bool = False) -> str:
    """In place of LeRobot's function, which downloads the weights too."""
    from huggingface_hub import snapshot_download

    if Path(name).expanduser().exists():
        return str(Path(name).expanduser())
    return snapshot_download(name, revision=revision, force_download=force_download, allow_patterns=DESCRIPTIONS)


@contextlib.contextmanager
def _made_of_sizes() -> Iterator[None]:
    modeling = importlib.import_module(f"{PACKAGE}.modeling_molmoact2")
    with mock.patch.object(modeling, "_resolve_checkpoint_location", _described), \
            mock.patch.object(modeling, "_strict_load_safetensors_weights", lambda model, place: None):
        yield


def _make(policy_class: type, config) -> nn.Module:
    with _made_of_sizes():
        return generic.FAMILY.make(policy_class, config)


def _load(policy_class: type, config, path: Path) -> tuple[nn.Module, list[str], list[str]]:
    assert generic.FAMILY.load is not None
    with _made_of_sizes():
        return generic.FAMILY.load(policy_class, config, path)


@contextlib.contextmanager
def within() -> Iterator[None]:
    """Within this context LeRobot's processor and policy compute with tensors alone."""
    processor, modeling = (importlib.import_module(f"{PACKAGE}.{name}_molmoact2") for name in ("processor", "modeling"))
    expert = importlib.import_module(f"{PACKAGE}.molmoact2_hf_model.modeling_molmoact2").ActionExpert
    unchecked = staticmethod(lambda tensor, mask, key: None)

    def modulations(self, times, cache_key):  # of weights alone, and kept by LeRobot from one chunk to the next
        return self.prepare_modulation_cache(times)

    with contextlib.ExitStack() as stack:
        for place, name, ours in (
                (processor, "_resolve_checkpoint_location", _described),
                # of recorded actions, which only a training has
                (processor, "UniversalActionProcessor", SimpleNamespace(from_pretrained_local=lambda name: None)),
                (processor.MolmoAct2PackInputsProcessorStep, "__call__", _pack),
                (processor.MolmoAct2ClampNormalizedProcessorStep, "_validate_masked_passthrough_range", unchecked),
                (processor._MolmoAct2MaskedNormalizationMixin, "_validate_masked_passthrough_range", unchecked),
                (modeling.MolmoAct2Policy, "predict_action_chunk", _chunk),
                (expert, "get_or_prepare_modulation_cache", modulations)):
            stack.enter_context(mock.patch.object(place, name, ours))
        yield


def _pack(step, transition: dict) -> dict:
    """In place of MolmoAct2PackInputsProcessorStep.__call__, for one robot's observation. The prompt is LeRobot's, with
    an example of a state; the state's own tokens are beside it."""
    from lerobot.lerobot_types import TransitionKey

    transition = dict(transition)
    observation = transition[TransitionKey.OBSERVATION]
    told = dict(transition[TransitionKey.COMPLEMENTARY_DATA])
    frames = [observation[key] for key in step._resolve_image_keys(observation)]
    state = observation[STATE].to(torch.float32)
    shapes = [tuple(frame.shape[-2:]) for frame in frames]
    low, high = (_prompt(step, told["task"], shapes, np.full(state.shape[-1], value)) for value in (-1.0, 1.0))
    places = (low["input_ids"] != high["input_ids"])[0].nonzero()[:, 0].tolist()
    if places != list(range(places[0], places[0] + state.shape[-1])):
        raise SourceError("the state's numbers are not one token each", where=f"{step.checkpoint_path}: tokenizer",
                          why=f"{state.shape[-1]} numbers change {len(places)} tokens of the prompt",
                          fix="use the tokenizer that the policy was trained with, which has <state_0> and so on")
    names = [f"<state_{i}>" for i in range(step.num_state_tokens)]
    table = torch.tensor(step.processor.tokenizer.convert_tokens_to_ids(names))
    place = torch.clamp(torch.nan_to_num(state, 0.0, 1.0, -1.0), -1.0, 1.0)
    place = torch.round((place + 1.0) / 2.0 * float(step.num_state_tokens - 1)).to(torch.int64)
    pixels = [_crops(frame, step.processor.image_processor) for frame in frames]
    padded = torch.arange(step.max_action_dim)[None] >= int(step.env_action_dim or 0)
    transition[TransitionKey.COMPLEMENTARY_DATA] = told | low | {
        "pixel_values": torch.cat(pixels), "state_tokens": table[place], "state_begins": places[0],
        "action_dim_is_pad": padded}
    return transition


def _prompt(step, task: list[str] | str, shapes: list[tuple[int, ...]], state: np.ndarray) -> dict:
    """What LeRobot's own code makes of black frames. Raises SourceError."""
    of = importlib.import_module(f"{PACKAGE}.processor_molmoact2")
    task = of._as_text_list(task, 1)[0]
    text = of._build_robot_text(
        task=of._normalize_question_text(task) if step.normalize_language else task,
        discrete_state_string=of._build_discrete_state_string(state, step.num_state_tokens),
        setup_type=step.setup_type, control_mode=step.control_mode, add_setup_tokens=step.add_setup_tokens,
        add_control_tokens=step.add_control_tokens, num_images=len(shapes))
    black = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
    made = dict(step.processor(text=[text], images=black, return_tensors="pt", padding=True))
    longest = step._resolve_max_sequence_length(
        num_images=len(shapes), state_dim=len(state), action_dim=max(int(step.env_action_dim or 0), 1),
        action_horizon=step.chunk_size, include_discrete_action=False)
    if made["input_ids"].shape[1] > longest:
        raise SourceError("the instruction is too long for this policy", where=f"instruction {task[:60]!r}",
                          why=f"its prompt has {made['input_ids'].shape[1]} tokens, of {longest} that LeRobot allows",
                          fix="shorten the instruction")
    return made


def _crops(frame: torch.Tensor, processor) -> torch.Tensor:
    """As image_to_patches_and_grids of MolmoAct2's image processor. frame: f32 [1,3,H,W] in [0, 1]; [crops, patches,
    numbers of a patch]."""
    of = importlib.import_module(f"{PACKAGE}.molmoact2_hf_model.image_processing_molmoact2")
    levels = torch.floor(torch.clamp(frame[0] * 255.0, 0.0, 255.0))
    side, patch = processor.size["height"], processor.patch_size
    crops = [_resized(levels, [side, processor.size["width"]], processor)]
    if processor.crop_mode != WHOLE:
        margin = patch * sum(processor.overlap_margins)
        window = side // patch * patch - margin
        rows, columns = map(int, of.select_tiling(levels.shape[1] - margin, levels.shape[2] - margin, window,
                                                  processor.max_crops))
        large = _resized(levels, [rows * window + margin, columns * window + margin], processor)
        crops += [large[:, i * window: i * window + side, j * window: j * window + side]
                  for i in range(rows) for j in range(columns)]
    x = torch.stack(crops)
    across = [size // patch for size in x.shape[2:]]
    x = x.reshape(len(crops), 3, across[0], patch, across[1], patch).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(len(crops), across[0] * across[1], -1)


def _resized(levels: torch.Tensor, size: list[int], processor) -> torch.Tensor:
    """levels: [3,H,W] whole numbers from 0 to 255. Normalised, as resize_image and normalize_image make it."""
    from torchvision.transforms import Resize

    found = Resize(size, processor.resample, antialias=False)(levels)
    found = torch.clamp(torch.round(found), 0.0, 255.0) / 255.0
    mean, deviation = (torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 1) for x in (
        processor.image_mean, processor.image_std))
    return (found - mean) / deviation


def _chunk(policy, batch: dict, **options) -> torch.Tensor:
    """In place of MolmoAct2Policy.predict_action_chunk: the state's tokens take the places of the example's."""
    model = policy._backbone()
    seen = {key: batch[key] for key in ("pixel_values", "image_token_pooling", "image_grids", "image_num_crops")}
    images, pooling = model.merge_visual_inputs(batch["input_ids"], **seen)
    embedded, _ = model.build_input_embeddings(batch["input_ids"], images, pooling)
    first, tokens = batch["state_begins"], batch["state_tokens"]
    embedded = torch.cat([embedded[:, :first], model.transformer.wte(tokens), embedded[:, first + tokens.shape[1]:]], 1)
    read = model(inputs_embeds=embedded, attention_mask=batch["attention_mask"],
                 token_type_ids=batch.get("token_type_ids"), use_cache=True)
    # the example's tokens say what of the prompt actions may attend to; no state is among that
    actions = model.generate_actions_from_inputs(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
        encoder_kv_states=model._extract_kv_states(read.past_key_values), action_dim_is_pad=batch["action_dim_is_pad"],
        action_horizon=policy._generation_action_horizon(), num_steps=policy.config.num_inference_steps)
    return actions[:, :policy.config.n_action_steps, :policy._output_action_dim(batch)]


FAMILY = replace(generic.FAMILY, ready=_ready, make=_make, load=_load, within=within, normalised_by=MASKED)
