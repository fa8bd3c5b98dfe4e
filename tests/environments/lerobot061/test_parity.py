"""Checkpoints that LeRobot 0.6.1 writes, compiled, against its own preprocessor, policy and postprocessor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments.lerobot.checkpoints import sized, write
from tests.environments.lerobot.parity import (
    INSTRUCTION,
    compiled_actions,
    noise_for,
    observation,
    original_actions,
)
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.read import read_policy
from vlacompile.phases.load_policy import load_policy

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
SHARE = 1e-4  # of each action dimension's spread
NO_DOWNLOAD = {"pretrained_backbone_weights": None}
JOINTS = [*(f"joint_{i}.pos" for i in range(5)), "gripper.pos"]
RELATIVE = {"use_relative_actions": True, "action_feature_names": JOINTS, "num_inference_steps": 3}
CASES = {
    "multi_task_dit-ddpm": ("multi_task_dit", {"num_train_timesteps": 20, "num_inference_steps": 4}),
    "multi_task_dit-ddim": ("multi_task_dit", {"num_train_timesteps": 20, "num_inference_steps": 4,
                                               "noise_scheduler_type": "DDIM",
                                               "use_separate_rgb_encoder_per_camera": True}),
    "multi_task_dit-flow": ("multi_task_dit", {"objective": "flow_matching", "num_integration_steps": 4}),
    "multi_task_dit-rk4": ("multi_task_dit", {"objective": "flow_matching", "num_integration_steps": 2,
                                              "integration_method": "rk4"}),
    "act": ("act", {}),
    # as 0.6.1 makes it unless told otherwise: BatchNorm, an encoder of its own for every camera
    "diffusion": ("diffusion", {**NO_DOWNLOAD, "cameras": ("top", "wrist"), "noise_scheduler_type": "DDPM",
                                "num_inference_steps": 4}),
    "diffusion-group-norm": ("diffusion", {**NO_DOWNLOAD, "use_group_norm": True, "horizon": 16, "n_action_steps": 8,
                                           "use_separate_rgb_encoder_per_camera": False}),
    "diffusion-crop": ("diffusion", {**NO_DOWNLOAD, "resize_shape": (48, 48), "crop_ratio": 0.9, "crop_shape": None}),
    "vqbet": ("vqbet", NO_DOWNLOAD),
    "smolvla": ("smolvla", {"num_steps": 3}),
    "pi0": ("pi0", {"num_inference_steps": 3}),
    "pi0-empty-camera": ("pi0", {"num_inference_steps": 2, "empty_cameras": 1}),
    "pi0-relative": ("pi0", RELATIVE),
    "pi05": ("pi05", {"num_inference_steps": 3}),
    "pi05-relative": ("pi05", RELATIVE),
}


def trained_statistics(policy: torch.nn.Module) -> None:
    """Running statistics of a batch norm after a training."""
    draw = torch.Generator().manual_seed(3)
    for module in policy.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=draw)
            module.running_var.uniform_(0.5, 1.5, generator=draw)


def loaded(folder: Path) -> torch.nn.Module:
    """The policy as LeRobot itself loads it."""
    with lerobot_importable():
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class

        config = PreTrainedConfig.from_pretrained(folder, local_files_only=True)
        config.device = "cpu"
        policy = get_policy_class(config.type).from_pretrained(folder, config=config, local_files_only=True)
        return policy.float().eval()


VARIANTS = ("multi_task_dit-ddpm", "multi_task_dit-rk4", "diffusion-group-norm", "diffusion-crop", "pi0-empty-camera",
            "pi05-relative")


@pytest.fixture(scope="module", params=variants(CASES, VARIANTS))
def built(request, tmp_path_factory):
    kind, settings = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "pretrained_model"
    write(kind, folder, change=trained_statistics, **settings)
    with sized(kind, real=False):
        return folder, loaded(folder), *timed(lambda: vc.build(folder, out=folder.parent / "a.vlab"))


def test_actions_are_those_of_lerobot(built, request, record_property):
    folder, policy, bundle, seconds = built
    wants, gots = [], []
    for seed in range(3):
        seen, noise = observation(policy, seed), noise_for(bundle)
        with torch.no_grad():
            wants.append(original_actions(folder, policy, seen, noise))
        gots.append(compiled_actions(bundle, folder, policy, seen, noise))
    want, got = np.concatenate(wants), np.concatenate(gots)
    share = share_of_spread(got, want)
    assert share < SHARE
    compared(record_property, bundle, share, files="LeRobot 0.6.1", policy=request.node.callspec.id,
             oracle="LeRobot 0.6.1", seconds=seconds)
    assert np.abs(gots[0] - wants[1]).max() > 100 * SHARE * want.std(), "another observation gives the same actions"


@pytest.mark.parametrize("kind", ["pi0", "smolvla"])
def test_without_weights_the_sources_are_the_same(kind, tmp_path):
    write(kind, tmp_path / "c")
    with sized(kind, real=False):
        one, other = (load_policy(str(tmp_path / "c"), weights=weights) for weights in (True, False))
    assert one.sources == other.sources and one.execute == other.execute
    assert {n: t.shape for n, t in one.example_inputs.items()} == {n: t.shape for n, t in other.example_inputs.items()}


def test_recorded_states_are_spelled_into_the_prompt_as_lerobot_does(tmp_path):
    """What calibration with a dataset and its replay write."""
    folder = tmp_path / "pretrained_model"
    write("pi05", folder)
    with sized("pi05", real=False):
        encoding, policy = read_policy(folder).encoding, loaded(folder)
    with lerobot_importable():
        from lerobot.policies.factory import make_pre_post_processors

        pre, _ = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    for seed in range(3):
        seen = observation(policy, seed)
        raw = {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.ndim == 3 else torch.from_numpy(a)
               for n, a in seen.items()}
        want, got = pre(raw | {"task": INSTRUCTION}), encoding.encode(INSTRUCTION, {n: seen[n] for n in encoding.reads})
        assert set(got) == set(encoding.gives) and all(torch.equal(want[n].long(), got[n].long()) for n in got)


def test_the_manifest_says_who_wrote_it(built):
    origin = built[2].manifest["provenance"]["origin"]
    assert origin["written by"].startswith("LeRobot 0.6.") and "assumed" not in origin
    assert origin["computed as"].startswith("LeRobot 0.6.1")
