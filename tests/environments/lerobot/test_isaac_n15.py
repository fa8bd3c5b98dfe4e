"""GR00T N1.5 checkpoints as NVIDIA's own code saves them, against what that code did with them.

isaac_n15.json was recorded by record_n15.py: config.json as saved, names and shapes of the weights, and for two ways of
normalising the actions of three observations. Weights are drawn by name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed
from tests.environments import isaac
from tests.environments.isaac import edit
from tests.environments.lerobot import record_n15 as recorded
from tests.environments.lerobot.checkpoints import eagle
from tests.samples.shapes import compact
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.groot.read import open_checkpoint
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.phases.load_policy import load_policy
from vlacompile.pipeline import plan
from vlart.errors import SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
FOUND = json.loads(recorded.RECORDED.read_text(encoding="utf-8"))
SHARE = 1e-4  # of each action dimension's spread
GREY = 5e-3  # where frames have areas of one grey, whose level is the original's or one beside it: a 256th of white
OPTIONS = CheckpointOptions(modality="modality.json")
METADATA = recorded.metadata()


def write(case: str = "min_max") -> Path:
    """Into the current folder: the checkpoint as it was saved, and beside it what it needs."""
    saved = isaac.CHECKPOINT
    (saved / "experiment_cfg").mkdir(parents=True)
    with lerobot_importable():
        eagle(Path(recorded.EAGLE), False)
    (saved / "config.json").write_text(json.dumps(FOUND["config"]), encoding="utf-8")
    (saved / "experiment_cfg" / "metadata.json").write_text(json.dumps(METADATA), encoding="utf-8")
    isaac.write_weights(FOUND["weights"])
    Path("modality.json").write_text(json.dumps(recorded.modality(case)), encoding="utf-8")
    return saved


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def compiled(bundle: vc.Bundle, seed: int, areas: bool = False) -> np.ndarray:
    return isaac.compiled(bundle, isaac.opened(OPTIONS), *recorded.observation(seed, areas))


@pytest.mark.parametrize("case", FOUND["actions"])
def test_actions_are_those_of_nvidias_code(here, case, record_property):
    saved, wants = write(case), np.array(FOUND["actions"][case])
    bundle, seconds = timed(lambda: vc.build(saved, out="a.vlab", options=OPTIONS))
    gots = np.array([compiled(bundle, seed) for seed in range(isaac.SEEDS)])
    share = share_of_spread(gots, wants)
    assert (wants.std((0, 1)) > 0.02).all() and share < SHARE
    compared(record_property, bundle, share, files="NVIDIA Isaac-GR00T", policy=f"groot-n1.5-{case}",
             oracle="NVIDIA Isaac-GR00T", seconds=seconds)
    wants = np.array(FOUND["areas"][case])
    gots = np.array([compiled(bundle, seed, True) for seed in range(isaac.SEEDS)])
    assert share_of_spread(gots, wants) < GREY


def test_another_order_of_the_cameras_gives_other_actions(here):
    saved = write()
    edit("../modality.json", lambda c: c["video"]["keys"].reverse())
    got = compiled(vc.build(saved, out="a.vlab", options=OPTIONS), 0)
    want = np.array(FOUND["actions"]["min_max"][0])
    assert (np.abs(got - want).max(0) > 10 * SHARE * np.ptp(want, 0)).any()


def weights(change) -> None:
    isaac.write_weights(FOUND["weights"], change)


FILE, TOLD, TAG = "experiment_cfg/metadata.json", "../modality.json", recorded.TAG
BIAS = "action_head.action_decoder.layer2.b"
DAMAGES = {
    "no metadata": (lambda: edit(FILE, None), f"{FILE} is missing"),
    "no weights": ((isaac.CHECKPOINT / "model.safetensors").unlink, "has no weights"),
    "no sizes": (lambda: edit("config.json", lambda c: c.pop("action_head_cfg")), "has no sizes of the model"),
    "another robot": (lambda: edit(FILE, lambda c: c.update(so100=c.pop(TAG))), '"so100" has no number'),
    "a group without statistics": (lambda: edit(FILE, lambda c: c[TAG]["statistics"]["action"].pop("arm")),
                                   'statistics of action "arm" are missing'),
    "statistics of another robot": (lambda: edit(FILE, lambda c: c[TAG]["statistics"]["action"]["arm"].update(
        min=[0.0] * 7, max=[1.0] * 7)), 'statistics of action "arm" are missing or do not fit it'),
    "NaN": (lambda: edit(FILE, lambda c: c[TAG]["statistics"]["state"]["arm"].update(min=[float("nan")] * 5)),
            'statistics of state "arm" hold NaN'),
    "a maximum below its minimum": (lambda: edit(FILE, lambda c: c[TAG]["statistics"]["state"]["arm"].update(
        max=[-1e9] * 5)), 'statistics of state "arm" are damaged: max is below min'),
    "words for numbers": (lambda: edit(FILE, lambda c: c[TAG]["statistics"]["state"]["arm"].update(max=["1"] * 5)),
                          'statistics of state "arm" are missing or do not fit it'),
    "beyond floating point": (lambda: edit(FILE, lambda c: c[TAG]["statistics"]["state"]["arm"].update(
        max=[10 ** 400] * 5)), 'statistics of state "arm" hold NaN or infinity'),
    "no frame size": (lambda: edit(FILE, lambda c: c[TAG]["modalities"]["video"]["base"].pop("resolution")),
                      'size of the frames of "base" is missing'),
    "a missing weight": (lambda: weights(lambda t: t.pop(BIAS)), f"the weights do not fit config.json.*{BIAS}"),
    "an unknown weight": (lambda: weights(lambda t: t.update(mask_token=torch.zeros(1))), "do not fit config.json"),
    "a weight of another shape": (lambda: weights(lambda t: t.update({BIAS: torch.zeros(32, 31)})),
                                  "the weights do not fit config.json"),
    "a group that is not there": (lambda: edit(TOLD, lambda c: c["state"]["keys"].append("hand")),
                                  'has no state "hand"'),
    "a mode that is not there": (lambda: edit(TOLD, lambda c: c["action"]["modes"].pop("arm")),
                                 'the mode of action "arm" is None'),
    "actions as waves": (lambda: edit(TOLD, lambda c: c["action"]["modes"].update(arm="sin_cos")),
                         'the mode of action "arm" is sin_cos'),
    "rotations": (lambda: edit(TOLD, lambda c: c["state"].update(target_rotations={"arm": "rotation_6d"})),
                  '"target_rotations" is not understood'),
    "no crop": (lambda: edit(TOLD, lambda c: c["video"].pop("crop")), "how frames are prepared is not said"),
    "another size": (lambda: edit(TOLD, lambda c: c["video"].update(size=[64, 64])), "64x64 are not covered"),
    "no cameras": (lambda: edit(TOLD, lambda c: c["video"].update(keys=[])), '"keys" of video are missing'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(here, damage):
    write()
    change, message = DAMAGES[damage]
    change()
    assert re.search(message, isaac.refused(OPTIONS))


def test_what_the_files_do_not_say_is_asked(here):
    saved = write()
    with pytest.raises(SourceError, match="numbers the policy takes is not known") as error:
        open_checkpoint(saved)
    assert "action: arm, joints, gripper" in error.value.why and "--modality" in error.value.fix
    edit(FILE, lambda c: c.update(new_embodiment=c[TAG]))
    for options, message in ((OPTIONS, "for several robots"),
                             (CheckpointOptions(modality="modality.json", embodiment="gr2"), 'no embodiment "gr2"'),
                             (CheckpointOptions(modality="modality.json", frame="60x80"), "does not apply")):
        with pytest.raises(SourceError, match=message):
            open_checkpoint(saved, options=options)
    policy = load_policy(saved, options=CheckpointOptions(modality="modality.json", embodiment="new_embodiment"))
    assert policy.example_inputs["embodiment_id"].tolist() == [31]
    assert policy.example_inputs["observation.images.base"].shape == (1, 60, 80, 3)
    assert policy.origin["action"] == "arm 0-4, joints 5-6, gripper 7"


def test_fewer_actions_are_those_of_a_shorter_head(here):
    saved = write()
    edit(TOLD, lambda c: c["action"].update(steps=8))
    assert load_policy(saved, options=OPTIONS).example_inputs["noise"].shape == (1, 8, 32)


def test_a_head_that_is_saved_too_does_not_replace_the_embedding(here):
    """They are tied in the language model; a training that loads the base model saves both, and changes one."""
    saved, chunks = write(), []
    head = next(n for n in FOUND["weights"] if n.endswith("embed_tokens.weight")).replace(
        "model.embed_tokens", "lm_head")
    for more in ({}, {head: torch.ones(512, 64)}):
        weights(lambda t, more=more: t.update(more))
        policy = load_policy(saved, options=OPTIONS)
        with torch.no_grad():
            chunks.append(policy.observe(**policy.example_inputs)["action"])
    assert torch.equal(*chunks)


def test_plan_needs_no_weights(here):
    saved = write()
    (saved / "model.safetensors").unlink()
    assert plan(saved, weights=False, options=OPTIONS).stages


def test_weights_of_the_real_size_are_those_of_nvidias_code(here):
    saved = write()
    edit("config.json", lambda c: (c.clear(), c.update(FOUND["real"]["config"])))
    with lerobot_importable():
        eagle(Path("real"), True)
    Path("real", "config.json").replace(Path(recorded.EAGLE, "config.json"))
    opened = open_checkpoint(saved, weights=False, options=OPTIONS)
    with lerobot_importable(), weightless():
        named = dict(opened.make().named_parameters())
    found = compact({n: p.shape for n, p in named.items() if not n.endswith("lm_head.weight")})
    assert found == FOUND["real"]["weights"]
