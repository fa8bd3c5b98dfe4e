"""Any policy type that LeRobot finds, shipped or registered by a plugin -> Policy, without code for the type.

The graph is LeRobot's own loop: the checkpoint's preprocessor, select_action or predict_action_chunk of its class, and
the checkpoint's postprocessor. Random numbers that it draws and ids that it gets from tokenizers are inputs.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlacompile.frontends.lerobot.checkpoint import Checkpoint
from vlacompile.frontends.lerobot.frame_range import KnownRange, bounds_suffice
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.known_masks import KnownMasks
from vlacompile.frontends.lerobot.memories import memory_of
from vlacompile.frontends.lerobot.original import Frame, Original, Way, close, frames_of, history_of, way_of
from vlacompile.frontends.lerobot.read import (
    EXAMPLE_INSTRUCTION,
    NOISE,
    Family,
    example_of,
    family_of,
    load_original,
    normal,
    origin_of,
    uniform,
)
from vlacompile.frontends.lerobot.tokenized import FOR_ONE, Calls, Place, from_inputs, places_of, recorded_calls
from vlacompile.frontends.lerobot.without_downloads import without_downloads
from vlacompile.policy.drawn_from import drawn_from, recorded_draws
from vlacompile.policy.host_encoding import HostEncoding
from vlacompile.policy.policy import Policy, Source
from vlart.errors import SourceError, VlaError

UNIFORM = "noise.uniform"  # random numbers in [0, 1)
# Instructions of other length, spelling and end: what depends on them differs among these.
PROBES = (EXAMPLE_INSTRUCTION, "Go", "open  the Left_drawer, then put all of the red blocks that are near it inside",
          "wipe the table\n")


@dataclass(frozen=True)
class _Host:
    """What the graph takes from its host beside observations. places: tokens. normal, uniform: the shape of the random
    numbers, None if there are none. calls: of the tokenizers, for the example instruction. known_range: whether checks
    of a frame's range are answered without reading it."""

    places: list[Place]
    normal: tuple[int, ...] | None
    uniform: tuple[int, ...] | None
    calls: Calls
    known_range: bool = False

    def examples(self) -> dict[str, torch.Tensor]:
        tokens = {name: t for place in self.places for name, t in place.examples().items()}
        drawn = {NOISE: (self.normal, normal), UNIFORM: (self.uniform, uniform)}
        return tokens | {name: draw(*shape) for name, (shape, draw) in drawn.items() if shape is not None}

    @contextlib.contextmanager
    def given(self, inputs: dict[str, torch.Tensor]) -> Iterator[None]:
        """Within this context, the original code gets tokens and random numbers from `inputs`."""
        with (from_inputs(self.places, inputs, self.calls) if self.places else contextlib.nullcontext(),
              drawn_from(inputs.get(NOISE), inputs.get(UNIFORM))):
            yield


