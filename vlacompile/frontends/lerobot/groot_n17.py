"""GR00T N1.7 (NVIDIA 2026) as LeRobot 0.6 carries it: Qwen3-VL, and a DiT with weights of its own for every embodiment.

As with N1.5, a LeRobot checkpoint has the weights, but not the sizes: they are read from the config.json that
`base_model_path` points to, and the backbone's from the model that it names. How numbers and frames are prepared is in
LeRobot's own steps of the preprocessor; how actions are decoded in one of two steps of the postprocessor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.groot.downloads import downloaded
from vlacompile.frontends.groot.frames import Geometry
from vlacompile.frontends.groot.groups import MIN_MAX, Group, Scale
from vlacompile.frontends.groot.n17 import TEXT_TOKENS, sampler, tokens_of
from vlacompile.frontends.groot.robot import Robot
from vlacompile.frontends.groot.statistics import action_groups
from vlacompile.frontends.lerobot.checkpoint import Checkpoint, Tokenization
from vlacompile.frontends.lerobot.files import POSTPROCESSOR, PREPROCESSOR, read_json, read_tensors
from vlacompile.frontends.lerobot.read import MASK, NOISE, STATE, TOKENS, Batch, Family, Predict, normal
from vlacompile.frontends.lerobot.statistics import choose_normalisation
from vlart.errors import SourceError

SINCE = {"pretrained_revision", "num_inference_timesteps"}  # keys of config.json that came with N1.7, LeRobot 0.6.0
PACK, ENCODE = "groot_n1_7_pack_inputs_v1", "groot_n1_7_vlm_encode_v1"
DECODE, UNPACK = "groot_n1_7_action_decode_v1", "groot_action_unpack_unnormalize_v2"
EMBODIMENT, IMAGES = "embodiment_id", "observation.images."
ALIASES = {"wrist_image": "image2"}  # LeRobot's, of LIBERO's datasets
LIBERO = "libero"
NAMED_BY = "config.json: base_model_path"
_AGAIN = "copy the directory that the training wrote again, whole"


def _ready(config) -> None:
    config.use_bf16 = False


def _base(config) -> dict:
    return read_json(downloaded(config.base_model_path, "config.json", NAMED_BY))


def _make(policy_class: type, config) -> nn.Module:
    """LeRobot's policy with random weights, of the sizes of the base model."""
    from lerobot.policies.groot.groot_n1_7 import GR00TN17, GR00TN17Config

    settings = GR00TN17Config(**_base(config))
    settings.use_flash_attention = settings.load_bf16 = False
    if config.num_inference_timesteps is not None:
        settings.num_inference_timesteps = config.num_inference_timesteps

    class Groot(policy_class):
        def _create_groot_model(self):
            local = {"local_files_only": True}
            return GR00TN17(settings, transformers_loading_kwargs=local, load_backbone_weights=False)

    Groot.__name__ = policy_class.__name__
    return Groot(config)


def _step(checkpoint: Checkpoint, *names: str) -> dict:
    return next(s for s in checkpoint.steps if s["registry_name"] in names)


def _bind(policy, checkpoint: Checkpoint) -> Predict:
    sample, config = sampler(policy._groot_model, robot_of(checkpoint)), policy.config
    cameras = {c: c.removeprefix(IMAGES) for c in config.image_features}

    def predict(batch: Batch) -> torch.Tensor:
        # LeRobot converts back to uint8, rounding down
        frames = {short: torch.floor(batch[c].clamp(0.0, 1.0) * 255.0) for c, short in cameras.items()}
        return sample(frames, batch[TOKENS], batch[MASK], batch[STATE], batch[EMBODIMENT], batch[NOISE])

    return predict


def robot_of(checkpoint: Checkpoint) -> Robot:
    """Raises SourceError."""
    pack, encode = _step(checkpoint, PACK)["config"], _step(checkpoint, ENCODE)["config"]
    decode, where = _step(checkpoint, DECODE, UNPACK), checkpoint.path
    cameras = _cameras(checkpoint, pack.get("video_modality_keys"))
    sizes = [tuple(encode[k]) if encode.get(k) else None for k in ("image_target_size", "image_crop_size")]
    geometry = Geometry("opencv" if encode.get("use_albumentations") else "lerobot", *sizes,
                        encode.get("shortest_image_edge"), encode.get("crop_fraction"),
                        bool(encode.get("letter_box_transform")))
    state = Group(STATE, _flat(checkpoint, PACK, STATE, checkpoint.inputs[STATE].shape[0],
                               bool(pack.get("clip_outliers", True))))
    width, config = checkpoint.action.shape[0], decode["config"]
    if decode["registry_name"] == DECODE:
        actions = action_groups(where / POSTPROCESSOR, config["raw_stats"] or {}, config["modality_config"] or {},
                                bool(config.get("use_relative_action")), bool(config.get("use_percentiles")))
        gripper = next((i for i, name in enumerate(_names(actions)) if name == "gripper"), None)
        grip = gripper if config.get("action_decode_transform") == LIBERO else None
    else:
        actions = [Group("action", _flat(checkpoint, UNPACK, "action", width, True))]
        grip = width - 1 if config.get("libero_gripper_action") else None
    if sum(g.scale.size for g in actions) != width:
        raise SourceError('statistics of "action" do not fit it', where=str(where / POSTPROCESSOR),
                          why=f"they are of {sum(g.scale.size for g in actions)} numbers, config.json says {width}",
                          fix="use config.json and the processors of one training")
    return Robot(cameras, geometry, bool(pack.get("formalize_language", True)), [state], actions,
                 _steps(checkpoint, decode), encode["model_name"],
                 f"{PREPROCESSOR}: model_name of {ENCODE}", (0,) * max(1, pack.get("video_horizon") or 1), grip)


