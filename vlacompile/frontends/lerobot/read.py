"""A LeRobot checkpoint directory -> Policy: raw frames and joint state in, robot actions out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlacompile.errors import SourceError, VlaError, nearest
from vlacompile.frontends.lerobot.checkpoint import TOKENIZE, Checkpoint, read_checkpoint
from vlacompile.frontends.lerobot.files import PREPROCESSOR, WEIGHTS, read_json, read_tensors
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.normalise import normalise, unnormalise
from vlacompile.frontends.lerobot.statistics import NORMALISE, UNNORMALISE
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Fit, Text

NOISE, NOISE_OF_STEPS = "noise", "noise.steps"  # the initial noise; the noise added after each step
STATE = "observation.state"
TOKENS, MASK = "observation.language.tokens", "observation.language.attention_mask"
OLD_STATISTICS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
EXAMPLE_INSTRUCTION = "pick up the object and put it in the bin"

Batch = dict[str, torch.Tensor]
Predict = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class Family:
    """Differences between policy types.

    module, policy: where the class is. bind: policy -> function of (batch as returned by LeRobot's preprocessor, noise
    or None) that returns normalised actions [1,H,action_dim]; what `bind` itself does is not traced. noise: examples of
    the initial noise, given its config. history: number of observations that it reads, newest last.
    ensemble: decay of temporal ensembling, if the policy is used with it.
    solvers, bind_solver: names of the solvers that the policy can be sampled with, and `bind` for one of them and a
    number of evaluations. ready: sets what the config leaves to a download. make: the policy object from its class and
    config. weights: the file's tensors under the names of the policy object. prompt: (instruction, normalised state
    [d], config) -> text, for a policy that reads its state as text; tokens then change with every observation.
    tokens: the result of `tokens_of`, if the checkpoint's tokenizer alone does not give it. static: static inputs.
    complete: the checkpoint with data that only this policy's processor steps hold. normalised_by: see read_checkpoint.
    """

    module: str
    policy: str
    bind: Callable[[Any], Predict]
    noise: Callable[[Any], dict[str, torch.Tensor]] = lambda config: {}
    history: Callable[[Any], int] = lambda config: 1
    execute: Callable[[Any], int] = lambda config: config.n_action_steps
    ensemble: Callable[[Any], float | None] = lambda config: None
    ready: Callable[[Any], None] = lambda config: None
    solvers: Callable[[Any], tuple[str, ...]] = lambda config: ()
    bind_solver: Callable[[Any, str, int], Predict] | None = None
    make: Callable[[type, Any], nn.Module] = lambda policy_class, config: policy_class(config)
    weights: Callable[[nn.Module, Batch], Batch] = lambda policy, tensors: tensors
    prompt: Callable[[str, np.ndarray, dict], str] | None = None
    tokens: Callable[[Checkpoint, str], Batch] | None = None
    static: Callable[[Checkpoint], Batch] = lambda checkpoint: {}
    complete: Callable[[Checkpoint], Checkpoint] = lambda checkpoint: checkpoint
    newline_steps: frozenset[str] = field(default=frozenset())
    known_steps: frozenset[str] = field(default=frozenset())
    normalised_by: tuple[str, str] = (NORMALISE, UNNORMALISE)


FAMILIES = ("act", "diffusion", "groot", "pi0", "pi05", "smolvla", "vqbet")  # modules beside this one


def normal(*shape: int) -> torch.Tensor:
    """An example of normally distributed noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def uniform(*shape: int) -> torch.Tensor:
    """An example of random numbers in [0, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def family_of(kind: str) -> Family:
    return importlib.import_module(f"vlacompile.frontends.lerobot.{kind}").FAMILY


def open_checkpoint(path: Path, weights: bool = True) -> tuple[Checkpoint, Family]:
    """Reads and checks the files, without LeRobot. weights: whether their file must exist. Raises SourceError."""
    kind = read_json(path / "config.json").get("type")
    if kind not in FAMILIES:
        raise SourceError(f'no frontend reads checkpoints of type "{kind}"', where=str(path / "config.json"),
                          why=nearest(str(kind), FAMILIES),
                          fix="write a factory that returns vlacompile.Policy(...) around the model's inference "
                              "function")
    family = family_of(kind)
    read = read_checkpoint(path, family.newline_steps, family.known_steps, weights, family.normalised_by)
    if (family.newline_steps or family.prompt) and read.tokenization is None:
        raise SourceError(f"{PREPROCESSOR} has no step {TOKENIZE}", where=str(path),
                          why="the policy takes an instruction, and its tokenizer is not declared" + (
                              "; checkpoints up to LeRobot 0.3 do not declare it" if read.old_statistics else ""),
                          fix="python -m lerobot.processor.migrate_policy_normalization --pretrained-path "
                              "DIRECTORY, of "
                              "LeRobot 0.4.4" if read.old_statistics else "copy the checkpoint again, completely")
    return family.complete(read), family


def read_policy(path: Path, weights: bool = True) -> Policy:
    """weights: False reads only the shapes, within `weightless`. Raises SourceError for a checkpoint that cannot be
    read, or whose parts do not fit together."""
    checkpoint, family = open_checkpoint(path, weights)
    with lerobot_importable():
        original = load_original(checkpoint, family, weights)
    return policy_of(checkpoint, family, original)


def load_original(checkpoint: Checkpoint, family: Family, weights: bool = True) -> torch.nn.Module:
    """LeRobot's own policy object with the checkpoint's weights, on the CPU, in fp32, in evaluation mode."""
    try:
        from lerobot.configs.policies import PreTrainedConfig

        module = importlib.import_module(family.module)
        config = PreTrainedConfig.from_pretrained(checkpoint.path, local_files_only=True)
        config.device = "cpu"
        family.ready(config)
        policy = family.make(getattr(module, family.policy), config)
        missing, extra = load_weights(policy, family.weights(policy, read_tensors(checkpoint.path / WEIGHTS))
                                      ) if weights else ([], [])
    except VlaError:
        raise
    except Exception as error:  # the model's own code, draccus and safetensors raise many kinds of errors
        raise SourceError("LeRobot cannot build this policy", where=str(checkpoint.path),
                          why=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}",
                          fix="load it with LeRobot itself to see why; lerobot 0.4.4 is used here") from error
    extra = [k for k in extra if not k.startswith(OLD_STATISTICS)]
    if missing or extra:
        odd = ", ".join([*missing, *extra][:3])
        raise SourceError(f"{WEIGHTS} does not fit config.json", where=str(checkpoint.path),
                          why=f"{len(missing)} weights missing, {len(extra)} unknown: {odd}",
                          fix="use the config.json and model.safetensors of one training run")
    return policy.float().eval().requires_grad_(False)


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
    predict = family.bind(original)
    features = {n: f for n, f in checkpoint.inputs.items() if family.prompt is None or n != STATE}

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        batch: Batch = {}
        for name, feature in features.items():
            x = inputs[checkpoint.robot_name(name)]
            if feature.type == "VISUAL":  # uint8 [...,H,W,3] -> f32 [...,3,H,W] in [0, 1]
                x = x.movedim(-1, -3).to(torch.float32) / 255.0
            batch[name] = normalise(x, checkpoint.normalise.get(name))
        batch |= {k: inputs[k] for k in (TOKENS, MASK, *noise, *static) if k in inputs}
        return {"action": unnormalise(predict(batch), checkpoint.normalise.get("action"))}

    sources = {checkpoint.robot_name(n): Source("observation", history=history) for n in features}
    example = {checkpoint.robot_name(n): _example(checkpoint, n, history) for n in features}
    if checkpoint.tokenization is not None:
        state = None if family.prompt is None else _example(checkpoint, STATE, 1)[0]
        sources |= dict.fromkeys((TOKENS, MASK), Source("task" if state is None else "observation"))
        example |= tokens_of(checkpoint, EXAMPLE_INSTRUCTION, state)
    sources |= dict.fromkeys(noise, Source("step")) | dict.fromkeys(static, Source("static"))
    solvers = {s: partial(_with_solver, checkpoint, family, original, s) for s in family.solvers(config)}
    return Policy(checkpoint.type, observe, sources, example | noise | static, execute=family.execute(config),
                  ensemble=family.ensemble(config), solvers=solvers, texts=texts_of(checkpoint))


def texts_of(checkpoint: Checkpoint) -> dict[str, Text]:
    """The instruction, if its tokens follow from the text and the checkpoint's tokenizer alone: not if the state or
    images are part of the prompt, and not if the tokenizer cannot be compiled (one without a
    tokenizer.json)."""
    rule, family = checkpoint.tokenization, family_of(checkpoint.type)
    if rule is None or family.tokens is not None or family.prompt is not None:
        return {}
    original = _tokenizer_of(checkpoint)
    backend = getattr(original, "backend_tokenizer", None)
    if backend is None:
        return {}
    fit = Fit(original.pad_token_id, rule.padding_side, original.truncation_side)
    return {TOKENS: Text(backend.to_str(), MASK, fit, "\n" if rule.newline else "", examples=(EXAMPLE_INSTRUCTION,))}


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


def _example(checkpoint: Checkpoint, name: str, history: int) -> torch.Tensor:
    """A plausible input: smooth random images; states around the dataset's mean. Histories repeat it."""
    feature, draw = checkpoint.inputs[name], torch.Generator().manual_seed(len(name))
    if feature.type == "VISUAL":
        channels, height, width = feature.shape
        coarse = torch.rand(1, channels, 6, 8, generator=draw)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
        x = (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1)
    else:
        statistics = checkpoint.normalise[name].statistics if name in checkpoint.normalise else {}
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
    rule, family = checkpoint.tokenization, family_of(checkpoint.type)
    prompt = family.prompt
    assert rule is not None and (prompt is None) == (state is None)
    if family.tokens is not None:
        with lerobot_importable():
            return family.tokens(checkpoint, instruction)
    if prompt is not None:
        text = prompt(instruction, normalise(state, checkpoint.normalise.get(STATE)).numpy(), checkpoint.config)
    else:
        text = instruction + "\n" if rule.newline and not instruction.endswith("\n") else instruction
    tokenizer = _tokenizer_of(checkpoint)
    with lerobot_importable():
        encoded = tokenizer(text, max_length=rule.max_length, truncation=True, padding="max_length",
                            padding_side=rule.padding_side, return_tensors="pt")
    return {TOKENS: encoded["input_ids"], MASK: encoded["attention_mask"].bool()}