def policy_of(checkpoint: Checkpoint, policy: nn.Module, weights: bool = True) -> Policy:
    """policy: LeRobot's object with the checkpoint's weights. Raises SourceError for a policy whose actions do not
    follow from declared observations, an instruction's tokens and random numbers."""
    original, observed, images = _original_of(checkpoint, policy)
    frames = frames_of(observed, images, history_of(policy.config))
    fixed, within = checkpoint.options.instruction, family_of(checkpoint.type, checkpoint.path).within
    instruction = EXAMPLE_INSTRUCTION if fixed is None else fixed
    with _run_by_lerobot(checkpoint):
        way = way_of(original, [_changed(frames[-1], k) for k in range(3)], instruction, weights)
        host = _host_of(original, frames, way, weights) if fixed is None else _host_of_one(original, frames, way, fixed)
        host = replace(host, known_range=bounds_suffice(lambda frame: original.prepared([frame], instruction)[0],
                                                        frames[-1], images))

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = frames_of({name: inputs[name] for name in observed}, images, way.history)
        with within(), host.given(inputs), (KnownRange(f[n] for f in seen for n in images) if host.known_range
                                  else contextlib.nullcontext()):
            if memory is None:
                return {"action": original.chunk(seen, instruction, way)}
            return {"action": original.chunk(seen, instruction, way, inputs[memory.name]),
                    memory.output: memory.of(policy)}

    observe.policy = policy
    memory, extra = original.memory, host.examples()
    kept = {} if memory is None else {memory.name: torch.zeros(memory.shape(policy.config))}
    origin = origin_of(checkpoint) | {"code": _code_of(type(policy))}
    sources = {n: Source("observation", history=way.history) for n in observed}
    sources |= dict.fromkeys(kept, Source("observation"))
    sources |= {n: Source("step" if n in (NOISE, UNIFORM) else "task") for n in extra}
    texts = {p.name: text for p in host.places if (text := p.text(EXAMPLE_INSTRUCTION)) is not None}

    def encode(text: str, recorded: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        with _run_by_lerobot(checkpoint), recorded_calls() as calls, recorded_draws():
            original.chunk(frames, text, way)
        return {n: t for place in host.places for n, t in place.of(calls.found[place.index]).items()}

    encoding = HostEncoding(tuple(n for p in host.places for n in p.examples()), {}, encode)
    return Policy(checkpoint.type, observe, sources, observed | kept | extra, execute=way.execute,
                  ensemble=way.ensemble, texts=texts, encoding=encoding if len(texts) < len(host.places) else None,
                  origin=origin if memory is None else origin | {"memory": memory.note()},
                  outputs=("action",) if memory is None else ("action", memory.output))


def _original_of(checkpoint: Checkpoint, policy: nn.Module) -> tuple[Original, dict[str, torch.Tensor], frozenset[str]]:
    """(the original, example observations, those that are frames)"""
    with lerobot_importable(), family_of(checkpoint.type, checkpoint.path).within():
        before, after = _processors(checkpoint, policy.config)
    history = history_of(policy.config)
    observed = {checkpoint.robot_name(n): example_of(checkpoint, n, history) for n, f in checkpoint.inputs.items()
                if f.type != "LANGUAGE"}  # the instruction, which is no tensor
    images = frozenset(checkpoint.robot_name(n) for n in checkpoint.images())
    return Original(policy, before, after, str(checkpoint.path), memory_of(policy.config)), observed, images


@contextlib.contextmanager
def _run_by_lerobot(checkpoint: Checkpoint) -> Iterator[None]:
    """Within this context the policy's own code runs. Raises SourceError with its line if it fails."""
    try:
        with lerobot_importable(), torch.no_grad(), KnownMasks(), family_of(checkpoint.type, checkpoint.path).within():
            yield
    except VlaError:
        raise
    except Exception as error:  # a policy's own code raises anything
        raise SourceError("the policy does not run as LeRobot runs it", where=_line(error, checkpoint),
                          why=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}",
                          fix="run it by LeRobot itself to see why: preprocessor, select_action, postprocessor"
                          ) from error


def tokens_of(checkpoint: Checkpoint, instruction: str) -> dict[str, torch.Tensor]:
    """The sources of an instruction, which the policy's own code tokenizes: it is run once for this. Raises
    SourceError."""
    original, observed, images = _original_of(
        checkpoint, load_original(checkpoint, family_of(checkpoint.type, checkpoint.path)))
    frames = frames_of(observed, images, history_of(original.policy.config))
    runs: dict[str, Calls] = {}
    with _run_by_lerobot(checkpoint):
        way = Way(history=len(frames))
        for text in (instruction, *PROBES):
            with recorded_calls() as runs[text], recorded_draws():
                original.prepared(frames, text)
                original.normalised(original.prepared(frames, text), way)
        return {n: t for place in places_of(original.where, runs) for n, t in place.examples().items()}


def _processors(checkpoint: Checkpoint, config) -> tuple[Any, Any]:
    """LeRobot's pipelines of the checkpoint. Raises SourceError."""
    from lerobot.policies.factory import make_pre_post_processors

    try:
        return make_pre_post_processors(config, pretrained_path=str(checkpoint.path))
    except Exception as error:
        raise SourceError("LeRobot cannot build the processors", where=str(checkpoint.path),
                          why=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}",
                          fix="load them with LeRobot itself to see why: make_pre_post_processors(config, "
                              "pretrained_path=this directory)") from error


def _changed(frame: Frame, k: int) -> Frame:
    """Another observation."""
    return {n: x.roll(3 * k, -1) if x.dim() == 4 else x + 0.1 * k * (x.abs() + 0.1) for n, x in frame.items()}


