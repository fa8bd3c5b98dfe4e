"""GR00T N1.7, compiled, against LeRobot 0.6.1's own preprocessor, policy and postprocessor."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments.lerobot.parity import INSTRUCTION, compiled_actions, observation
from tests.environments.lerobot061 import groot_n17
from tests.environments.lerobot061.test_parity import SHARE
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.read import open_checkpoint, read_policy, tokens_of
from vlacompile.pipeline import plan
from vlart.errors import SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
CASES = {
    # statistics of the dataset, frames prepared as N1.7 was trained, 40 actions
    "dataset": {},
    # the base model's statistics; joints relative, poses relative, two statistics; fewer denoising steps
    "native": {"native": True, "use_relative_actions": True, "num_inference_timesteps": 2},
    "letterbox": {"native": True, "use_relative_actions": True,
                  "processor": {"letter_box_transform": True, "shortest_image_edge": 80, "crop_fraction": 0.9}},
}


def chunk(folder: Path, policy: torch.nn.Module, seen: dict, instruction: str = INSTRUCTION) -> np.ndarray:
    """[steps, action_dim] from LeRobot's own code; its noise is the first draw after the seed."""
    with lerobot_importable(), groot_n17.runs():
        from lerobot.policies.factory import make_pre_post_processors

        pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
        raw = {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.dtype == np.uint8 else torch.from_numpy(a)
               for n, a in seen.items()}
        torch.manual_seed(1)
        return post(policy.predict_action_chunk(pre(raw | {"task": instruction})))[0].numpy()


def noise() -> dict[str, torch.Tensor]:
    return {"noise": torch.randn(1, 40, 132, generator=torch.Generator().manual_seed(1))}


@pytest.fixture(scope="module", params=variants(CASES, ["letterbox"]))
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "pretrained_model"
    folder.mkdir()
    policy = groot_n17.write(folder, **CASES[request.param])
    return folder, policy, *timed(lambda: vc.build(folder, out=folder.parent / "a.vlab"))


def test_actions_are_those_of_lerobot(built, request, record_property):
    folder, policy, bundle, seconds = built
    wants, gots = [], []
    for seed in range(3):
        seen = observation(policy, seed)
        got = compiled_actions(bundle, folder, policy, seen, noise())
        wants.append(chunk(folder, policy, seen)[: len(got)])
        gots.append(got)
    want, got = np.concatenate(wants), np.concatenate(gots)
    share = share_of_spread(got, want)
    assert (want.std(0) > 0.02).all() and share < SHARE
    compared(record_property, bundle, share, files="LeRobot 0.6.1", oracle="LeRobot 0.6.1", seconds=seconds,
             policy=f"groot-n1.7-{request.node.callspec.id}")


def test_another_observation_gives_other_actions(built):
    """Cameras exchanged, another instruction and another state move the actions by more than the tolerance."""
    folder, policy, bundle, _ = built
    seen = observation(policy, 0)
    want = chunk(folder, policy, seen)
    wrist, base = "observation.images.wrist", "observation.images.base"
    swapped = seen | {wrist: seen[base], base: seen[wrist]}
    for other in (chunk(folder, policy, swapped), chunk(folder, policy, seen, "open the drawer"),
                  chunk(folder, policy, seen | {"observation.state": 0.5 * seen["observation.state"]})):
        assert np.abs(other - want).max() > 10 * SHARE
    got = compiled_actions(bundle, folder, policy, swapped, noise())
    assert np.abs(got - want[: len(got)]).max() > 10 * SHARE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groot") / "pretrained_model"
    folder.mkdir()
    groot_n17.write(folder, native=True, use_relative_actions=True, embodiments=2 + max(
        groot_n17.EMBODIMENTS.values()))
    return folder


