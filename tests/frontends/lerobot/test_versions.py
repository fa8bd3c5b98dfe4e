"""Which LeRobot wrote a checkpoint and by whose rules it is read, from its files alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontends.lerobot.small_checkpoint import EMBEDDING, HEAD, PRE, change, of_kind, weights_named, write
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.lerobot.read import environments_for, open_checkpoint
from vlart.errors import SourceError

OF_TRAINING = lambda c: write(c / "train_config.json", {"cudnn_deterministic": False})
VERSIONS = {  # kind, what gives it away, what is said of the writer, whose rules hold, what is left open
    "smolvla 0.5, its training": ("smolvla", OF_TRAINING, '0.5.0 or later (train_config.json: "cudnn_deterministic")',
                                  "0.6.1", ""),
    "smolvla 0.6": ("smolvla", lambda c: of_kind(c, "smolvla", pretrained_revision=None),
                    '0.6.0 or later (config.json: "pretrained_revision")', "0.6.1", ""),
    "smolvla of 0.4 or 0.5": ("smolvla", lambda c: None, 'before 0.6.0 (config.json: no "pretrained_revision")',
                              "0.4.4", "--lerobot 0.6.1"),
    "smolvla 0.4, its training": ("smolvla", lambda c: write(c / "train_config.json", {"batch_size": 8}),
                                  'before 0.5.0 (train_config.json: no "cudnn_deterministic")', "0.4.4",
                                  "--transformers 4.53"),
    "pi0 0.5, its weights": ("pi0", lambda c: weights_named(c, HEAD, EMBEDDING), "0.5.0 or later", "0.6.1", ""),
    "pi0 0.4, its weights": ("pi0", lambda c: weights_named(c, HEAD), "before 0.5.0", "0.4.4", ""),
    "pi0 0.5, as openpi names them": ("pi0", lambda c: weights_named(c, *(n.removeprefix("model.")
                                                                          for n in (HEAD, EMBEDDING))),
                                      "0.5.0 or later", "0.6.1", ""),
    "pi0 of openpi": ("pi0", lambda c: weights_named(c, HEAD.removeprefix("model.")), "before 0.6.0", "0.6.1",
                      "--lerobot 0.4.4"),
    "pi0 0.5.1": ("pi0", lambda c: of_kind(c, "pi0", use_relative_actions=False), "0.5.1 or later", "0.6.1", ""),
    "pi05 0.5.1, its steps": ("pi05", lambda c: change(c / PRE, lambda d: d["steps"].append(
        {"registry_name": "relative_actions_processor", "config": {"enabled": False}})), "0.5.1 or later", "0.6.1", ""),
    "pi05 0.6.1": ("pi05", lambda c: (of_kind(c, "pi05", pretrained_revision=None),
                                      write(c / "train_config.json", {"dataloader_multiprocessing_context": None})),
                   "0.6.1 or later", "0.6.1", ""),
    "act 0.6": ("act", lambda c: of_kind(c, "act", pretrained_revision=None), "0.6.0 or later", "0.6.1", ""),
    "act of 0.4 or 0.5": ("act", lambda c: None, "before 0.6.0", "0.4.4", ""),
    "diffusion 0.6.1": ("diffusion", lambda c: of_kind(c, "diffusion", pretrained_revision=None,
                                                       gradient_checkpointing=False), "0.6.1 or later", "0.6.1", ""),
}


@pytest.mark.parametrize("case", VERSIONS)
def test_the_writer_of_a_checkpoint_is_read_from_its_files(checkpoint, case):
    kind, edit, written, rules, left_open = VERSIONS[case]
    of_kind(checkpoint, kind)
    edit(checkpoint)
    reading = open_checkpoint(checkpoint)[0].reading
    assert reading.written.startswith(written) and reading.lerobot == rules
    assert left_open in "; ".join(reading.open) and bool(left_open) == bool(reading.open)


def test_what_the_files_leave_open_can_be_chosen(checkpoint):
    of_kind(checkpoint, "smolvla")
    chosen = open_checkpoint(checkpoint, options=CheckpointOptions(lerobot="0.5.1"))[0].reading
    assert chosen.untied and not chosen.open and not chosen.first_patch_twice
    chosen = open_checkpoint(checkpoint, options=CheckpointOptions(transformers="4.53"))[0].reading
    assert not chosen.untied and not chosen.first_patch_twice and "transformers" not in "; ".join(chosen.open)


@pytest.mark.parametrize("options,message", [
    (CheckpointOptions(lerobot="0.4.4"), "--lerobot 0.4.4 contradicts the checkpoint"),
    (CheckpointOptions(lerobot="0.7.0"), "--lerobot 0.7.0 is not known"),
    (CheckpointOptions(lerobot="newest"), "--lerobot newest is not known"),
    (CheckpointOptions(transformers="6.1"), "--transformers 6.1 is not known"),
])
def test_a_choice_that_the_files_contradict_or_nobody_knows(checkpoint, options, message):
    of_kind(checkpoint, "smolvla", pretrained_revision=None)
    with pytest.raises(SourceError) as error:
        open_checkpoint(checkpoint, options=options)
    assert message in error.value.what and error.value.where and error.value.why and error.value.fix


def test_one_environment_builds_all_but_what_lerobot_dropped(checkpoint):
    def names(**options):
        return [e.name for e in environments_for(checkpoint, options=CheckpointOptions(**options))]

    assert names() == ["lerobot061", "lerobot"]
    of_kind(checkpoint, "smolvla")
    assert names() == ["lerobot061", "lerobot"]
    assert names(transformers="5.5") == names(lerobot="0.5.0") == ["lerobot061"]
    change(checkpoint / "config.json", lambda d: d.update(type="act", pretrained_revision=None))
    assert names() == ["lerobot061"]


@pytest.mark.parametrize("later, step", [(True, "groot_pack_inputs_v3"), (False, "groot_n1_7_pack_inputs_v1")])
def test_groot_of_another_version_is_not_read_by_its_rules(checkpoint, later, step):
    """N1.7 came with LeRobot 0.6.0, under the same type: config.json says which model it is, and its steps must too."""
    of_kind(checkpoint, "groot", **{"pretrained_revision": None} if later else {})
    write(checkpoint / PRE, {"steps": [{"registry_name": step, "config": {}}]})
    with pytest.raises(SourceError) as error:
        open_checkpoint(checkpoint)
    assert f'a step "{step}" that is not supported' in error.value.what and error.value.fix


@pytest.mark.parametrize("kind", ["act", "pi0", "smolvla"])
def test_checkpoints_of_an_earlier_version_are_not_taken_for_later_ones(checkpoint, kind):
    """LeRobot 0.4.4 writes weights that are tied once, and keys that later versions have too."""
    of_kind(checkpoint, kind, use_peft=False, pretrained_path=None, gradient_checkpointing=False)
    weights_named(checkpoint, HEAD, "model.paligemma_with_expert.gemma_expert.lm_head.weight")
    write(checkpoint / "train_config.json", {"batch_size": 8, "peft": None, "rename_map": {}})
    assert open_checkpoint(checkpoint)[0].reading.lerobot == "0.4.4"
    (checkpoint / "train_config.json").write_text("{", encoding="utf-8")  # nothing of it is needed
    assert open_checkpoint(checkpoint)[0].reading.lerobot == "0.4.4"


def test_the_state_in_a_prompt_is_padded_as_its_writer_did(checkpoint):
    """LeRobot 0.4.4 spells 32 numbers of state, of which 30 are padding; later versions the two that there are."""
    of_kind(checkpoint, "pi05", max_state_dim=32)
    change(checkpoint / PRE, lambda d: d["steps"].insert(3, {
        "registry_name": "pi05_prepare_state_tokenizer_processor_step", "config": {}}))
    said = {}
    for version in ("0.4.4", "0.6.1"):
        found, family = open_checkpoint(checkpoint, options=CheckpointOptions(lerobot=version))
        said[version] = family.prompt("pick_up the cube ", np.array([-1.0, 0.5]), found)
    assert said == {"0.4.4": f"Task: pick up the cube, State: 0 192{' 128' * 30};\nAction: ",
                    "0.6.1": "Task: pick up the cube, State: 0 192;\nAction: "}