def _host_of(original: Original, frames: list[Frame], way: Way, compare: bool) -> _Host:
    with recorded_calls() as calls, recorded_draws() as drawn:
        original.chunk(frames, EXAMPLE_INSTRUCTION, way)
    runs, prepared = {EXAMPLE_INSTRUCTION: calls}, _within_processors(original, frames, calls)
    for instruction in PROBES[1:]:
        with recorded_calls() as runs[instruction], recorded_draws():
            if prepared:
                original.prepared(frames, instruction)
            else:
                original.chunk(frames, instruction, way)
    host = _Host(places_of(original.where, runs), _shape(drawn.normal), _shape(drawn.uniform), calls)
    if compare:
        _require_padding_without_effect(original, frames, way, calls)
        _require_only_tokens(original, frames, way, host, runs)
    return host


def _host_of_one(original: Original, frames: list[Frame], way: Way, instruction: str) -> _Host:
    """With an instruction that is a constant: the code's own calls of tokenizers stay what they are."""
    with recorded_draws() as drawn:
        original.chunk(frames, instruction, way)
    return _Host([], _shape(drawn.normal), _shape(drawn.uniform), Calls())


def _within_processors(original: Original, frames: list[Frame], calls: Calls) -> bool:
    """Whether the preprocessor makes all calls, so that the policy need not run to see them."""
    with recorded_calls() as prepared:
        original.prepared(frames, EXAMPLE_INSTRUCTION)
    return len(prepared.found) == len(calls.found)


def _shape(drawn: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Of the source of all draws of a kind: that of the only draw, or as many numbers as there are."""
    if not drawn:
        return None
    if len(drawn) == 1 and len(drawn[0]) > 1:
        return drawn[0]
    return (1, sum(map(math.prod, drawn)))


def _require_padding_without_effect(original: Original, frames: list[Frame], way: Way, calls: Calls) -> None:
    """A tokenizer's call that pads to the longest text pads to max_length in the graph; that must not matter."""
    if not calls.varying:
        return
    chunks = []
    for padded in (True, False):
        with recorded_calls(padded=padded), recorded_draws():
            chunks.append(original.chunk(frames, min(PROBES, key=len), way))
    if not close(*chunks):
        raise SourceError("the number of an instruction's tokens changes the actions", where=original.where,
                          why="the code pads to the longest text of a batch, and padding is not masked out of the "
                              "actions; a graph has one length", fix=FOR_ONE)


def _require_only_tokens(original: Original, frames: list[Frame], way: Way, host: _Host,
                         runs: dict[str, Calls]) -> None:
    """Another instruction with the same tokens must give the same actions: else it would be a constant of the graph."""
    other, inputs = PROBES[2], host.examples()
    chunks = []
    for instruction in (EXAMPLE_INSTRUCTION, other):
        with recorded_draws(), from_inputs(host.places, inputs, runs[instruction]):
            chunks.append(original.chunk(frames, instruction, way))
    if not close(*chunks):
        raise SourceError("the instruction reaches the policy by another way than a tokenizer", where=original.where,
                          why="with the same tokens, another instruction gives other actions; in a graph it would be "
                              "a constant", fix=FOR_ONE)


def _code_of(policy_class: type) -> str:
    """Whose code computes it, for the manifest."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    package = policy_class.__module__.partition(".")[0]
    name = (packages_distributions().get(package) or [package])[0]
    try:
        return f"{policy_class.__module__}.{policy_class.__qualname__}, {name} {version(name)}"
    except PackageNotFoundError:
        return f"{policy_class.__module__}.{policy_class.__qualname__}"


def _line(error: Exception, checkpoint: Checkpoint) -> str:
    """The innermost line of the code that failed, of the policy's package if it is in the traceback."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [f for f in frames if "vlacompile" not in f.filename and "/torch/" not in f.filename]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else str(checkpoint.path)


def _make(policy_class: type, config) -> nn.Module:
    with without_downloads():
        return policy_class(config)


def _load(policy_class: type, config, path: Path) -> tuple[nn.Module, list[str], list[str]]:
    """By the class's own rules, which may rename what an earlier version of it wrote."""
    with without_downloads() as untrained:
        policy = policy_class.from_pretrained(str(path), config=config, local_files_only=True)
    missing = untrained.missing(policy)
    if untrained.outside(policy):  # what a policy keeps beside its own weights is loaded as LeRobot loads it
        policy = policy_class.from_pretrained(str(path), config=config, local_files_only=True)
    return policy, missing, untrained.unknown


def _ready(config) -> None:
    config.pretrained_path = "."  # some classes then take sizes from the config, and load nothing


FAMILY = Family("", "", lambda policy: policy.predict_action_chunk, registered=True, ready=_ready, make=_make,
                load=_load, tokens=tokens_of, only="lerobot061")