@pytest.fixture
def changed(checkpoint):
    """changed(file, edit): the checkpoint with a file edited, until the test ends. edit: of its JSON, or None: none."""
    before = {}

    def change(file: str, edit) -> None:
        path = checkpoint / file
        before.setdefault(path, path.read_bytes())
        if edit is None:
            path.unlink()
            return
        content = json.loads(path.read_text(encoding="utf-8"))
        edit(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    yield change
    for path, content in before.items():
        path.write_bytes(content)


def step(content: dict, name: str) -> dict:
    return next(s for s in content["steps"] if s["registry_name"] == name)["config"]


def without(content: dict, name: str) -> None:
    content["steps"] = [s for s in content["steps"] if s["registry_name"] != name]


PACK, ENCODE, DECODE = "groot_n1_7_pack_inputs_v1", "groot_n1_7_vlm_encode_v1", "groot_n1_7_action_decode_v1"
DAMAGES = {
    "no pack step": (PRE, lambda c: without(c, PACK), f"has no step {PACK}"),
    "no encode step": (PRE, lambda c: without(c, ENCODE), f"{PRE} has no step {ENCODE}"),
    "no decode step": (POST, lambda c: without(c, DECODE),
                       f"has no step groot_action_unpack_unnormalize_v2 or {DECODE}"),
    "no postprocessor": (POST, None, f"{POST} is missing"),
    "step of a later version": (PRE, lambda c: c["steps"].append({"registry_name": "groot_n1_8", "config": {}}),
                                '"groot_n1_8" that is not supported'),
    "does not normalise": (PRE, lambda c: step(c, PACK).update(normalize_min_max=False), "does not normalise"),
    "another robot's cameras": (PRE, lambda c: step(c, PACK).update(video_modality_keys=["head", "base"]),
                                "the cameras are not those of the training"),
    "statistics of a group": (POST, lambda c: step(c, DECODE)["raw_stats"]["action"].pop("gripper"),
                              'statistics of "gripper" are missing'),
    "statistics of relative actions": (POST, lambda c: step(c, DECODE)["raw_stats"].pop("relative_action"),
                                       'statistics of "arm" are missing'),
    "statistics of another robot": (POST, lambda c: step(c, DECODE)["raw_stats"]["action"]["gripper"].update(
        q01=[0.0] * 2, q99=[1.0] * 2), 'statistics of "action" do not fit it'),
    "NaN": (POST, lambda c: step(c, DECODE)["raw_stats"]["action"]["gripper"].update(q01=[float("nan")]), "hold NaN"),
    "reference of another size": (POST, lambda c: step(c, DECODE)["modality_config"]["action"]["action_configs"][
        0].update(state_key="eef"), "is relative to a state that does not fit it"),
    "poses of another form": (POST, lambda c: step(c, DECODE)["modality_config"]["action"]["action_configs"][1].update(
        format="XYZ_ROTVEC"), '"eef" is relative as XYZ_ROTVEC'),
    "statistics of the state": (PRE, lambda c: next(s for s in c["steps"] if s["registry_name"] == PACK).pop(
        "state_file"), 'statistics of "observation.state" are missing'),
    "no state reference": (PRE, lambda c: c["steps"].insert(0, {"registry_name": "relative_actions_processor",
                                                                "config": {"enabled": True}}),
                           "has no step absolute_actions_processor"),
    "sizes that were not downloaded": ("config.json", lambda c: c.update(base_model_path="nvidia/no-such-model"),
                                       "config.json of nvidia/no-such-model is not on this machine"),
    "tokenizer that was not downloaded": (PRE, lambda c: step(c, ENCODE).update(model_name="nvidia/no-such-model"),
                                          "tokenizer_config.json of nvidia/no-such-model is not on this machine"),
    "sizes of another model": ("base/config.json", lambda c: c.update(hidden_size=32), "cannot build this policy"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(checkpoint, changed, damage):
    file, edit, message = DAMAGES[damage]
    changed(file, edit)
    with pytest.raises(SourceError, match=message) as error:
        read_policy(checkpoint)
    assert error.value.where and error.value.why and error.value.fix


def test_plan_needs_no_weights_and_drops_other_embodiments(checkpoint, changed):
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        banks = {n: math.prod(file.get_slice(n).get_shape()) for n in file.keys()  # noqa: SIM118  it is no dict
                 if any(b in n for b in ("state_encoder", "action_encoder", "action_decoder"))}
    changed("model.safetensors", None)
    found = plan(checkpoint, weights=False)
    embodiments = json.loads((checkpoint / "base" / "config.json").read_text(encoding="utf-8"))["max_num_embodiments"]
    assert len(banks) == 2 * 7, "weight and bias of seven layers"
    dropped = sum(banks.values()) * (embodiments - 1) // embodiments
    assert dropped <= found.parameters["dropped"] < dropped + sum(banks.values()) // embodiments


def test_instructions_are_said_formally(checkpoint):
    opened, _ = open_checkpoint(checkpoint)
    said = ("open the drawer", "Open, the DRAWER!")
    plain, loud = (tokens_of(opened, text)["observation.language.tokens"] for text in said)
    assert torch.equal(plain, loud)
    with pytest.raises(SourceError, match="too long"):
        tokens_of(opened, "open the drawer and " * 40)
