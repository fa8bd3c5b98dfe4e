"""One observation through LeRobot itself, its preprocessor, policy and postprocessor, and through a bundle."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import vlacompile as vc
from tests.environments.lerobot.checkpoints import eagle_runs
from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.read import STATE, open_checkpoint, tokens_of
from vlacompile.frontends.lerobot.vqbet import CHOICES
from vlacompile.policy.drawn_from import drawn_from

INSTRUCTION = "pick up the red cube"
CHUNKS = ("pi0", "pi05")  # their select_action draws the noise itself


@contextlib.contextmanager
def begins_with(noise: torch.Tensor) -> Iterator[None]:
    """Inside, the first draw of torch.randn is `noise`."""
    draw, given = torch.randn, [noise]
    with mock.patch.object(torch, "randn", lambda *size, **how: given.pop() if given else draw(*size, **how)):
        yield


def observation(policy: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Raw frames and state as a robot has them, without batch dimension."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, feature in policy.config.input_features.items():
        if ".empty_camera_" in name:
            continue
        if len(feature.shape) == 3:
            channels, height, width = feature.shape
            coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), channels), dtype=np.uint8)
            out[name] = coarse.repeat(16, 0).repeat(16, 1)[:height, :width].copy()
        else:
            out[name] = rng.standard_normal(feature.shape).astype(np.float32)
    return out


def original_actions(folder: Path, policy: torch.nn.Module, seen: dict, noise: dict[str, torch.Tensor]) -> np.ndarray:
    """[executed steps, action_dim] from LeRobot's own code, one select_action after the other where that can be given
    the noise."""
    with lerobot_importable():
        from lerobot.policies.factory import make_pre_post_processors
        pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    for step in pre.steps:  # LeRobot 0.4.4 does not save it, and would download
        if hasattr(step, "tokenizer_assets_repo"):
            step.tokenizer_assets_repo = policy.config.tokenizer_assets_repo
    steps = open_checkpoint(folder)[1].execute(policy.config)
    draws = (drawn_from(uniform=noise[CHOICES]) if CHOICES in noise else
             eagle_runs() if policy.config.type == "groot" else
             begins_with(noise["noise"]) if policy.config.type == "multi_task_dit" else contextlib.nullcontext())
    raw = {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.dtype == np.uint8 else torch.from_numpy(a)
           for n, a in seen.items()}
    policy.reset()
    if policy.config.type in CHUNKS:
        chunk = policy.predict_action_chunk(pre(raw | {"task": INSTRUCTION}), noise=noise["noise"])
        return post(chunk)[0, :steps].numpy()
    given = "noise" in noise and policy.config.type not in ("groot", "multi_task_dit")
    extra = {"noise": noise["noise"]} if given else {}
    torch.manual_seed(1)  # what GR00T begins with and DDPM draws between steps: `noise_for` has drawn the same
    with draws, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "To evaluate in the environment, your VQ-BeT")  # the weights are random
        return np.stack([post(policy.select_action(pre(raw | {"task": INSTRUCTION}), **extra))[0].numpy()
                         for _ in range(steps)])


def noise_for(bundle: vc.Bundle) -> dict[str, torch.Tensor]:
    """The sample to start from, and what torch.manual_seed(1) draws between steps; GR00T begins with such a draw."""
    values = (bundle.plan.values[s.value] for s in bundle.plan.sources)
    shapes = {v.name: v.type.dims for v in values if v.name.startswith("noise")}
    draw = torch.Generator().manual_seed(5)
    out = {n: (torch.rand if n == CHOICES else torch.randn)(shape, generator=draw) for n, shape in shapes.items()}
    if bundle.plan.name == "groot":
        out["noise"] = torch.randn(shapes["noise"], generator=torch.Generator().manual_seed(1))
    if "noise.steps" in out:
        torch.manual_seed(1)
        for k in range(len(out["noise.steps"]) - 1):
            out["noise.steps"][k] = torch.randn(out["noise"].shape)[0]
    return out


def compiled_actions(bundle: vc.Bundle, folder: Path, policy, seen: dict, noise: dict[str, torch.Tensor],
                     options: CheckpointOptions = NONE) -> np.ndarray:
    checkpoint, family = open_checkpoint(folder, options=options)
    sources = {bundle.plan.values[s.value].name for s in bundle.plan.sources}
    with vc.Session(bundle.path) as session:
        told = seen.get(STATE) if family.prompt is not None else None  # the state is in the prompt
        for name, array in seen.items():
            if name in sources:
                session.write(name, array[None])
        if checkpoint.tokenization is not None:
            state = None if told is None else torch.from_numpy(told)
            for name, tensor in tokens_of(checkpoint, INSTRUCTION, state).items():
                session.write(name, tensor.numpy())
        for name, tensor in noise.items():
            session.write(name, tensor.numpy())
        session.step()
        return np.stack([session.pop() for _ in range(family.execute(policy.config))])
