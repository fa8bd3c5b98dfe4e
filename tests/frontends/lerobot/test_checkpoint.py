"""LeRobot checkpoint directories that are damaged or do not fit: refused from their files alone, without LeRobot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.frontends.lerobot.small_checkpoint import (
    ACTION,
    IN,
    MODES,
    OUT,
    POST,
    PRE,
    both,
    change,
    drop_step,
    edit_step,
    modes,
    of_kind,
    resave,
    say_modes,
    write,
)
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.checkpoint import Tokenization, read_checkpoint
from vlacompile.frontends.lerobot.normalise import normalise, unnormalise
from vlacompile.frontends.lerobot.read import open_checkpoint
from vlacompile.frontends.lerobot.statistics import Normalisation
from vlacompile.phases.load_policy import load_policy
from vlart.errors import SourceError


def renames(table: dict):
    return edit_step(PRE, "rename_observations_processor", lambda s: s["config"].update(rename_map=table))


def read(path: Path):
    return read_checkpoint(path, frozenset(), frozenset())


def test_a_whole_checkpoint_is_read(checkpoint):
    found = read(checkpoint)
    assert found.images() == ["observation.images.top"] and found.action.shape == (2,)
    assert {n: v.mode for n, v in found.normalise.items()} == {
        "observation.images.top": "MEAN_STD", "observation.state": "MEAN_STD", "action": "MIN_MAX"}


def test_cameras_are_renamed_back_to_the_robots_names(checkpoint):
    change(checkpoint / "policy_preprocessor.json", lambda d: d["steps"][0]["config"].update(
        rename_map={"observation.images.front": "observation.images.top"}))
    assert read(checkpoint).robot_name("observation.images.top") == "observation.images.front"


# Everything by which actions would leave the policy in the wrong units, or it would see its inputs in the wrong ones.
UNITS = {
    "no postprocessor": (lambda c: (c / POST).unlink(), f"{POST} is missing"),
    "no preprocessor": (lambda c: (c / PRE).unlink(), f"{PRE} is missing"),
    "neither": (lambda c: [(c / f).unlink() for f in (PRE, POST)], f"{PRE} and {POST} are missing"),
    "neither, and modes": (both(lambda c: [(c / f).unlink() for f in (PRE, POST)], say_modes), "are missing"),
    "no un-normaliser": (drop_step(POST, OUT), f"{POST} has no step {OUT}"),
    "no un-normaliser, and modes": (both(say_modes, drop_step(POST, OUT)), f"{POST} has no step {OUT}"),
    "no steps at all": (lambda c: write(c / POST, {"steps": []}), f"{POST} has no step {OUT}"),
    "no steps in either": (lambda c: [write(c / f, {"steps": []}) for f in (PRE, POST)], f"{PRE} has no step {IN}"),
    "no normaliser": (drop_step(PRE, IN), f"{PRE} has no step {IN}"),
    "un-normaliser of nothing": (edit_step(POST, OUT, lambda s: s["config"].update(features={})), 'has no "action"'),
    "un-normaliser of another name": (edit_step(POST, OUT, lambda s: s["config"].update(
        features={"actions": ACTION["action"]})), 'has no "action"'),
    "action of another type": (edit_step(POST, OUT, lambda s: s["config"].update(
        features={"action": {"type": "STATE", "shape": [2]}})), 'has no "action"'),
    "un-normaliser without modes": (edit_step(POST, OUT, lambda s: s["config"].pop("norm_map")),
                                    "does not change ACTION"),
    "un-normaliser without a mode": (edit_step(POST, OUT, lambda s: s["config"]["norm_map"].pop("ACTION")),
                                     "does not change ACTION"),
    "un-normaliser of identity": (modes(POST, OUT, ACTION="IDENTITY"),
                                  "actions are normalised as MIN_MAX and un-normalised as IDENTITY"),
    "normaliser of identity": (modes(PRE, IN, ACTION="IDENTITY"),
                               "actions are normalised as IDENTITY and un-normalised as MIN_MAX"),
    "two modes": (modes(POST, OUT, ACTION="MEAN_STD"),
                  "actions are normalised as MIN_MAX and un-normalised as MEAN_STD"),
    "identity twice, trained otherwise": (both(say_modes, modes(PRE, IN, ACTION="IDENTITY"),
                                               modes(POST, OUT, ACTION="IDENTITY")), "does not change ACTION"),
    "state as it is, trained otherwise": (both(say_modes, modes(PRE, IN, STATE="IDENTITY")), "does not change STATE"),
    "state of another type": (edit_step(PRE, IN,
                                        lambda s: s["config"]["features"]["observation.state"].update(type="ENV")),
                              'takes "observation.state" for ENV'),
    "statistics not named": (edit_step(POST, OUT, lambda s: s.pop("state_file")), 'statistics of "action" are missing'),
    "statistics of other names": (resave(lambda t: t.update({"actions.min": t.pop("action.min")})),
                                  'statistics of "action" are missing: min'),
    "statistics never filled": (resave(lambda t: t.update({"action.max": torch.full((2,), torch.inf)})),
                                'statistics of "action" hold NaN or infinity: max'),
    "statistics of another robot": (resave(lambda t: t.update({"action.max": torch.ones(7)})),
                                    'statistics of "action" do not fit it'),
    "un-normalised twice": (lambda c: change(c / POST, lambda d: d["steps"].append(d["steps"][0])),
                            f"has 2 steps {OUT}"),
    "normalised again": (lambda c: change(c / POST, lambda d: d["steps"].append({"registry_name": IN})),
                         f"{POST} has the step {IN} of the other file"),
    "un-normalised on the way in": (lambda c: change(c / PRE, lambda d: d["steps"].append({"registry_name": OUT})),
                                    f"{PRE} has the step {OUT} of the other file"),
    "renamed after it was normalised": (lambda c: change(c / PRE, lambda d: (
        d["steps"][0]["config"].update(rename_map={"observation.images.front": "observation.images.top"}),
        d["steps"].reverse())), f"{IN} comes before rename_observations_processor"),
}
DAMAGES = UNITS | {
    "a negative deviation": (resave(lambda t: t.update({"observation.state.std": -torch.ones(2)})), "damaged: std"),
    "a maximum below its minimum": (resave(lambda t: t.update({"action.max": -torch.ones(2)})), "damaged: min, max"),
    "whole statistics": (resave(lambda t: t.update({"action.max": torch.ones(2, dtype=torch.int64)})), "damaged: max"),
    "complex statistics": (resave(lambda t: t.update({"action.max": torch.ones(2, dtype=torch.complex64)})),
                           "damaged: max"),
    "a pipe for a training's settings": (both(lambda c: os.mkfifo(c / "train_config.json"),
                                              lambda c: (c / POST).unlink()), f"{POST} is missing"),
    "modes that are no table": (edit_step(PRE, IN, lambda s: s["config"].update(norm_map=[1])), "is not understood"),
    "an epsilon that is none": (edit_step(POST, OUT, lambda s: s["config"].update(eps="small")), "is not understood"),
    "statistics outside": (edit_step(PRE, IN, lambda s: s.update(state_file="../statistics.safetensors")),
                           "lists no processor steps"),
    "statistics of no name": (edit_step(PRE, IN, lambda s: s.update(state_file=3)), "lists no processor steps"),
    "a step of no name": (lambda c: change(c / PRE, lambda d: d["steps"].append({"registry_name": ["x"]})),
                          "lists no processor steps"),
    "an input renamed away": (renames({"observation.images.top": "x"}), "rename_map does not fit"),
    "an input of two names": (renames({"a": "observation.images.top", "b": "observation.images.top"}),
                              "rename_map does not fit"),
    "a rename to no name": (renames({"observation.images.top": 3}), "rename_map does not fit"),
    "sizes that are none": (lambda c: change(c / "config.json", lambda d: d["input_features"][
        "observation.state"].update(shape="ab")), "does not declare its inputs"),
    "sizes beyond memory": (lambda c: change(c / "config.json", lambda d: d["input_features"][
        "observation.images.top"].update(shape=[3, 10 ** 6, 10 ** 6])), "does not declare its inputs"),
    "json nested without end": (lambda c: (c / "config.json").write_text("[" * 100_000), "config.json cannot be read"),
    "no weights": (lambda c: (c / "model.safetensors").unlink(), "has no weights"),
    "weights in parts": (lambda c: (c / "model.safetensors").rename(c / "model-00001-of-00002.safetensors"),
                         "has no weights"),
    "a pointer for weights": (lambda c: (c / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "is a pointer of Git LFS"),
    "a setting twice": (lambda c: (c / "config.json").write_text((c / "config.json").read_text().replace(
        "{", '{"chunk_size": 9, "chunk_size": 8, ', 1)), "config.json cannot be read"),
    "complex weights": (lambda c: save_file({"model.w": torch.ones(1, dtype=torch.complex64)}, c / "model.safetensors"),
                        "model.safetensors has complex numbers"),
    "a second output": (lambda c: change(c / "config.json", lambda d: d["output_features"].update(
        {"observation.value": {"type": "STATE", "shape": [1]}})), 'the output "observation.value" beside "action"'),
    "a chunk beyond memory": (lambda c: change(c / "config.json", lambda d: d.update(chunk_size=10 ** 30)),
                              "chunk_size is no count of 1 to 16384"),
    "a chunk of none": (lambda c: change(c / "config.json", lambda d: d.update(n_action_steps=True)),
                        "n_action_steps is no count"),
    "steps beyond patience": (lambda c: change(c / "config.json", lambda d: d.update(num_inference_steps=999_999)),
                              "num_inference_steps is no count of 1 to 1000"),
    "broken json": (lambda c: (c / "config.json").write_text("{", encoding="utf-8"), "config.json cannot be read"),
    "json is a list": (lambda c: (c / "config.json").write_text("[]", encoding="utf-8"), "cannot be read"),
    "no features": (lambda c: change(c / "config.json", lambda d: d.pop("input_features")), "does not declare its "
                                                                                            "inputs"),
    "no action": (lambda c: change(c / "config.json", lambda d: d.update(output_features={})), "does not declare its "
                                                                                               "inputs"),
    "steps are no list": (lambda c: write(c / "policy_preprocessor.json", {"steps": 3}), "lists no processor steps"),
    "an unknown step": (lambda c: change(c / "policy_preprocessor.json", lambda d: d["steps"].append(
        {"registry_name": "image_crop_resize_processor"})), "is not supported"),
    "statistics file lost": (lambda c: (c / "statistics.safetensors").unlink(), "cannot be read"),
    "statistics truncated": (lambda c: (c / "statistics.safetensors").write_bytes(
        (c / "statistics.safetensors").read_bytes()[:50]), "cannot be read"),
    "statistics of the state missing": (lambda c: save_file(
        {f"observation.images.top.{s}": torch.ones(3, 1, 1) for s in ("mean", "std")}, c / "statistics.safetensors"),
        'statistics of "observation.state" are missing: mean, std'),
    "an unknown normalisation": (lambda c: change(c / "policy_preprocessor.json",
                                                  lambda d: d["steps"][2]["config"].update(
        norm_map={"STATE": "MEAN_SDT"})), "unknown normalisation"),
    "another camera name": (lambda c: change(c / "config.json", lambda d: d["input_features"].update(
        {"observation.images.front": d["input_features"].pop("observation.images.top")})), "the preprocessor has no"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused_with_four_lines(checkpoint, damage):
    edit, message = DAMAGES[damage]
    edit(checkpoint)
    with pytest.raises(SourceError) as error:
        read(checkpoint)
    assert message in error.value.what and error.value.where and error.value.why and error.value.fix


def test_a_policy_trained_without_normalisation_needs_none(checkpoint):
    nothing = dict.fromkeys(MODES, "IDENTITY")
    for file, name in ((PRE, IN), (POST, OUT)):
        edit_step(file, name, lambda s: (s["config"].update(norm_map=nothing), s.pop("state_file")))(checkpoint)
    found = read(checkpoint).normalise
    assert {n.mode for n in found.values()} == {"IDENTITY"}
    say_modes(checkpoint, **nothing)
    assert read(checkpoint).normalise.keys() == found.keys()
    for file, name in ((PRE, IN), (POST, OUT)):  # a programme that writes no such step either
        drop_step(file, name)(checkpoint)
    assert read(checkpoint).normalise == {}
    for file in (PRE, POST):
        (checkpoint / file).unlink()
    assert {n.mode for n in read(checkpoint).normalise.values()} == {"IDENTITY"}


def test_actions_alone_may_be_left_as_they_are(checkpoint):
    say_modes(checkpoint, ACTION="IDENTITY")
    for file, name in ((PRE, IN), (POST, OUT)):
        modes(file, name, ACTION="IDENTITY")(checkpoint)
    assert "action" not in read(checkpoint).normalise
    assert read(checkpoint).normalise["observation.state"].mode == "MEAN_STD"


def test_what_a_training_writes_is_read(checkpoint):
    """Modes in config.json, renamed cameras, and statistics of more than the policy reads."""
    say_modes(checkpoint)
    change(checkpoint / PRE, lambda d: d["steps"][0]["config"].update(
        rename_map={"observation.images.front": "observation.images.top"}))
    change(checkpoint / POST,
           lambda d: d["steps"].append({"registry_name": "device_processor", "config": {"device": "cpu"}}))
    resave(lambda t: t.update({"timestamp.mean": torch.ones(1), "action.q01": torch.zeros(2)}))(checkpoint)
    assert read(checkpoint).normalise["action"].mode == "MIN_MAX"


def test_an_adapter_names_the_policy_that_it_was_trained_on(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "adapter_model.safetensors")
    with pytest.raises(SourceError, match="adapter_config.json is missing"):
        read(checkpoint)
    write(checkpoint / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "org/base"})
    assert read(checkpoint).adapter.base == "org/base"
    (checkpoint / "adapter_model.safetensors").unlink()
    with pytest.raises(SourceError, match="adapter_model.safetensors is missing"):
        read(checkpoint)
    assert read_checkpoint(checkpoint, frozenset(), frozenset(), weights=False).adapter is not None


PACK, UNPACK = "groot_pack_inputs_v3", "groot_action_unpack_unnormalize_v1"


@pytest.mark.parametrize("damage,message", [
    (lambda c: (c / POST).unlink(), f"{POST} is missing"),
    (lambda c: [(c / f).unlink() for f in (PRE, POST)], "is missing"),
    (drop_step(POST, UNPACK), f"{POST} has no step {UNPACK}"),
    (drop_step(PRE, PACK), f"{PRE} has no step {PACK}"),
    (edit_step(POST, UNPACK, lambda s: s.update(config={"normalize_min_max": False})), "does not normalise"),
    (edit_step(POST, UNPACK, lambda s: s.pop("state_file")), 'statistics of "action" are missing'),
])
def test_a_policy_with_normalising_steps_of_its_own(checkpoint, damage, message):
    change(checkpoint / "config.json", lambda d: d.update(type="groot", tokenizer_assets_repo="somewhere",
                                                          normalization_mapping=MODES))
    for file, name in ((PRE, PACK), (POST, UNPACK)):
        write(checkpoint / file, {"steps": [{"registry_name": name, "config": {"normalize_min_max": True},
                                             "state_file": "statistics.safetensors"}]})
    assert open_checkpoint(checkpoint)[0].normalise.keys() == {"observation.state", "action"}
    damage(checkpoint)
    with pytest.raises(SourceError) as error:
        open_checkpoint(checkpoint)
    assert message in error.value.what


def test_the_prompt_is_spelt_from_the_normalised_state(checkpoint):
    of_kind(checkpoint, "pi05")
    spell = {"registry_name": "pi05_prepare_state_tokenizer_processor_step", "config": {}}
    change(checkpoint / PRE, lambda d: d["steps"].insert(3, spell))
    assert open_checkpoint(checkpoint)[0].tokenization.name == "somewhere"
    change(checkpoint / PRE, lambda d: d["steps"].insert(2, d["steps"].pop(3)))
    with pytest.raises(SourceError, match="comes before normalizer_processor"):
        open_checkpoint(checkpoint)


def test_an_unknown_policy_type_is_named_with_a_way_out(checkpoint):
    """What LeRobot itself has is listed only where its environment is; without it, the fix is to make it."""
    change(checkpoint / "config.json", lambda d: d.update(type="smolvla2"))
    with pytest.raises(SourceError) as error:
        load_policy(checkpoint)
    assert "smolvla2" in error.value.what and "LeRobot" in error.value.why
    if ENVIRONMENTS["lerobot061"].is_here() or ENVIRONMENTS["lerobot061"].is_installed():
        assert "smolvla" in error.value.why
    else:
        assert "--install lerobot061" in error.value.fix


def test_a_checkpoint_without_lerobot_says_how_to_get_it(checkpoint, monkeypatch):
    from importlib import metadata

    def missing(name: str):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(SourceError) as error:
        load_policy(checkpoint)
    assert "frontends --install lerobot" in error.value.fix


OLD = {**{f"normalize_inputs.buffer_observation_images_top.{s}": torch.ones(3, 1, 1) for s in ("mean", "std")},
       **{f"normalize_inputs.buffer_observation_state.{s}": torch.ones(2) for s in ("mean", "std")},
       "normalize_targets.buffer_action.min": torch.zeros(2), "normalize_targets.buffer_action.max": torch.ones(2),
       "unnormalize_outputs.buffer_action.min": torch.zeros(2), "unnormalize_outputs.buffer_action.max": torch.ones(2)}


@pytest.fixture
def old(checkpoint) -> Path:
    """As LeRobot 0.3 writes them: no processors, the statistics among the weights."""
    for name in (PRE, POST):
        (checkpoint / name).unlink()
    say_modes(checkpoint)
    save_file({"model.w": torch.ones(1), **OLD}, checkpoint / "model.safetensors")
    return checkpoint


def test_statistics_in_the_weights_of_older_checkpoints(old):
    found = read(old)
    assert found.old_statistics and found.normalise["action"].mode == "MIN_MAX"
    assert torch.equal(found.normalise["action"].statistics["max"], torch.ones(2))
    write(old / "train_config.json", {"batch_size": 8, "use_policy_training_preset": True})
    assert open_checkpoint(old)[0].old_statistics


@pytest.mark.parametrize("damage,message", [
    (lambda c: save_file({"model.w": torch.ones(1)}, c / "model.safetensors"), f"{PRE} and {POST} are missing"),
    (lambda c: save_file({n: t for n, t in OLD.items() if "outputs" not in n}, c / "model.safetensors"),
     'statistics of "action" are missing'),
    (lambda c: save_file(OLD | {"unnormalize_outputs.buffer_action.max": torch.full((2,), torch.inf)},
                         c / "model.safetensors"), 'statistics of "action" hold NaN or infinity'),
    (lambda c: say_modes(c, ACTION="IDENTITY"), '"action" has statistics that config.json does not use'),
    (lambda c: change(c / "config.json", lambda d: d.pop("normalization_mapping")), "are missing"),
])
def test_older_checkpoints_that_are_damaged(old, damage, message):
    damage(old)
    with pytest.raises(SourceError) as error:
        read(old)
    assert message in error.value.what


def test_older_checkpoints_of_policies_that_take_an_instruction(old):
    """Their code knew the tokenizer; its settings are in config.json."""
    change(old / "config.json", lambda d: d.update(type="smolvla", vlm_model_name="somewhere"))
    with pytest.raises(SourceError) as error:
        open_checkpoint(old)
    assert "config.json does not have 'tokenizer_max_length'" in error.value.what and error.value.fix
    change(old / "config.json", lambda d: d.update(tokenizer_max_length=48))
    assert open_checkpoint(old)[0].tokenization == Tokenization("somewhere", 48, "right", newline=True)
    assert not open_checkpoint(old)[0].reading.first_patch_twice, "LeRobot 0.3 asked for transformers below 4.52"


def test_statistics_of_a_training_on_several_datasets(old):
    """LeRobot 0.3 puts a dataset's marker into their names; those of two datasets contradict each other."""
    def marked(tensors: dict, marker: str) -> dict:
        return {n.replace(".buffer_", f".{marker}_buffer_"): t for n, t in tensors.items()}

    save_file({"model.w": torch.ones(1), **marked(OLD, "so100-blue")}, old / "model.safetensors")
    assert read(old).normalise["action"].mode == "MIN_MAX"
    other = marked({n: t + 1 for n, t in OLD.items()}, "so101")
    save_file({"model.w": torch.ones(1), **marked(OLD, "so100-blue"), **other}, old / "model.safetensors")
    with pytest.raises(SourceError) as error:
        read(old)
    assert "statistics of several datasets" in error.value.what and error.value.fix


