"""GR00T N1.6 checkpoints as NVIDIA's own code saves them, against what that code did with them.

isaac_n16.json was recorded by record_n16.py: config.json and the processor's files as saved, names and shapes of the
weights, and for each way of preparing numbers and frames the actions of three observations. Weights are drawn by name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments import isaac
from tests.environments.isaac import edit
from tests.environments.isaac_damages import damages, of_processor, of_video
from tests.environments.lerobot061 import groot_n16 as tiny
from tests.environments.lerobot061 import record_n16 as recorded
from tests.environments.lerobot061.groot_n17 import STATE
from tests.environments.lerobot061.test_parity import SHARE
from tests.samples.shapes import compact
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.groot.read import open_checkpoint
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.phases.load_policy import load_policy
from vlacompile.pipeline import plan
from vlart.errors import SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
FOUND = json.loads(recorded.RECORDED.read_text(encoding="utf-8"))
FRAME = ",".join(f"{c}={h}x{w}" for c, (h, w) in tiny.CAMERAS.items())
OPTIONS = CheckpointOptions(frame=FRAME, letterbox="yes")


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Where names of models are folders."""
    monkeypatch.chdir(tmp_path)


def write(case: str = "opencv") -> Path:
    """The checkpoint as it was saved, and beside it what it names."""
    isaac.CHECKPOINT.mkdir()
    with lerobot_importable():
        tiny.eagle(Path(recorded.NAME))
    tiny.robot_files(isaac.CHECKPOINT, recorded.TAG, **recorded.CASES[case])
    for name in ("processor_config.json", "embodiment_id.json"):
        (isaac.CHECKPOINT / name).write_text(json.dumps(FOUND["cases"][case][name]), encoding="utf-8")
    (isaac.CHECKPOINT / "config.json").write_text(json.dumps(FOUND["config"]), encoding="utf-8")
    isaac.write_weights(FOUND["weights"])
    return isaac.CHECKPOINT


