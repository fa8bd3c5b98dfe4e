"""Numbers that nothing normalises, only if a person says so; actions that are offsets to the state, only whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frontends.lerobot.small_checkpoint import (
    FEATURES,
    OUT,
    POST,
    PRE,
    both,
    change,
    drop_step,
    edit_step,
    modes,
    of_kind,
    say_modes,
)
from tests.frontends.lerobot.test_checkpoint import UNITS
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.lerobot.read import open_checkpoint, origin_of
from vlacompile.frontends.lerobot.statistics import Normalisation
from vlart.errors import SourceError

RAW = {  # what is missing, the option that allows it
    "no postprocessor": (UNITS["no postprocessor"][0], {"raw_actions": True}),
    "no un-normaliser": (UNITS["no un-normaliser, and modes"][0], {"raw_actions": True}),
    "un-normaliser of identity": (both(say_modes, modes(POST, OUT, ACTION="IDENTITY")), {"raw_actions": True}),
    "no preprocessor": (UNITS["no preprocessor"][0], {"raw_observations": True}),
    "no normaliser": (UNITS["no normaliser"][0], {"raw_observations": True}),
    "neither": (UNITS["neither, and modes"][0], {"raw_actions": True, "raw_observations": True}),
}


@pytest.mark.parametrize("case", RAW)
def test_raw_numbers_only_if_a_person_says_so(checkpoint, case):
    edit, spoken = RAW[case]
    edit(checkpoint)
    for options in (CheckpointOptions(), CheckpointOptions(raw_actions="raw_actions" not in spoken,
                                                           raw_observations="raw_observations" not in spoken)):
        with pytest.raises(SourceError):
            open_checkpoint(checkpoint, options=options)
    found = open_checkpoint(checkpoint, options=CheckpointOptions(**spoken))[0]
    raw = {n for n in (*FEATURES, "action") if found.normalise.get(n, Normalisation("IDENTITY", {}, 0)).mode
           == "IDENTITY"}
    assert raw == ({"action"} if "raw_actions" in spoken else set()) | (
        set(FEATURES) if "raw_observations" in spoken else set())
    said = origin_of(found)["spelled out"]
    assert all(f"--assume-{word.replace('_', '-')}" in said for word in spoken)


@pytest.mark.parametrize("option", ["raw_actions", "raw_observations"])
def test_a_checkpoint_that_normalises_is_not_taken_for_raw(checkpoint, option):
    with pytest.raises(SourceError) as error:
        open_checkpoint(checkpoint, options=CheckpointOptions(**{option: True}))
    assert "contradicts the checkpoint" in error.value.what and error.value.fix


def test_refusals_name_the_option(checkpoint):
    (checkpoint / POST).unlink()
    with pytest.raises(SourceError, match="--assume-raw-actions"):
        open_checkpoint(checkpoint)


@pytest.fixture
def relative(checkpoint) -> Path:
    """Actions that are offsets to the state, of two joints, one of which is excluded."""
    of_kind(checkpoint, "pi0", use_relative_actions=True)
    change(checkpoint / PRE, lambda d: d["steps"].insert(2, {"registry_name": "relative_actions_processor", "config": {
        "enabled": True, "exclude_joints": ["Gripper"], "action_names": ["joint_0.pos", "gripper.pos"]}}))
    change(checkpoint / POST, lambda d: d["steps"].append({"registry_name": "absolute_actions_processor", "config": {
        "enabled": True}}))
    return checkpoint


def test_relative_actions_are_read(relative):
    assert open_checkpoint(relative)[0].relative == (True, False)
    edit_step(PRE, "relative_actions_processor", lambda s: s["config"].update(action_names=None))(relative)
    assert open_checkpoint(relative)[0].relative == (True, True)
    for file, name in ((PRE, "relative_actions_processor"), (POST, "absolute_actions_processor")):
        edit_step(file, name, lambda s: s["config"].update(enabled=False))(relative)
    change(relative / "config.json", lambda d: d.update(use_relative_actions=False))
    assert open_checkpoint(relative)[0].relative is None


@pytest.mark.parametrize("damage,message", [
    (drop_step(PRE, "relative_actions_processor"), "has no step relative_actions_processor"),
    (drop_step(POST, "absolute_actions_processor"), "has no step absolute_actions_processor"),
    (edit_step(POST, "absolute_actions_processor", lambda s: s["config"].update(enabled=False)),
     "has no step absolute_actions_processor that is enabled"),
    (both(*(drop_step(f, f"{n}_actions_processor") for f, n in ((PRE, "relative"), (POST, "absolute")))),
     "has no step relative_actions_processor"),
    (lambda c: change(c / POST, lambda d: d["steps"].reverse()), "comes before unnormalizer_processor"),
    (lambda c: change(c / PRE, lambda d: d["steps"].insert(0, d["steps"].pop(3))), "comes before relative"),
    (lambda c: change(c / "config.json", lambda d: d["input_features"].pop("observation.state")), "a state that is "
                                                                                                  "not there"),
])
def test_half_of_relative_actions_is_refused(relative, damage, message):
    damage(relative)
    with pytest.raises(SourceError) as error:
        open_checkpoint(relative)
    assert message in error.value.what and error.value.why and error.value.fix