def _names(groups: list[Group]) -> list[str]:
    return [g.name for g in groups for _ in range(g.scale.size)]


def _flat(checkpoint: Checkpoint, step: str, name: str, size: int, clip: bool) -> Scale:
    """Of all numbers at once, from a step's file."""
    own = _step(checkpoint, step)
    file = checkpoint.path / (PREPROCESSOR if step == PACK else POSTPROCESSOR)
    tensors = read_tensors(checkpoint.path / own["state_file"]) if "state_file" in own else {}
    low, high = choose_normalisation(file, name, "MIN_MAX_OR_ZERO", tensors, 0.0).statistics.values()
    if low.numel() != size:
        raise SourceError(f'statistics of "{name}" do not fit it', where=str(file),
                          why=f"they are of {low.numel()} numbers, config.json says {size}",
                          fix="use config.json and the processors of one training")
    return Scale(MIN_MAX, low.float(), high.float(), high != low, clip)


def _cameras(checkpoint: Checkpoint, ordered: list[str] | None) -> dict[str, tuple[int, int]]:
    """In the order of the prompt: as the checkpoint was trained, or by name. Raises SourceError if names do not fit."""
    there = {c.removeprefix(IMAGES): checkpoint.inputs[c].shape[1:] for c in checkpoint.images()}
    wanted = [next((n for n in (key, ALIASES.get(key, key)) if n in there), key) for key in ordered or sorted(there)]
    if set(wanted) != set(there):
        raise SourceError("the cameras are not those of the training", where=f"{checkpoint.path}: input_features",
                          why=f"{PREPROCESSOR} has {', '.join(wanted)}; config.json has {', '.join(sorted(there))}",
                          fix="use one naming of cameras in both files (rename_map in the preprocessor)")
    return {name: (there[name][0], there[name][1]) for name in wanted}


def _steps(checkpoint: Checkpoint, decode: dict) -> int:
    """Of a chunk, that predict_action_chunk and the postprocessor leave."""
    config, told = checkpoint.config, (decode["config"].get("modality_config") or {}).get("action", {})
    limits = [config["chunk_size"], config["n_action_steps"], len(told.get("delta_indices") or ()), _trained(config)]
    return min(n for n in limits if n)


def _trained(config: dict) -> int | None:
    """The base checkpoint's horizon for this embodiment."""
    file = Path(config.get("base_model_path") or "") / "processor_config.json"
    robots = (read_json(file).get("processor_kwargs") or {}).get("modality_configs", {}) if file.is_file() else {}
    return len(robots.get(config.get("embodiment_tag"), {}).get("action", {}).get("delta_indices", ())) or None


def _execute(config) -> int:
    """As many as LeRobot's queue executes of a chunk."""
    from lerobot.policies.groot.configuration_groot import infer_groot_n1_7_action_execution_horizon

    known = infer_groot_n1_7_action_execution_horizon(config.base_model_path, config.embodiment_tag)
    return min(n for n in (config.n_action_steps, known) if n)


def _complete(checkpoint: Checkpoint) -> Checkpoint:
    """Raises SourceError if a step of its own is missing or does not normalise, or statistics do not fit."""
    names = {s["registry_name"] for s in checkpoint.steps}
    for file, needed, why in (
            (PREPROCESSOR, {PACK}, "the policy would get raw numbers"),
            (PREPROCESSOR, {ENCODE}, "it says how frames and instruction are given to the backbone"),
            (POSTPROCESSOR, {DECODE, UNPACK}, "the robot would get normalised numbers as actions")):
        if not needed & names:
            raise SourceError(f"{file} has no step {' or '.join(sorted(needed))}", where=str(checkpoint.path), why=why,
                              fix=_AGAIN)
    for step, file in ((PACK, PREPROCESSOR), (UNPACK, POSTPROCESSOR)):
        if step in names and not _step(checkpoint, step)["config"].get("normalize_min_max", True):
            raise SourceError(f"{step} does not normalise", where=str(checkpoint.path / file),
                              why="this policy computes with normalised numbers", fix=_AGAIN)
    rule = Tokenization(_step(checkpoint, ENCODE)["config"]["model_name"], TEXT_TOKENS, "right", False)
    read = replace(checkpoint, tokenization=rule)
    robot_of(read)
    return read


def _tokens(checkpoint: Checkpoint, instruction: str) -> Batch:
    ids, mask = tokens_of(robot_of(checkpoint), instruction or "Perform the task.")
    return {TOKENS: ids, MASK: mask}


def _static(checkpoint: Checkpoint) -> Batch:
    pack = _step(checkpoint, PACK)["config"]
    return {EMBODIMENT: torch.tensor([pack["embodiment_mapping"].get(pack["embodiment_tag"], 0)])}


def _noise(config) -> Batch:
    base = _base(config)
    return {NOISE: normal(1, base.get("action_horizon", 40), base.get("max_action_dim", 132))}


FAMILY = Family("lerobot.policies.groot.modeling_groot", "GrootPolicy", _bind, reads_steps=True, ready=_ready,
                make=_make, noise=_noise, execute=_execute, complete=_complete, static=_static, tokens=_tokens,
                known_steps=frozenset({ENCODE}), normalised_by=(PACK, DECODE), only="lerobot061")


def family(path: Path) -> Family:
    """By the step that decodes actions: LeRobot writes the one or the other."""
    steps = read_json(path / POSTPROCESSOR).get("steps", []) if (path / POSTPROCESSOR).is_file() else []
    flat = any(isinstance(s, dict) and s.get("registry_name") == UNPACK for s in steps)
    return replace(FAMILY, normalised_by=(PACK, UNPACK)) if flat else FAMILY
