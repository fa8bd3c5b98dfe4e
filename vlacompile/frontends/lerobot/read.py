"""A LeRobot checkpoint directory -> Policy: raw frames and joint state in, robot actions out."""

from __future__ import annotations

import contextlib
import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlacompile.frontends.checkpoint_options import NONE, OF_LEROBOT, CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS, Environment
from vlacompile.frontends.lerobot.adapter import base_of, merge
from vlacompile.frontends.lerobot.checkpoint import TOKENIZE, Checkpoint, Tokenization, read_checkpoint
from vlacompile.frontends.lerobot.files import POSTPROCESSOR, PREPROCESSOR, WEIGHTS, read_json, read_tensors
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.normalise import normalise, unnormalise
from vlacompile.frontends.lerobot.refused_types import require_not_refused
from vlacompile.frontends.lerobot.registered_types import require_registered
from vlacompile.frontends.lerobot.statistics import USUAL
from vlacompile.frontends.lerobot.unknown_settings import require_known_settings
from vlacompile.frontends.lerobot.versions import Reading
from vlacompile.frontends.lerobot.weight_numbers import require_finite_weights, require_real_weights
from vlacompile.frontends.lerobot.without_downloads import uninitialised
from vlacompile.policy.action_decoding import Decoder
from vlacompile.policy.host_encoding import HostEncoding
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Fit, Text
from vlart.errors import SourceError, VlaError

NOISE, NOISE_OF_STEPS = "noise", "noise.steps"  # the initial noise; the noise added after each step
STATE, WRITTEN = "observation.state", "written"  # an input; tokens that are decoded behind the graph
TOKENS, MASK = "observation.language.tokens", "observation.language.attention_mask"
OLD_STATISTICS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
EXAMPLE_INSTRUCTION = "pick up the object and put it in the bin"

Batch = dict[str, torch.Tensor]
Predict = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class Family:
    """Differences between policy types.

    module, policy: where the class is. bind: policy -> function of (batch as returned by LeRobot's preprocessor, noise
    or None) that returns normalised actions [1,H,action_dim]; what `bind` itself does is not traced. reads_steps: bind
    takes the checkpoint too, whose own processor steps it computes. noise: examples of
    the initial noise, given its config. history: number of observations that it reads, newest last.
    ensemble: decay of temporal ensembling, if the policy is used with it.
    solvers, bind_solver: names of the solvers that the policy can be sampled with, and `bind` for one of them and a
    number of evaluations. ready: sets what the config leaves to a download. make: the policy object from its class and
    config. load: that with the weights of a directory, where the class itself reads them; (policy, names of weights
    that are missing, of tensors that it does not know). weights: the file's tensors under the names of the policy
    object. prompt: (instruction, normalised state [d], checkpoint) -> text, for a policy that reads its state as text;
    tokens then change with every observation.
    tokens: the result of `tokens_of`, if the checkpoint's tokenizer alone does not give it. static: static inputs.
    settings: config.json as the LeRobot that is here reads it. tokenizer_of_old: what the code of LeRobot up to 0.3 did
    with an instruction, given the config; its checkpoints do not say it.
    read_as: makes the policy object compute by the rules of another version than the one that is here. only: the one
    environment that can build it, if LeRobot dropped the type.
    complete: the checkpoint with data that only this policy's processor steps hold. normalised_by: see read_checkpoint.
    decoder: how the runtime makes actions of the tokens i64 [1,n] that a function of `bind` then returns.
    within: what LeRobot's own code of a registered type runs in.
    registered: whether LeRobot's own names lead to class and processors, and its code to the whole policy.
    """

    module: str
    policy: str
    bind: Callable[..., Predict]
    registered: bool = False
    noise: Callable[[Any], dict[str, torch.Tensor]] = lambda config: {}
    history: Callable[[Any], int] = lambda config: 1
    execute: Callable[[Any], int] = lambda config: config.n_action_steps
    ensemble: Callable[[Any], float | None] = lambda config: None
    ready: Callable[[Any], None] = lambda config: None
    solvers: Callable[[Any], tuple[str, ...]] = lambda config: ()
    bind_solver: Callable[[Any, str, int], Predict] | None = None
    make: Callable[[type, Any], nn.Module] = lambda policy_class, config: policy_class(config)
    load: Callable[[type, Any, Path], tuple[nn.Module, list[str], list[str]]] | None = None
    weights: Callable[[nn.Module, Batch], Batch] = lambda policy, tensors: tensors
    prompt: Callable[[str, np.ndarray, Checkpoint], str] | None = None
    tokens: Callable[[Checkpoint, str], Batch] | None = None
    static: Callable[[Checkpoint], Batch] = lambda checkpoint: {}
    read_as: Callable[[nn.Module, Reading], None] = lambda policy, reading: None
    settings: Callable[[Checkpoint], dict] = lambda checkpoint: checkpoint.config
    tokenizer_of_old: Callable[[dict], Tokenization] | None = None
    only: str | None = None
    complete: Callable[[Checkpoint], Checkpoint] = lambda checkpoint: checkpoint
    decoder: Callable[[nn.Module, Checkpoint], Decoder] | None = None
    within: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    reads_steps: bool = False
    newline_steps: frozenset[str] = field(default=frozenset())
    known_steps: frozenset[str] = field(default=frozenset())
    normalised_by: tuple[str, str] = USUAL


