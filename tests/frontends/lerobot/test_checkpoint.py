"""LeRobot checkpoint directories that are damaged or do not fit: refused from their files alone, without LeRobot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlacompile.errors import SourceError
from vlacompile.frontends.lerobot.checkpoint import read_checkpoint
from vlacompile.frontends.lerobot.normalise import normalise, unnormalise
from vlacompile.frontends.lerobot.read import open_checkpoint
from vlacompile.frontends.lerobot.statistics import Normalisation
from vlacompile.phases.load_policy import load_policy

FEATURES = {"observation.images.top": {"type": "VISUAL", "shape": [3, 8, 8]},
            "observation.state": {"type": "STATE", "shape": [2]}}
ACTION = {"action": {"type": "ACTION", "shape": [2]}}
MODES = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MIN_MAX"}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """The files of a checkpoint, with nothing that only the model itself reads."""
    config = {"type": "act", "input_features": FEATURES, "output_features": ACTION}
    statistics = {f"{n}.{s}": torch.ones(2) for n in ("observation.state", "action") for s in ("mean", "std", "max")}
    statistics |= {f"{n}.min": torch.zeros(2) for n in ("observation.state", "action")}
    statistics |= {f"observation.images.top.{s}": torch.ones(3, 1, 1) for s in ("mean", "std")}
    save_file(statistics, tmp_path / "statistics.safetensors")
    save_file({"model.w": torch.ones(1)}, tmp_path / "model.safetensors")

    def step(name: str, features: dict) -> dict:
        return {"registry_name": name, "config": {"features": features, "norm_map": MODES, "eps": 1e-8},
                "state_file": "statistics.safetensors"}

    pre = [{"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
           {"registry_name": "to_batch_processor", "config": {}}, step("normalizer_processor", FEATURES | ACTION)]
    write(tmp_path / "config.json", config)
    write(tmp_path / "policy_preprocessor.json", {"name": "policy_preprocessor", "steps": pre})
    write(tmp_path / "policy_postprocessor.json", {"steps": [step("unnormalizer_processor", ACTION)]})
    return tmp_path


def write(path: Path, document) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def change(path: Path, edit) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    write(path, document)


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


PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"


def step_of(document: dict, name: str) -> dict:
    return next(s for s in document["steps"] if s["registry_name"] == name)


def edit_step(file: str, name: str, edit):
    return lambda c: change(c / file, lambda d: edit(step_of(d, name)))


def drop_step(file: str, name: str):
    return lambda c: change(c / file, lambda d: d["steps"].remove(step_of(d, name)))


def modes(file: str, name: str, **changed):
    return edit_step(file, name, lambda s: s["config"].update(norm_map=MODES | changed))


def resave(change_tensors):
    """The statistics file with some tensors changed."""
    def edit(c: Path) -> None:
        tensors = load_file(c / "statistics.safetensors")
        change_tensors(tensors)
        save_file(tensors, c / "statistics.safetensors")
    return edit


def say_modes(c: Path, **changed) -> None:
    change(c / "config.json", lambda d: d.update(normalization_mapping=MODES | changed))


def both(*edits):
    return lambda c: [edit(c) for edit in edits]


IN, OUT = "normalizer_processor", "unnormalizer_processor"
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
    "no weights": (lambda c: (c / "model.safetensors").unlink(), "has no weights"),
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


def of_kind(checkpoint: Path, kind: str, **config) -> Path:
    change(checkpoint / "config.json", lambda d: d.update(type=kind, **config))
    if kind != "act":
        change(checkpoint / PRE, lambda d: d["steps"].append({"registry_name": "tokenizer_processor", "config": {
            "tokenizer_name": "somewhere"}}))
    return checkpoint


def weights_named(c: Path, *names: str) -> None:
    save_file({n: torch.ones(1) for n in names}, c / "model.safetensors")


HEAD = "model.paligemma_with_expert.paligemma.lm_head.weight"
EMBEDDING = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
OF_TRAINING = lambda c: write(c / "train_config.json", {"cudnn_deterministic": False})
VERSIONS = {  # kind, what gives it away, the version, where it is named, what is said to differ
    "smolvla 0.5, its training": ("smolvla", OF_TRAINING, "0.5.0", "train_config.json", "transformers 5"),
    "smolvla 0.6": ("smolvla", lambda c: of_kind(c, "smolvla", pretrained_revision=None), "0.6.0",
                    "pretrained_revision",
                    "transformers 5"),
    "pi0 0.5, its weights": ("pi0", lambda c: weights_named(c, HEAD, EMBEDDING), "0.5.0", "embed_tokens", "tied"),
    "pi0 0.5, as openpi names them": ("pi0", lambda c: weights_named(c, *(n.removeprefix("model.")
                                                                          for n in (HEAD, EMBEDDING))),
                                      "0.5.0", "embed_tokens", "tied"),
    "pi0 0.5.1": ("pi0", lambda c: of_kind(c, "pi0", use_relative_actions=False), "0.5.1",
                  "use_relative_actions", "tied"),
    "pi05 0.5.1, its steps": ("pi05", lambda c: change(c / PRE, lambda d: d["steps"].append(
        {"registry_name": "relative_actions_processor", "config": {"enabled": False}})), "0.5.1",
        "relative_actions_processor", "prompt"),
    "pi05 0.6.1": ("pi05", lambda c: (of_kind(c, "pi05", pretrained_revision=None),
                                      write(c / "train_config.json", {"dataloader_multiprocessing_context": None})),
                   "0.6.1", "train_config.json", "prompt"),
    "groot 0.6": ("groot", lambda c: of_kind(c, "groot", pretrained_revision=None), "0.6.0",
                  "pretrained_revision", "N1.7"),
    "act 0.6": ("act", lambda c: of_kind(c, "act", pretrained_revision=None), "0.6.0", "pretrained_revision",
                "no such key"),
    "diffusion 0.6.1": ("diffusion", lambda c: of_kind(c, "diffusion", pretrained_revision=None,
                                                       gradient_checkpointing=False),
                        "0.6.1", '"pretrained_revision", "gradient_checkpointing"', "no such key"),
}


@pytest.mark.parametrize("case", VERSIONS)
def test_checkpoints_of_later_versions_are_refused_by_name(checkpoint, case):
    kind, later, version, where, why = VERSIONS[case]
    of_kind(checkpoint, kind)
    later(checkpoint)
    with pytest.raises(SourceError) as error:
        open_checkpoint(checkpoint)
    assert f"written by LeRobot {version} or later" in error.value.what
    assert where in error.value.where and why in error.value.why and error.value.fix


@pytest.mark.parametrize("kind", ["act", "pi0", "smolvla"])
def test_checkpoints_of_our_version_are_not_taken_for_later_ones(checkpoint, kind):
    """LeRobot 0.4.4 writes weights that are tied once, and keys that later versions have too."""
    of_kind(checkpoint, kind, use_peft=False, pretrained_path=None, gradient_checkpointing=False)
    weights_named(checkpoint, HEAD, "model.paligemma_with_expert.gemma_expert.lm_head.weight")
    write(checkpoint / "train_config.json", {"batch_size": 8, "peft": None, "rename_map": {}})
    assert open_checkpoint(checkpoint)[0].type == kind
    (checkpoint / "train_config.json").write_text("{", encoding="utf-8")  # nothing of it is needed
    assert open_checkpoint(checkpoint)[0].type == kind


def test_types_that_mean_the_same_in_both_versions_are_read(checkpoint):
    OF_TRAINING(checkpoint)
    assert open_checkpoint(of_kind(checkpoint, "act"))[0].type == "act"


def test_an_adapter_says_how_it_becomes_a_policy(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "adapter_model.safetensors")
    with pytest.raises(SourceError) as error:
        read(checkpoint)
    assert "adapter (LoRA)" in error.value.what and "merge_and_unload" in error.value.fix
    assert read_checkpoint(checkpoint, frozenset(), frozenset(), weights=False)


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


def test_an_unknown_policy_type_lists_the_known_ones(checkpoint):
    change(checkpoint / "config.json", lambda d: d.update(type="smolvla2"))
    with pytest.raises(SourceError) as error:
        load_policy(checkpoint)
    assert "smolvla2" in error.value.what and "smolvla" in error.value.why


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
    change(old / "config.json", lambda d: d.update(type="smolvla"))
    with pytest.raises(SourceError) as error:
        open_checkpoint(old)
    assert "tokenizer_processor" in error.value.what and "migrate_policy_normalization" in error.value.fix


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
