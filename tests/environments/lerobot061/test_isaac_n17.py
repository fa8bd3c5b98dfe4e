"""GR00T N1.7 checkpoints as NVIDIA's own code saves them, against what that code did with them.

isaac_n17.json was recorded by record_n17.py: config.json and the processor's files as saved, names and shapes of the
weights, and for each way of preparing numbers and frames the actions of three observations. Weights are drawn by name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments import isaac
from tests.environments.isaac import edit
from tests.environments.isaac_damages import NUMBERS, PROCESSOR, STATISTICS, damages, of_processor, of_robot
from tests.environments.lerobot061 import groot_n17 as tiny
from tests.environments.lerobot061 import record_n17 as recorded
from tests.environments.lerobot061.test_parity import SHARE
from tests.samples.shapes import compact
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.groot.read import open_checkpoint
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.phases.load_policy import environment_for, load_policy
from vlacompile.pipeline import plan
from vlart.errors import SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
FOUND = json.loads(recorded.RECORDED.read_text(encoding="utf-8"))
HEIGHT, WIDTH = tiny.CAMERAS["base"]
OPTIONS = CheckpointOptions(frame=f"{HEIGHT}x{WIDTH}")


def write(folder: Path, case: str) -> Path:
    """The checkpoint as it was saved, and beside it what it names."""
    saved = folder / isaac.CHECKPOINT
    saved.mkdir()
    with lerobot_importable():
        tiny.qwen(folder / recorded.NAME)
    settings = dict(recorded.CASES[case])
    tiny.robot_files(saved, recorded.TAG, **settings)
    for name in ("processor_config.json", "embodiment_id.json"):
        (saved / name).write_text(json.dumps(FOUND["cases"][case][name]), encoding="utf-8")
    (saved / "config.json").write_text(json.dumps(FOUND["config"]), encoding="utf-8")
    isaac.write_weights(FOUND["weights"])
    return saved


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Where names of models are folders."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compiled(bundle: vc.Bundle, seed: int) -> np.ndarray:
    frames, state = isaac.observation(seed, tiny.CAMERAS, sum(tiny.STATE.values()))
    return isaac.compiled(bundle, isaac.opened(OPTIONS), frames, state)


@pytest.mark.parametrize("case", variants(FOUND["cases"].keys() - {"two frames"}, ["opencv", "encodings"]))
def test_actions_are_those_of_nvidias_code(at, case, record_property):
    saved, wants = write(at, case), np.array(FOUND["cases"][case]["actions"])
    bundle, seconds = timed(lambda: vc.build(saved, out=at / "a.vlab", options=OPTIONS))
    gots = np.array([compiled(bundle, seed) for seed in range(isaac.SEEDS)])
    share = share_of_spread(gots, wants)
    assert (wants.std((0, 1)) > 0.01).all() and share < SHARE
    compared(record_property, bundle, share, files="NVIDIA Isaac-GR00T", policy=f"groot-n1.7-{case}",
             oracle="NVIDIA Isaac-GR00T", seconds=seconds)


def test_frames_before_this_one_are_kept_by_the_runtime(at, record_property):
    """The policy sees the newest frames and those of two observations before; the robot gives the newest."""
    saved, wants = write(at, "two frames"), np.array(FOUND["cases"]["two frames"]["actions"])
    bundle, seconds = timed(lambda: vc.build(saved, out=at / "a.vlab", options=OPTIONS))
    gots = isaac.of_two_frames(bundle, isaac.opened(OPTIONS), tiny.CAMERAS)
    share = share_of_spread(gots, wants)
    assert share < SHARE
    compared(record_property, bundle, share, files="NVIDIA Isaac-GR00T", policy="groot-n1.7-two-frames",
             oracle="NVIDIA Isaac-GR00T", seconds=seconds)


def test_another_way_of_preparing_gives_other_actions(at):
    """The tolerance tells apart the libraries that resize frames."""
    saved = write(at, "torchvision")
    of_processor(use_albumentations=True)
    got = compiled(vc.build(saved, out=at / "a.vlab", options=OPTIONS), 0)
    want = np.array(FOUND["cases"]["torchvision"]["actions"][0])
    assert (np.abs(got - want).max(0) > SHARE * np.ptp(want, 0)).any()


DAMAGES = damages(FOUND["weights"]) | {
    "no state": (lambda: of_processor(exclude_state=True), "exclude_state is not covered"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(at, damage):
    write(at, "torchvision")
    change, message = DAMAGES[damage]
    change()
    assert re.search(message, isaac.refused(OPTIONS))


def test_what_the_files_do_not_say_is_asked(at):
    saved = write(at, "torchvision")
    edit(PROCESSOR, lambda c: c["processor_kwargs"]["modality_configs"].update(robot=of_robot(c)))
    edit(STATISTICS, lambda c: c.update(robot=c[recorded.TAG]))
    size = OPTIONS.frame
    asked = {
        "several robots": CheckpointOptions(frame=size),
        'no embodiment "robt"': CheckpointOptions(frame=size, embodiment="robt"),
        "size of the cameras' frames is not known": CheckpointOptions(embodiment="robot"),
        "is no size": CheckpointOptions(embodiment="robot", frame="640"),
        'no camera "head"': CheckpointOptions(embodiment="robot", frame="head=48x72"),
        "of wrist": CheckpointOptions(embodiment="robot", frame="base=48x72"),
        "does not apply": CheckpointOptions(embodiment="robot", frame=size, lerobot="0.6.1"),
    }
    for message, options in asked.items():
        with pytest.raises(SourceError) as error:
            open_checkpoint(saved, options=options)
        assert message in f"{error.value.what} {error.value.why}" and error.value.where and error.value.fix
    policy = load_policy(saved, options=CheckpointOptions(embodiment="robot", frame="base=48x72,wrist=96x96"))
    assert policy.example_inputs["embodiment_id"].tolist() == [2]
    assert policy.example_inputs["observation.images.wrist"].shape == (1, 96, 96, 3)
    assert policy.origin["state"] == "arm 0-5, eef 6-14, gripper 15" and "robot" in policy.origin["spelled out"]


def test_a_training_leaves_the_processor_in_a_folder(at):
    saved = write(at, "torchvision")
    (saved / "processor").mkdir()
    for name in (PROCESSOR, STATISTICS, NUMBERS):
        (saved / name).rename(saved / "processor" / name)
    assert open_checkpoint(saved, options=OPTIONS).tag == recorded.TAG


def test_what_config_json_leaves_out_is_read_off_the_weights(at):
    """NVIDIA's code leaves out what is a default of its, and the defaults changed between its versions."""
    write(at, "torchvision")
    edit("config.json", lambda c: (c.pop("select_layer"), c.pop("max_num_embodiments")))
    assert load_policy("checkpoint", options=OPTIONS).example_inputs["noise"].shape == (1, 40, 132)


def test_plan_needs_no_weights(at):
    saved = write(at, "torchvision")
    (saved / "model.safetensors").unlink()
    assert plan(saved, weights=False, options=OPTIONS).stages


def test_weights_of_the_real_size_are_those_of_nvidias_code(at):
    saved = write(at, "torchvision")
    (saved / "model.safetensors").unlink()
    edit("config.json", lambda c: (c.clear(), c.update(FOUND["real"]["config"])))
    opened = open_checkpoint(saved, weights=False, options=OPTIONS)
    with lerobot_importable(), weightless():
        named = dict(opened.make().named_parameters())
    found = compact({n: p.shape for n, p in named.items() if not n.endswith("lm_head.weight")})
    assert found == FOUND["real"]["weights"]


def test_earlier_models_without_code_are_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gr00t_n1"}), encoding="utf-8")
    with pytest.raises(SourceError, match="is of GR00T N1"):
        environment_for(str(tmp_path))