@pytest.mark.parametrize("config,message", [({"adapt_to_pi_aloha": True}, "adapt_to_pi_aloha"),
                                            ({"resize_imgs_with_padding": None}, "resize_imgs_with_padding")])
def test_what_an_older_policy_did_and_a_later_one_cannot(old, config, message):
    settings = {"tokenizer_max_length": 48, "n_action_steps": 50, "num_steps": 10, "proj_width": 1024,
                "resize_imgs_with_padding": [224, 224]}
    change(old / "config.json", lambda d: d.update(type="pi0", **settings))
    found, family = open_checkpoint(old)
    today = family.settings(found)
    assert (today["image_resolution"], today["num_inference_steps"], today["chunk_size"]) == ([224, 224], 10, 50)
    assert "proj_width" not in today
    change(old / "config.json", lambda d: d.update(config))
    with pytest.raises(SourceError) as error:
        family.settings(open_checkpoint(old)[0])
    assert message in error.value.what and error.value.why and error.value.fix


@pytest.mark.parametrize("mode", ["IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_unnormalise_undoes_normalise(mode):
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 2.5])
    statistics = {} if mode == "IDENTITY" else {"low": low, "high": high}
    if mode == "MEAN_STD":
        statistics = {"mean": low, "std": high}
    n, x = Normalisation(mode, statistics, 1e-8), torch.randn(1, 5, 2)
    assert torch.allclose(unnormalise(normalise(x, n), n), x, atol=1e-6)
    assert mode == "IDENTITY" or not torch.allclose(normalise(x, n), x)


def test_a_value_that_never_varied_becomes_minus_one():
    n = Normalisation("MIN_MAX", {"min": torch.tensor([2.0]), "max": torch.tensor([2.0])}, 1e-8)
    assert normalise(torch.tensor([[2.0]]), n).item() == -1.0