# modules beside this one
FAMILIES = ("act", "diffusion", "fastwam", "groot", "molmoact2", "multi_task_dit", "pi0", "pi05", "pi0_fast",
            "smolvla", "vqbet", "wall_x")


def normal(*shape: int) -> torch.Tensor:
    """An example of normally distributed noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def uniform(*shape: int) -> torch.Tensor:
    """An example of random numbers in [0, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def family_of(kind: str, path: Path) -> Family:
    """The differences of a type with an adapter; of any other, that LeRobot itself says what it is. path: of the
    checkpoint, where one name stands for models that differ."""
    module = importlib.import_module(f"vlacompile.frontends.lerobot.{kind if kind in FAMILIES else 'generic'}")
    return module.family(path) if hasattr(module, "family") else module.FAMILY


def open_checkpoint(path: Path, weights: bool = True,
                    options: CheckpointOptions = NONE) -> tuple[Checkpoint, Family]:
    """Reads and checks the files, without LeRobot. weights: whether their file must exist. Raises SourceError."""
    options.require_only(str(path), *OF_LEROBOT)
    kind = read_json(path / "config.json").get("type")
    family = family_of(str(kind), path)
    if family.registered:
        require_not_refused(path, str(kind))
        require_registered(path, str(kind))
    elif options.instruction is not None:
        raise SourceError("--instruction does not apply to this policy", where=str(path / "config.json"),
                          why=f"the tokens of an instruction are inputs of a policy of type {kind}, if it takes any",
                          fix="build without --instruction, and write the instruction at run time")
    read = read_checkpoint(path, family.newline_steps, None if family.registered else family.known_steps, weights,
                           family.normalised_by, options)
    if read.old_statistics and family.tokenizer_of_old is not None:
        try:
            read = replace(read, tokenization=family.tokenizer_of_old(read.config))
        except KeyError as error:
            raise SourceError(f"config.json does not have {error}", where=str(path / "config.json"),
                              why="LeRobot up to 0.3 read there how to encode an instruction",
                              fix="use the config.json and model.safetensors of one training run") from error
    if (family.newline_steps or family.prompt) and read.tokenization is None:
        raise SourceError(f"{PREPROCESSOR} has no step {TOKENIZE}", where=str(path),
                          why="the policy takes an instruction, and its tokenizer is not declared",
                          fix="copy the checkpoint again, completely")
    return family.complete(read), family


def environments_of(checkpoint: Checkpoint, family: Family) -> tuple[Environment, ...]:
    """Those that can build it, the preferred one first: the newest LeRobot reads what earlier ones wrote, an earlier
    one only what has no newer keys and means what it computes itself."""
    earlier, ours = ENVIRONMENTS["lerobot"], ENVIRONMENTS["lerobot061"]
    if family.only is not None:
        return (ENVIRONMENTS[family.only],)
    return (ours, earlier) if checkpoint.reading.by_earlier else (ours,)


def needed_weights(path: Path, options: CheckpointOptions = NONE) -> str:
    """Why the checkpoint cannot be read without its weights; "" if it can. Raises SourceError."""
    if not any((path / f).is_file() for f in (PREPROCESSOR, POSTPROCESSOR)):
        return "they hold the statistics"
    open_checkpoint(path, False, options)
    return ""


def environments_for(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> tuple[Environment, ...]:
    """Raises SourceError for a checkpoint that no environment can read."""
    return environments_of(*open_checkpoint(path, weights, options))


def read_policy(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Policy:
    """weights: False reads only the shapes, within `weightless`. Raises SourceError for a checkpoint that cannot be
    read, or whose parts do not fit together."""
    checkpoint, family = open_checkpoint(path, weights, options)
    able = environments_of(checkpoint, family)
    if not any(e.is_here() for e in able):
        able[0].require()
    if checkpoint.adapter is not None and weights:
        checkpoint = replace(checkpoint, base=base_of(checkpoint.adapter, checkpoint.type))
    with lerobot_importable():
        original = load_original(checkpoint, family, weights)
    if family.registered:
        from vlacompile.frontends.lerobot.generic import policy_of as generic_policy_of

        return generic_policy_of(checkpoint, original, weights)
    return policy_of(checkpoint, family, original)


def load_original(checkpoint: Checkpoint, family: Family, weights: bool = True) -> torch.nn.Module:
    """LeRobot's own policy object with the checkpoint's weights, on the CPU, in fp32, in evaluation mode."""
    try:
        from lerobot.configs.policies import PreTrainedConfig

        require_known_settings(checkpoint, family.settings(checkpoint))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(family.settings(checkpoint)), encoding="utf-8")
            config = PreTrainedConfig.from_pretrained(folder, local_files_only=True)
        config.device = "cpu"
        family.ready(config)
        missing, extra = [], []
        place = checkpoint.path if checkpoint.base is None else checkpoint.base.path
        if weights and family.load is not None:
            policy, missing, extra = family.load(_class_of(family, config), config, place)
        else:
            with contextlib.nullcontext() if weights else uninitialised():
                policy = family.make(_class_of(family, config), config)
        if weights and family.load is None:
            tensors = {n: t for n, t in read_tensors(place / WEIGHTS).items()
                       if not n.startswith(OLD_STATISTICS)}
            missing, extra = load_weights(policy, family.weights(policy, tensors))
        family.read_as(policy, checkpoint.reading)
    except VlaError:
        raise
    except ImportError as error:
        raise SourceError("a package that this policy's code imports is missing", where=str(checkpoint.path),
                          why=str(error),
                          fix="install it beside LeRobot: vlacompile frontends --install "
                              f"{family.only or 'lerobot061'} --also PACKAGE") from error
    except Exception as error:  # the model's own code, draccus and safetensors raise many kinds of errors
        named = ".".join(map(str, getattr(error, "key_path", ())))  # the field that draccus could not read
        raise SourceError(f'LeRobot cannot read "{named}" of config.json' if named else
                          "LeRobot cannot build this policy", where=str(checkpoint.path),
                          why=_said(error),
                          fix=f"load it with LeRobot itself to see why; lerobot {version('lerobot')} is used here"
                          ) from error
    if missing or extra:
        odd = ", ".join([*missing, *extra][:3])
        raise SourceError(f"{WEIGHTS} does not fit config.json", where=str(checkpoint.path),
                          why=f"{len(missing)} weights missing, {len(extra)} unknown: {odd}",
                          fix="use the config.json and model.safetensors of one training run")
    policy = policy.float().eval().requires_grad_(False)
    if weights:
        require_real_weights(place / WEIGHTS, policy)
    if checkpoint.base is not None:
        assert checkpoint.adapter is not None
        merge(policy, checkpoint.adapter)
    if weights:
        require_finite_weights(place / WEIGHTS, policy)
    return policy


def _said(error: BaseException) -> str:
    """What it began with, in one line: draccus, PyTorch and safetensors say it last."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {' '.join(lines[:2]) if lines[0].endswith(':') else lines[0]}"


def _class_of(family: Family, config) -> type:
    if not family.registered:
        return getattr(importlib.import_module(family.module), family.policy)
    from lerobot.policies.factory import get_policy_class

    return get_policy_class(config.type)


def _with_solver(checkpoint: Checkpoint, family: Family, original: torch.nn.Module, solver: str,
                 evaluations: int) -> Policy:
    bind = family.bind_solver
    assert bind is not None
    sampled = replace(family, bind=lambda policy: bind(policy, solver, evaluations), solvers=lambda config: ())
    return policy_of(checkpoint, sampled, original)


def load_weights(policy: nn.Module, tensors: Batch) -> tuple[list[str], list[str]]:
    """Copy weights into a policy. Returns (missing weights, unknown tensors); a weight with two names, such as a tied
    embedding, counts as present if one of them is."""
    missing, extra = policy.load_state_dict(tensors, strict=False)
    own = policy.state_dict()
    there = {own[name].data_ptr() for name in tensors if name in own}
    return [name for name in missing if own[name].data_ptr() not in there], extra


def policy_of(checkpoint: Checkpoint, family: Family, original: torch.nn.Module) -> Policy:
    config = original.config
    history, noise, static = family.history(config), family.noise(config), family.static(checkpoint)
    predict = family.bind(original, checkpoint) if family.reads_steps else family.bind(original)
    features = {n: f for n, f in checkpoint.inputs.items() if family.prompt is None or n != STATE}
    offset = None if checkpoint.relative is None else torch.tensor(checkpoint.relative, dtype=torch.float32)
    decoder = None if family.decoder is None else family.decoder(original, checkpoint)

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        batch: Batch = {}
        for name, feature in features.items():
            x = inputs[checkpoint.robot_name(name)]
            if feature.type == "VISUAL":  # uint8 [...,H,W,3] -> f32 [...,3,H,W] in [0, 1]
                x = x.movedim(-1, -3).to(torch.float32) / 255.0
            batch[name] = normalise(x, checkpoint.normalise.get(name))
        batch |= {k: inputs[k] for k in (TOKENS, MASK, *noise, *static) if k in inputs}
        if decoder is not None:
            return {WRITTEN: predict(batch)}
        action = unnormalise(predict(batch), checkpoint.normalise.get("action"))
        if offset is not None:
            state = inputs[checkpoint.robot_name(STATE)][..., : len(offset)]
            action = action + (state * offset)[:, None]
        return {"action": action}

    names = [n for n in checkpoint.inputs if n in features or (n == STATE and offset is not None)]
    sources = {checkpoint.robot_name(n): Source("observation", history=history) for n in names}
    example = {checkpoint.robot_name(n): example_of(checkpoint, n, history) for n in names}
    if checkpoint.tokenization is not None:
        state = None if family.prompt is None else example_of(checkpoint, STATE, 1)[0]
        sources |= dict.fromkeys((TOKENS, MASK), Source("task" if state is None else "observation"))
        example |= tokens_of(checkpoint, EXAMPLE_INSTRUCTION, state)
    sources |= dict.fromkeys(noise, Source("step")) | dict.fromkeys(static, Source("static"))
    solvers = {s: partial(_with_solver, checkpoint, family, original, s) for s in family.solvers(config)}
    texts = texts_of(checkpoint)
    return Policy(checkpoint.type, observe, sources, example | noise | static, execute=family.execute(config),
                  ensemble=family.ensemble(config), solvers=solvers, texts=texts,
                  encoding=None if checkpoint.tokenization is None or texts else _encoding_of(checkpoint, family),
                  origin=origin_of(checkpoint), outputs=("action",) if decoder is None else (WRITTEN,), decoder=decoder)


def origin_of(checkpoint: Checkpoint) -> dict[str, str]:
    """What a person should know of how the files were understood, for the manifest."""
    reading, given = checkpoint.reading, checkpoint.options.spelled_out()
    found = {"written by": f"LeRobot {reading.written}",
             "computed as": f"LeRobot {reading.lerobot}, transformers {reading.transformers}"}
    found |= {"assumed": "; ".join(reading.open)} if reading.open else {}
    found |= {"tokenizer": _tokenizer_taken(checkpoint.tokenization.name)} if checkpoint.tokenization else {}
    joints = checkpoint.config.get("action_feature_names")
    found |= {"joints": ", ".join(joints)} if joints else {}
    found |= {"adapter of": checkpoint.base.origin} if checkpoint.base is not None else {}
    return found | ({"spelled out": " ".join(given)} if given else {})


def _tokenizer_taken(name: str) -> str:
    """Its name, with the commit that the Hub's cache held when it was loaded; of a directory its last part."""
    if Path(name).exists():
        return Path(name).name
    with lerobot_importable():
        from huggingface_hub import try_to_load_from_cache

        file = try_to_load_from_cache(name, "tokenizer_config.json")
    return f"{name}@{Path(file).parent.name}" if isinstance(file, str) else name


def texts_of(checkpoint: Checkpoint) -> dict[str, Text]:
    """The instruction, if its tokens follow from the text and the checkpoint's tokenizer alone: not if the state or
    images are part of the prompt, and not if the tokenizer cannot be compiled (one without a
    tokenizer.json)."""
    rule, family = checkpoint.tokenization, family_of(checkpoint.type, checkpoint.path)
    if rule is None or family.tokens is not None or family.prompt is not None:
        return {}
    original = _tokenizer_of(checkpoint)
    backend = getattr(original, "backend_tokenizer", None)
    if backend is None:
        return {}
    fit = Fit(original.pad_token_id, rule.padding_side, original.truncation_side)
    return {TOKENS: Text(backend.to_str(), MASK, fit, "\n" if rule.newline else "", examples=(EXAMPLE_INSTRUCTION,))}


def _encoding_of(checkpoint: Checkpoint, family: Family) -> HostEncoding:
    """The tokens of a dataset's observations, where the runtime cannot make them."""
    state, reads = checkpoint.robot_name(STATE), family.prompt is not None

    def encode(instruction: str, recorded: Mapping[str, np.ndarray]) -> Batch:
        return tokens_of(checkpoint, instruction, torch.from_numpy(recorded[state]) if reads else None)

    return HostEncoding((TOKENS, MASK), {state: checkpoint.inputs[STATE].shape} if reads else {}, encode)


def _tokenizer_of(checkpoint: Checkpoint):
    """The tokenizer that the checkpoint names, loaded by transformers. Raises SourceError."""
    rule = checkpoint.tokenization
    assert rule is not None
    with lerobot_importable():
        try:
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(rule.name)
        except Exception as error:  # transformers raises OSError, ValueError and the hub's errors
            raise SourceError(f'the tokenizer "{rule.name}" cannot be loaded', where=str(checkpoint.path),
                              why=str(error).strip().splitlines()[0],
                              fix="download it once (huggingface-cli download), or put a directory there") from error


def example_of(checkpoint: Checkpoint, name: str, history: int) -> torch.Tensor:
    """A plausible input: smooth random images; states around the dataset's mean. Histories repeat it."""
    feature, draw = checkpoint.inputs[name], torch.Generator().manual_seed(len(name))
    if feature.type == "VISUAL":
        channels, height, width = feature.shape
        coarse = torch.rand(1, channels, 6, 8, generator=draw)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
        x = (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1)
    else:
        statistics = checkpoint.normalise[name].statistics if name in checkpoint.normalise else {}
        # a policy's own steps may pad the state before it is normalised
        statistics = {n: t[:feature.shape[0]] if t.dim() == 1 else t for n, t in statistics.items()}
        x = torch.randn(1, *feature.shape, generator=draw) * 0.5
        if "mean" in statistics:
            x = x * statistics["std"] + statistics["mean"]
        elif statistics:
            low, high = statistics.values()
            x = (low + high) / 2 + x * (high - low) / 4
    return x.contiguous() if history == 1 else torch.stack([x] * history, 1)


def tokens_of(checkpoint: Checkpoint, instruction: str, state: torch.Tensor | None = None) -> Batch:
    """The instruction encoded by the checkpoint's own tokenizer, padded to its full length: ids int64 [1,L], padding
    mask bool [1,L]. This is the host's part of the policy. state [d], in the dataset's units: for a policy that reads
    it as text. Raises SourceError."""
    rule, family = checkpoint.tokenization, family_of(checkpoint.type, checkpoint.path)
    prompt = family.prompt
    if family.tokens is not None:
        with lerobot_importable():
            return family.tokens(checkpoint, instruction)
    assert rule is not None and (prompt is None) == (state is None)
    if prompt is not None:
        text = prompt(instruction, normalise(state, checkpoint.normalise.get(STATE)).numpy(), checkpoint)
    else:
        text = instruction + "\n" if rule.newline and not instruction.endswith("\n") else instruction
    tokenizer = _tokenizer_of(checkpoint)
    with lerobot_importable():
        encoded = tokenizer(text, max_length=rule.max_length, truncation=True, padding="max_length",
                            padding_side=rule.padding_side, return_tensors="pt")
    return {TOKENS: encoded["input_ids"], MASK: encoded["attention_mask"].bool()}
