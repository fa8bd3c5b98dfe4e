"""FastWAM of LeRobot 0.6.1, which sees by an autoencoder that no checkpoint has, against LeRobot's own loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments.lerobot061 import fastwam
from tests.environments.lerobot061.registered import TASK, both
from tests.environments.lerobot061.test_parity import SHARE, loaded
from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.read import open_checkpoint, read_policy, tokens_of
from vlacompile.phases.load_policy import load_policy
from vlart.errors import SourceError

pytestmark = [pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                 reason="needs the environment lerobot061: make test-lerobot061"),
              pytest.mark.filterwarnings("ignore:CUDA is not available")]
CASES = {  # of the policy, of the build
    "fastwam": ({}, NONE),
    "fastwam-one-instruction": ({"inference_seed": None}, CheckpointOptions(instruction=TASK)),
}


@pytest.mark.parametrize("case", variants(CASES, ["fastwam-one-instruction"]))
def test_actions_are_those_of_lerobots_loop(case, tmp_path, record_property):
    settings, options = CASES[case]
    folder = tmp_path / "pretrained_model"
    fastwam.write(folder, **settings)
    with fastwam.downloaded(tmp_path / "wan"):
        bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab", options=options))
        tokens = {} if options.instruction else tokens_of(open_checkpoint(folder)[0], TASK)
        got, want = both(bundle, folder, loaded(folder), 6, tokens=tokens)
    share = share_of_spread(got, want)
    assert share < SHARE
    assert np.abs(got[0] - want[1]).max() > 100 * SHARE * want.std(), "another observation gives the same actions"
    compared(record_property, bundle, share, files="LeRobot 0.6.1", policy=case, oracle="LeRobot 0.6.1",
             seconds=seconds)


def test_the_noise_of_a_seed_is_a_constant(tmp_path):
    """As in LeRobot, which draws the same numbers for every chunk; another seed gives other actions."""
    actions = []
    for seed in (1, 2, None):
        folder = tmp_path / str(seed) / "c"
        fastwam.write(folder, inference_seed=seed)
        with fastwam.downloaded(folder.parent / "wan"):
            policy = read_policy(folder, options=CheckpointOptions(instruction=TASK))
        assert ("noise" in policy.sources) == (seed is None)
        actions.append(policy.infer(**policy.example_inputs)["action"])
    assert float((actions[0] - actions[1]).abs().max()) > 0.1


def test_the_instruction_is_an_input(tmp_path):
    fastwam.write(tmp_path / "c")
    with fastwam.downloaded(tmp_path / "wan"):
        policy = read_policy(tmp_path / "c")
        other = policy.encoding.encode("open the drawer", {})
    one, two = (policy.infer(**policy.example_inputs | tokens)["action"] for tokens in ({}, other))
    assert set(other) == set(policy.encoding.gives) and float((one - two).abs().max()) > 1e-3
    assert all(isinstance(t, torch.Tensor) for t in other.values())


def test_without_weights_the_stages_are_the_same(tmp_path):
    fastwam.write(tmp_path / "c")
    with fastwam.downloaded(tmp_path / "wan"):
        one, other = (load_policy(str(tmp_path / "c"), weights=weights) for weights in (True, False))
    assert one.sources == other.sources and one.execute == other.execute == 6


def test_without_the_autoencoder_the_message_names_it(tmp_path):
    fastwam.write(tmp_path / "c")
    with pytest.raises(SourceError) as caught:
        read_policy(tmp_path / "c")
    assert "Wan2.2" in caught.value.why
