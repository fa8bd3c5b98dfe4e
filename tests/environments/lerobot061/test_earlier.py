"""Checkpoints that LeRobot 0.4.4 wrote, built in the environment of 0.6.1, against what 0.4.4 itself does with them:
where the two versions compute something else, the right value is that of the version that trained the policy."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed
from tests.environments.lerobot.checkpoints import sized
from tests.environments.lerobot.parity import compiled_actions, observation
from tests.environments.lerobot061.earlier import SEEDS, ask, drawn
from tests.environments.lerobot061.test_parity import SHARE
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
FLOW = {"noise": [1, 50, 32]}
CASES = {  # what LeRobot writes, the random numbers that it is given
    "act": ("act", {}, {}),
    "diffusion": ("diffusion", {"num_inference_steps": 3}, {"noise": [1, 16, 6]}),
    "vqbet": ("vqbet", {}, {"noise.choices": [1, 14]}),
    "smolvla": ("smolvla", {"num_steps": 2}, {"noise": [1, 8, 32]}),
    "pi0": ("pi0", {"num_inference_steps": 2}, FLOW),
    "pi05": ("pi05", {"num_inference_steps": 2}, FLOW),
}
# Types that the versions compute differently, and the least difference, as a share of the spread.
DIFFERENT = {"smolvla": 1e-3, "pi0": 1e-3, "pi05": 1e-2}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """case -> a checkpoint, what 0.4.4 does with it, and what was built of it: each once."""
    @functools.cache
    def made(case: str) -> SimpleNamespace:
        (kind, settings, shapes), folder = CASES[case], tmp_path_factory.mktemp(case)
        return SimpleNamespace(kind=kind, folder=folder, want=ask(folder, kind, settings, shapes), noise=drawn(shapes),
                               built={})

    return made


@pytest.fixture(params=CASES)
def earlier(request, checkpoints):
    return checkpoints(request.param)


def built(earlier, name: str, record=None, **options) -> tuple[dict, np.ndarray]:
    """(what the manifest says of the checkpoint, [seed, step, action]). record: of a row of the matrix."""
    if name not in earlier.built:
        earlier.built[name] = _built(earlier, name, record, **options)
    return earlier.built[name]


def _built(earlier, name: str, record, **options) -> tuple[dict, np.ndarray]:
    checkpoint, chosen = earlier.folder / "pretrained_model", CheckpointOptions(**options)
    with sized(earlier.kind, real=False):
        bundle, seconds = timed(lambda: vc.build(checkpoint, out=earlier.folder / name, options=chosen))
    written, steps = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")), earlier.want.shape[1]
    features = {n: SimpleNamespace(shape=f["shape"]) for n, f in written["input_features"].items()}
    policy = SimpleNamespace(config=SimpleNamespace(input_features=features, n_action_steps=steps,
                                                    action_chunk_size=steps))
    got = [compiled_actions(bundle, checkpoint, policy, observation(policy, seed), earlier.noise, chosen)
           for seed in SEEDS]
    if record is not None:
        compared(record, bundle, share_of_spread(np.stack(got), earlier.want), files="LeRobot 0.4.4, built with 0.6.1",
                 policy=earlier.kind, oracle="LeRobot 0.4.4", seconds=seconds)
    return bundle.manifest["provenance"]["origin"], np.stack(got)


def test_a_checkpoint_means_what_it_meant_to_its_writer(earlier, record_property):
    origin, got = built(earlier, "a.vlab", record_property)
    assert share_of_spread(got, earlier.want) < SHARE
    assert ("--transformers 4.53 or 5.5" in origin.get("assumed", "")) == (earlier.kind == "smolvla")
    assert origin["computed as"].startswith("LeRobot 0.4.4") and "LeRobot before 0." in origin["written by"]


def test_by_the_rules_of_another_version_it_means_something_else(earlier):
    origin, got = built(earlier, "b.vlab", lerobot="0.6.1")
    different = share_of_spread(got, earlier.want)
    assert different > DIFFERENT[earlier.kind] if earlier.kind in DIFFERENT else different < SHARE
    assert origin["spelled out"] == "--lerobot 0.6.1"


def test_the_transformers_that_no_file_names_can_be_chosen(checkpoints):
    """0.4.4's environment has transformers 4.57; 4.53 numbers a frame's patches as 5 does."""
    earlier = checkpoints("smolvla")
    origin, chosen = built(earlier, "c.vlab", transformers="4.53")
    assert "assumed" not in origin and origin["spelled out"] == "--transformers 4.53"
    _, later = built(earlier, "b.vlab", lerobot="0.6.1")
    assert share_of_spread(chosen, later) < SHARE and share_of_spread(chosen, earlier.want) > DIFFERENT["smolvla"]
