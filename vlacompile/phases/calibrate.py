"""Recorded observations as the calibration set of a policy, under the names of its sources: of a LeRobot dataset, or of
a bag of a robot that runs ROS 2."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from vlacompile.compiler.staging.known_instructions import tokenize
from vlacompile.frontends.bags import Bag, open_bag, require_recorded
from vlacompile.frontends.dataset import Dataset, open_dataset, read_frames
from vlacompile.phases.phase import Progress
from vlacompile.policy.policy import Policy
from vlacompile.tokenize.compile_text import CompiledText, compile_text
from vlart.serve.observations import Input
from vlart.vocabulary import dtype_name

FRAMES = 32  # observations taken, at equal distances over all that were recorded

# {value: [n,...], oldest first}, and the instruction
Taken = tuple[dict[str, np.ndarray], str]


class Recorded(Protocol):
    """What observations are taken from. facts: for the manifest."""

    facts: Mapping[str, object]
    length: int

    def take(self, count: int, longest: int, names: list[str]) -> list[Taken]:
        """At most `count` observations, each with those before it that a history of `longest` reaches."""
        ...


@dataclass(frozen=True)
class OfDataset:
    dataset: Dataset

    @property
    def facts(self) -> dict[str, object]:
        return {"version": self.dataset.version, "episodes": len(self.dataset.episodes), "frames": self.dataset.length}

    @property
    def length(self) -> int:
        return self.dataset.length

    def take(self, count: int, longest: int, names: list[str]) -> list[Taken]:
        """A history that reaches before the episode repeats its first frame."""
        return [read_frames(self.dataset, episode, _before(number, longest), names)
                for episode, number in self.dataset.spread(count)]


@dataclass(frozen=True)
class OfBag:
    bag: Bag

    @property
    def facts(self) -> dict[str, object]:
        return {"version": self.bag.version, "episodes": 1, "frames": self.length, "messages": dict(self.bag.accounts)}

    @property
    def length(self) -> int:
        return len(self.bag.observations)

    def take(self, count: int, longest: int, names: list[str]) -> list[Taken]:
        places = self.bag.spread(count)
        found = self.bag.contents(sorted({b for place in places for b in _before(place, longest)}))
        return [({n: np.stack([found[b][n][0] for b in _before(place, longest)]) for n in names},
                 self.bag.observations[place].text) for place in places]


def _before(number: int, longest: int) -> list[int]:
    return [max(number - back, 0) for back in reversed(range(longest))]


def calibrated(policy: Policy, path: Path, texts: tuple[CompiledText, ...], progress: Progress,
               topics: Path | None = None) -> tuple[Policy, dict]:
    """The policy with recorded observations in place of its own calibration set, and what the manifest says of them.
    path: a LeRobot dataset, or a bag, which `topics` maps to the policy's inputs. texts: the policy's compiled
    tokenizers, for the instructions. Raises CalibrationError if an input is lacking."""
    encoding = policy.encoding
    said = {n for text in policy.texts for n in (text, policy.texts[text].mask) if n is not None}
    said |= {*encoding.gives} if encoding else set()
    wanted = [n for n, s in policy.sources.items() if s.update not in ("static", "step") and n not in said]
    reads = {n: tuple(shape) for n, shape in encoding.reads.items()} if encoding else {}
    recorded = _open(policy, path, topics, wanted, reads)
    progress(f"read {min(FRAMES, recorded.length)} observations of {recorded.length} that were recorded")
    texts = texts or tuple(compile_text(name, text) for name, text in policy.texts.items())
    longest = max((policy.sources[n].history for n in wanted), default=1)
    found = [_observation(policy, arrays, task, wanted, texts)
             for arrays, task in recorded.take(FRAMES, longest, [*dict.fromkeys((*wanted, *reads))])]
    digest = hashlib.sha256()
    for inputs in found:
        for name in (*wanted, *(encoding.gives if encoding else ())):
            digest.update(name.encode() + inputs[name].numpy().tobytes())
    return replace(policy, calibration=tuple(found)), {**recorded.facts, "taken": len(found),
                                                       "sha256": digest.hexdigest()}


def _open(policy: Policy, path: Path, topics: Path | None, wanted: list[str], reads: dict[str, tuple[int, ...]]) \
        -> Recorded:
    require_recorded(path, topics)
    shapes = _shapes(policy, wanted) | reads
    if topics is None:
        dataset = open_dataset(path)
        dataset.require(shapes)
        return OfDataset(dataset)
    dtypes = {n: dtype_name(policy.example_inputs[n].numpy().dtype.str) or "f32" for n in wanted}
    inputs = {n: Input(n, policy.sources[n].update if n in wanted else "observation", dtypes.get(n, "f32"), (1, *shape))
              for n, shape in shapes.items()}
    return OfBag(open_bag(path, topics, inputs))


def _shapes(policy: Policy, wanted: list[str]) -> dict[str, tuple[int, ...]]:
    """Of one observation each: without the leading 1 and the history."""
    return {n: tuple(policy.example_inputs[n].shape)[2 if policy.sources[n].history > 1 else 1:] for n in wanted}


def _observation(policy: Policy, arrays: Mapping[str, np.ndarray], task: str, wanted: list[str],
                 texts: tuple[CompiledText, ...]) -> Mapping[str, torch.Tensor]:
    """Inputs as in example_inputs."""
    inputs = dict(policy.example_inputs)
    for name in wanted:
        history, example = policy.sources[name].history, policy.example_inputs[name]
        values = arrays[name][-history:][None] if history > 1 else arrays[name][-1:]
        inputs[name] = torch.from_numpy(np.ascontiguousarray(values)).to(example.dtype)
    for spoken in tokenize((task,), texts, policy.example_inputs) if texts else ():
        inputs |= {n: torch.from_numpy(np.asarray(v)) for n, v in spoken.writes.items()}
    if policy.encoding is not None:
        inputs |= policy.encoding.encode(task, {n: arrays[n][-1].astype(np.float32) for n in policy.encoding.reads})
    return inputs
