"""MolmoAct2 of LeRobot 0.6.1, whose preprocessor computes by NumPy, against LeRobot's own loop."""

from __future__ import annotations

import json

import numpy as np
import pytest

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments.lerobot061 import molmoact2
from tests.environments.lerobot061.registered import TASK, both
from tests.environments.lerobot061.test_parity import SHARE
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.read import open_checkpoint, read_policy
from vlacompile.phases.load_policy import load_policy
from vlart.errors import SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
FOR_ONE = CheckpointOptions(instruction=TASK)
CASES = {  # how frames are cut, of the policy, of the model
    "molmoact2": ("resize", {}, {}),
    "molmoact2-crops": ("overlap-and-resize-c2", {"normalize_gripper": True, "joint_signs": [1.0, -1.0],
                                                  "joint_offsets": [0.0, 0.5]},
                        {"action_expert_depth_gate": True, "action_mode": "continuous"}),
}


@pytest.mark.parametrize("case", variants(CASES, ["molmoact2-crops"]))
def test_actions_are_those_of_lerobots_loop(case, tmp_path, record_property):
    crop_mode, settings, model = CASES[case]
    folder = tmp_path / "pretrained_model"
    policy = molmoact2.write(folder, crop_mode, model, **settings)
    bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab", options=FOR_ONE))
    got, want = both(bundle, folder, policy, 4, molmoact2.seen)
    share = share_of_spread(got, want)
    assert share < SHARE
    assert np.abs(got[0] - want[1]).max() > 100 * SHARE * want.std(), "another observation gives the same actions"
    compared(record_property, bundle, share, files="LeRobot 0.6.1", policy=case, oracle="LeRobot 0.6.1",
             seconds=seconds)


def test_the_state_reaches_the_actions_by_the_prompt(tmp_path):
    """As a token of 256 values: what is beyond the statistics is their end."""
    molmoact2.write(tmp_path / "c")
    policy = read_policy(tmp_path / "c", options=FOR_ONE)
    example = policy.example_inputs

    def actions(place: float):
        state = example["observation.state"].clone()
        state[0, 0] = place
        return policy.infer(**example | {"observation.state": state})["action"]

    end, beyond, inside = actions(50.0), actions(500.0), actions(0.1)
    assert bool((end == beyond).all()) and float((end - inside).abs().max()) > 1e-3


def test_without_weights_the_stages_are_the_same(tmp_path):
    molmoact2.write(tmp_path / "c", action_mode="continuous")
    one, other = (load_policy(str(tmp_path / "c"), weights=weights, options=FOR_ONE) for weights in (True, False))
    assert one.sources == other.sources and one.execute == other.execute == 4
    assert {n: t.shape for n, t in one.example_inputs.items()} == {n: t.shape for n, t in other.example_inputs.items()}


def changed(folder, file: str, **values) -> None:
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(content | values), encoding="utf-8")


def test_a_policy_trained_for_both_is_sampled_by_its_flow(tmp_path):
    molmoact2.write(tmp_path / "c")
    want = read_policy(tmp_path / "c", options=FOR_ONE)
    changed(tmp_path / "c", "config.json", action_mode="both", inference_action_mode=None)
    policy = read_policy(tmp_path / "c", options=FOR_ONE)
    got, expected = (p.infer(**want.example_inputs)["action"] for p in (policy, want))
    assert bool((got == expected).all()) and "noise" in policy.sources


def test_actions_as_tokens_are_refused(tmp_path):
    molmoact2.write(tmp_path / "c")
    changed(tmp_path / "c", "config.json", action_mode="both", inference_action_mode="discrete")
    with pytest.raises(SourceError, match="actions as tokens are not compiled"):
        read_policy(tmp_path / "c", options=FOR_ONE)


def test_an_instruction_that_lerobot_refuses_is_refused(tmp_path):
    molmoact2.write(tmp_path / "c")
    with pytest.raises(SourceError, match="the instruction is too long"):
        read_policy(tmp_path / "c", options=CheckpointOptions(instruction=TASK * 200))


def test_without_an_instruction_the_message_says_how_to_give_one(tmp_path):
    molmoact2.write(tmp_path / "c")
    with pytest.raises(SourceError) as caught:
        read_policy(tmp_path / "c")
    assert "--instruction" in caught.value.fix


def test_statistics_that_are_missing_are_refused(tmp_path):
    molmoact2.write(tmp_path / "c")
    content = json.loads((tmp_path / "c" / "policy_postprocessor.json").read_text(encoding="utf-8"))
    content["steps"] = [s for s in content["steps"] if s["registry_name"] != "molmoact2_masked_unnormalizer"]
    changed(tmp_path / "c", "policy_postprocessor.json", **content)
    with pytest.raises(SourceError, match="no step molmoact2_masked_unnormalizer"):
        open_checkpoint(tmp_path / "c")
