"""What config.json of an OpenVLA checkpoint says beside sizes: read as the original reads it, or refused by name."""

from __future__ import annotations

from pathlib import Path

from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.openvla.model import BACKBONES, check_backbone
from vlacompile.frontends.tensor_files import TensorFiles
from vlart.errors import SourceError

EMBEDDING = "language_model.model.embed_tokens.weight"
TOKENS_OF_ACTIONS = {"n_action_bins": 256, "pad_to_multiple_of": 64}  # OpenVLAConfig's defaults
GENERATION = "generation_config.json"
# What changes the tokens that transformers' generate() gives, with the values that do not. temperature, top_k and top_p
# act only where do_sample is set.
UNCHANGED = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
             "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "suppress_tokens": None,
             "begin_suppress_tokens": None, "sequence_bias": None, "guidance_scale": None, "penalty_alpha": None,
             "diversity_penalty": 0.0, "num_beam_groups": 1, "forced_bos_token_id": None, "forced_eos_token_id": None,
             "exponential_decay_length_penalty": None, "min_new_tokens": None, "min_length": 0}
_FACTORY = "write a factory that returns vlacompile.Policy(...) around the model"


def check_config(config: dict, where: str) -> None:
    backbone = str(config.get("vision_backbone_id"))
    check_backbone(backbone, where)
    towers = BACKBONES[backbone]
    named = {"timm_model_ids": [t.timm for t in towers], "image_sizes": [t.side for t in towers],
             "use_fused_vision_backbone": len(towers) > 1}
    for key, value in named.items():
        if config.get(key, value) != value:
            raise SourceError(f"{key} = {config[key]!r} is not covered", where=where,
                              why=f'the original takes it from here, and "{backbone}" is read with {value!r}',
                              fix=_FACTORY)
    if config.get("quantization_config"):
        raise SourceError("the checkpoint is quantised", where=f"{where}: quantization_config",
                          why="transformers reads such weights with the library that quantised them, whose rounding "
                              "is part of the policy", fix="build the checkpoint that was quantised; --recipe chooses "
                                                           "the precision")
    layers = config.get("timm_override_act_layers") or ()
    if not isinstance(layers, list) or any(layer is not None for layer in layers):
        raise SourceError(f"timm_override_act_layers = {layers!r} is not covered", where=where,
                          why="the vision transformers are read with timm's own activations",
                          fix=_FACTORY)
    for key, default in TOKENS_OF_ACTIONS.items():
        value = config.get(key, default)
        if not isinstance(value, int) or value < 2:
            raise SourceError(f"{key} = {value!r} is no number of tokens", where=where,
                              why="it says which tokens are actions", fix="copy the checkpoint again, completely")


def check_tokens(config: dict, files: TensorFiles, where: str) -> None:
    """Actions are tokens at the vocabulary's end, before what it was padded with."""
    bins, padding = (config.get(k, v) for k, v in TOKENS_OF_ACTIONS.items())
    vocabulary = files.shapes.get(EMBEDDING, (0,))[0]
    if vocabulary and bins + padding > vocabulary:
        raise SourceError(f"the vocabulary has no {bins} tokens of actions", where=where,
                          why=f"it has {vocabulary}, of which pad_to_multiple_of = {padding} are no tokens",
                          fix="use config.json and weights of one training")


def check_generation(path: Path, config: dict) -> None:
    """Action tokens are the likeliest ones, as the original's evaluation asks for them. Raises SourceError where the
    files make generate() choose others: transformers takes that from generation_config.json, else from config.json."""
    file = path / GENERATION
    said, where = (read_json(file), file) if file.is_file() else (config, path / "config.json")
    for key, value in UNCHANGED.items():
        found = said.get(key, value)
        if found is not None and found not in (value, []):
            also = f", temperature = {said.get('temperature', 1.0)!r}" if key == "do_sample" else ""
            raise SourceError(f"{key} = {found!r} is not covered", where=str(where),
                              why=f"action tokens are chosen by the highest score{also and ', not drawn' + also}",
                              fix=f"remove {key}, if the robot was evaluated without it, as OpenVLA's code evaluates")