def seen(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return isaac.observation(seed, tiny.CAMERAS, sum(STATE.values()))


def compiled(bundle: vc.Bundle, seed: int) -> np.ndarray:
    return isaac.compiled(bundle, isaac.opened(OPTIONS), *seen(seed))


@pytest.mark.parametrize("case", variants(FOUND["cases"].keys() - {"two frames"}, ["torchvision", "encodings"]))
def test_actions_are_those_of_nvidias_code(at, case, record_property):
    saved, wants = write(case), np.array(FOUND["cases"][case]["actions"])
    bundle, seconds = timed(lambda: vc.build(saved, out="a.vlab", options=OPTIONS))
    share = share_of_spread(np.array([compiled(bundle, seed) for seed in range(isaac.SEEDS)]), wants)
    assert (wants.std((0, 1)) > 0.01).all() and share < SHARE
    compared(record_property, bundle, share, files="NVIDIA Isaac-GR00T", policy=f"groot-n1.6-{case}",
             oracle="NVIDIA Isaac-GR00T", seconds=seconds)


def test_frames_before_this_one_are_kept_by_the_runtime(at, record_property):
    """The policy sees the newest frames and those of two observations before; the robot gives the newest."""
    saved, wants = write("two frames"), np.array(FOUND["cases"]["two frames"]["actions"])
    bundle, seconds = timed(lambda: vc.build(saved, out="a.vlab", options=OPTIONS))
    share = share_of_spread(isaac.of_two_frames(bundle, isaac.opened(OPTIONS), tiny.CAMERAS), wants)
    assert share < SHARE
    assert share_of_spread(np.array([compiled(bundle, seed) for seed in range(isaac.SEEDS)]), wants) > 0.01
    compared(record_property, bundle, share, files="NVIDIA Isaac-GR00T", policy="groot-n1.6-two-frames",
             oracle="NVIDIA Isaac-GR00T", seconds=seconds)


@pytest.mark.parametrize("change", variants(["letterbox", "library", "cameras"], ["library", "cameras"]))
def test_another_way_of_preparing_gives_other_actions(at, change):
    saved, options = write(), OPTIONS
    if change == "letterbox":
        options = CheckpointOptions(frame=FRAME, letterbox="no")
    elif change == "library":
        of_processor(use_albumentations=False, image_target_size=[90, 90], image_crop_size=[86, 86])
    else:
        of_video(modality_keys=list(tiny.CAMERAS)[::-1])
    got = compiled(vc.build(saved, out="a.vlab", options=options), 0)
    want = np.array(FOUND["cases"]["opencv"]["actions"][0])
    assert (np.abs(got - want).max(0) > 10 * SHARE * np.ptp(want, 0)).any()


def of_eagle(change) -> None:
    edit(f"../{recorded.NAME}/config.json", change)


DAMAGES = damages(FOUND["weights"]) | {
    "no cameras": (lambda: of_video(modality_keys=[]), 'there is no camera "wrist"'),
    "no files of Eagle": (lambda: edit(f"../{recorded.NAME}/chat_template.json", None), "is not on this machine"),
    "another Eagle": (lambda: of_eagle(lambda c: c["vision_config"].update(use_windows_attn=True)),
                      "vision_config.use_windows_attn = True is not covered"),
    "a larger Eagle": (lambda: of_eagle(lambda c: c["text_config"].update(hidden_size=128)), "do not fit config.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(at, damage):
    write()
    change, message = DAMAGES[damage]
    change()
    assert re.search(message, isaac.refused(OPTIONS))


def test_what_the_files_do_not_say_is_asked(at):
    saved = write()
    asked = {"size of the cameras' frames is not known": CheckpointOptions(letterbox="yes"),
             "frames that are no squares are prepared": CheckpointOptions(frame=FRAME),
             "neither yes nor no": CheckpointOptions(frame=FRAME, letterbox="maybe"),
             "does not apply": CheckpointOptions(frame=FRAME, modality="modality.json")}
    for message, options in asked.items():
        assert message in isaac.refused(options)
    assert open_checkpoint(saved, options=CheckpointOptions(frame="60x60")).tag == recorded.TAG
    policy = load_policy(saved, options=OPTIONS)
    assert "--letterbox yes" in policy.origin["spelled out"]
    assert policy.origin["state"] == "arm 0-5, eef 6-14, gripper 15"


def test_an_instruction_is_as_long_as_it_may_be(at):
    of = open_checkpoint(write(), options=OPTIONS)
    with lerobot_importable():
        ids, mask = of.tokens("go")
        assert mask[0, -1] and not mask[0, 0] and ids.shape == mask.shape
        with pytest.raises(SourceError, match="the instruction is too long"):
            of.tokens("pick up the cube " * 30)


def test_a_training_that_drops_the_state_saves_a_token_for_it(at):
    write()
    edit("config.json", lambda c: c.update(state_dropout_prob=0.2))
    isaac.write_weights(FOUND["weights"], lambda t: t.update(
        {"action_head.mask_token": torch.zeros(1, 1, FOUND["config"]["input_embedding_dim"])}))
    assert load_policy(isaac.CHECKPOINT, options=OPTIONS).name == "groot_n16"


def test_plan_needs_no_weights(at):
    saved = write()
    (saved / "model.safetensors").unlink()
    assert plan(saved, weights=False, options=OPTIONS).stages


def test_weights_of_the_real_size_are_those_of_nvidias_code(at):
    saved = write()
    (saved / "model.safetensors").unlink()
    edit("config.json", lambda c: (c.clear(), c.update(FOUND["real"]["config"])))
    of_eagle(lambda c: (c.clear(), c.update(FOUND["real"]["eagle"])))
    opened = open_checkpoint(saved, weights=False, options=OPTIONS)
    with lerobot_importable(), weightless():
        named = dict(opened.make().named_parameters())
    found = compact({n: p.shape for n, p in named.items() if not n.endswith("lm_head.weight")})
    assert found == FOUND["real"]["weights"]
