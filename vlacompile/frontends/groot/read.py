"""A directory that NVIDIA's own code saved (Isaac-GR00T) -> Policy: raw frames and state in, robot actions out.

config.json names the version in "model_type"; weights are in one or several safetensors files. What a robot gives and
gets is in other files of each version; which robot of several it is, and how large its frames are, is asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS, Environment
from vlacompile.frontends.groot.robot import Tokens
from vlacompile.frontends.groot.versions import REFUSED, VERSIONS
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.resize import Size
from vlacompile.frontends.tensor_files import TensorFiles, weights_in
from vlacompile.policy.host_encoding import HostEncoding
from vlacompile.policy.policy import Policy, Source
from vlart.errors import SourceError, VlaError

IMAGES, STATE, NOISE, EMBODIMENT = "observation.images.", "observation.state", "noise", "embodiment_id"
TOKENS, MASK = "observation.language.tokens", "observation.language.attention_mask"
EXAMPLE_INSTRUCTION = "pick up the object and put it in the bin"


@dataclass(frozen=True)
class Opened:
    """A checkpoint's files, read and checked. tag: of the robot; embodiment: its number. cameras: size of each one's
    frames. state: example [1,d]. steps: of a chunk. noise: shape of the initial noise. make: of the model with random
    weights. sampler: model -> function of (frames {camera: f32 [1,3,H,W]}, tokens, mask, state, embodiment, noise).
    tokens: of an instruction. notes: what a person should know, for the manifest. history: observations that its
    frames are of; of more than one they are [1,n,3,H,W]."""

    path: Path
    name: str
    tag: str
    embodiment: int
    cameras: Mapping[str, Size]
    state: torch.Tensor
    steps: int
    noise: tuple[int, ...]
    make: Callable[[], nn.Module]
    sampler: Callable[[nn.Module], Callable[..., torch.Tensor]]
    tokens: Callable[[str], Tokens]
    notes: Mapping[str, str]
    history: int = 1


@dataclass(frozen=True)
class Weights:
    """Those of a directory. needed: whether they must be there."""

    path: Path
    needed: bool = True

    @cached_property
    def files(self) -> TensorFiles | None:
        """None: they are not there. Raises SourceError."""
        try:
            return weights_in(self.path)
        except SourceError:
            if self.needed:
                raise
            return None

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """{name: shape}, as far as they are there. Raises SourceError."""
        return {} if self.files is None else {n: list(s) for n, s in self.files.shapes.items()}

    def read(self) -> dict[str, torch.Tensor]:
        return {} if self.files is None else {n: self.files.read(n).float() for n in self.files.shapes}


def open_checkpoint(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Opened:
    """Reads and checks the files, without LeRobot. weights: whether their files must exist. Raises SourceError."""
    config = read_json(path / "config.json")
    kind = str(config["model_type"])
    if kind in REFUSED:
        raise SourceError(f"the checkpoint is of {REFUSED[kind].split(',')[0]}", where=str(path / "config.json"),
                          why=f"its model is {REFUSED[kind]}: {' and '.join(sorted(VERSIONS))} are read",
                          fix="write a factory that returns vlacompile.Policy(...) around the model's inference "
                              "function")
    held = Weights(path, weights)
    assert held.files is not None or not weights
    return _version(kind).open_files(path, config, held, options)


def _version(kind: str) -> Any:
    return importlib.import_module(f"vlacompile.frontends.groot.{VERSIONS[kind]}")


def needed_weights(path: Path, options: CheckpointOptions = NONE) -> str:
    """Why the checkpoint cannot be read without its weights; "" if it can. Raises SourceError."""
    open_checkpoint(path, False, options)
    return ""


def environments_for(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> tuple[Environment, ...]:
    """Those that can build it. Raises SourceError for a checkpoint that none can read."""
    open_checkpoint(path, weights, options)
    return (ENVIRONMENTS[_version(read_json(path / "config.json")["model_type"]).ENVIRONMENT],)


def read_policy(path: Path, weights: bool = True, options: CheckpointOptions = NONE) -> Policy:
    """weights: False reads only the shapes, within `weightless`. Raises SourceError for a checkpoint that cannot be
    read, or whose parts do not fit together."""
    opened = open_checkpoint(path, weights, options)
    environments_for(path, weights, options)[0].require()
    with lerobot_importable():
        model = _load(opened, weights)
        return _policy_of(opened, model, options)


def _load(opened: Opened, weights: bool) -> nn.Module:
    from vlacompile.frontends.lerobot.read import load_weights

    missing, extra = [], []
    try:
        model = opened.make()
        if weights:
            missing, extra = load_weights(model, Weights(opened.path).read())
    except VlaError:
        raise
    except Exception as error:  # the model's own code and safetensors raise many kinds of errors
        raise SourceError("the weights do not fit config.json", where=str(opened.path),
                          why=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1].strip()}",
                          fix="use config.json and weights of one training") from error
    if missing or extra:
        raise SourceError("the weights do not fit config.json", where=str(opened.path),
                          why=f"{len(missing)} weights missing, {len(extra)} unknown: "
                              + ", ".join([*missing, *extra][:3]), fix="use config.json and weights of one training")
    return model.float().eval().requires_grad_(False)


def _policy_of(opened: Opened, model: nn.Module, options: CheckpointOptions) -> Policy:
    sample = opened.sampler(model)
    names = {camera: camera if camera.startswith(IMAGES) else f"{IMAGES}{camera}" for camera in opened.cameras}

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = {c: inputs[n].movedim(-1, -3).to(torch.float32) for c, n in names.items()}
        return {"action": sample(frames, inputs[TOKENS], inputs[MASK], inputs[STATE], inputs[EMBODIMENT],
                                 inputs[NOISE])}

    draw = torch.Generator().manual_seed(0)
    example = {name: _frames(opened.cameras[c], draw, opened.history) for c, name in names.items()}
    ids, mask = opened.tokens(EXAMPLE_INSTRUCTION)
    example |= {STATE: opened.state, TOKENS: ids, MASK: mask, NOISE: torch.randn(opened.noise, generator=draw),
                EMBODIMENT: torch.tensor([opened.embodiment])}
    sources = {name: Source("observation", history=opened.history) for name in names.values()}
    sources[STATE] = Source("observation")
    sources |= {TOKENS: Source("task"), MASK: Source("task"), NOISE: Source("step"), EMBODIMENT: Source("static")}
    return Policy(opened.name, observe, sources, example, execute=opened.steps, encoding=_encoding(opened),
                  origin={"embodiment": f"{opened.tag}, number {opened.embodiment}", **opened.notes,
                          **({"spelled out": " ".join(options.spelled_out())} if options.spelled_out() else {})})


def _encoding(opened: Opened) -> HostEncoding:
    def encode(instruction: str, recorded: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        with lerobot_importable():
            ids, mask = opened.tokens(instruction)
        return {TOKENS: ids, MASK: mask}

    return HostEncoding((TOKENS, MASK), {}, encode)


def _frames(size: Size, draw: torch.Generator, history: int) -> torch.Tensor:
    """A smooth random frame uint8 [1,H,W,3], of a history the same at all moments [1,n,H,W,3]."""
    coarse = torch.rand(1, 3, 6, 8, generator=draw)
    smooth = nn.functional.interpolate(coarse, size, mode="bilinear")
    frame = (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return frame if history == 1 else torch.stack([frame] * history, 1)
