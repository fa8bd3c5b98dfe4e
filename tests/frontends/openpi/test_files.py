"""openpi directories that are damaged or do not fit: refused in four lines."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.frontends.openpi.cases import noise, observation
from tests.frontends.openpi.checkpoints import write
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openpi.read import open_checkpoint, tokens_of
from vlacompile.phases.load_policy import environment_for, load_policy
from vlart.errors import VlaError

WEIGHTS, CASES = "model.safetensors", ("pi0_libero", "pi05_libero")
STATISTICS = "assets/physical-intelligence/libero/norm_stats.json"
BIAS = "action_out_proj.bias"
VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
PATCHES = f"{VISION}embeddings.patch_embedding.weight"
POSITIONS = f"{VISION}embeddings.position_embedding.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return {case: write(case, tmp_path_factory.mktemp(case) / "29999") for case in CASES}


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole["pi0_libero"], tmp_path / "29999")


def statistics(change):
    def apply(folder: Path) -> None:
        document = json.loads((folder / STATISTICS).read_text(encoding="utf-8"))
        change(document["norm_stats"])
        (folder / STATISTICS).write_text(json.dumps(document), encoding="utf-8")

    return apply


def tensors(change):
    def apply(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return apply


def into_jax(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "params").mkdir()
    (folder / "params" / "_METADATA").write_text("{}", encoding="utf-8")


def renamed_asset(folder: Path) -> None:
    (folder / "assets" / "trossen").mkdir()
    (folder / STATISTICS).rename(folder / "assets" / "trossen" / "norm_stats.json")


def config(**content):
    return lambda folder: (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


DAMAGED = {
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "the checkpoint has no weights"),
    "weights are cut off": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:900]), "cannot be read"),
    "no statistics": (lambda f: shutil.rmtree(f / "assets"), "the checkpoint has no statistics"),
    "statistics of another data set": (renamed_asset, "there are trossen, not physical-intelligence/libero"),
    "damaged statistics": (lambda f: (f / STATISTICS).write_text("{"), "norm_stats.json cannot be read"),
    "statistics of nothing": (statistics(lambda s: s.clear()), "has no statistics of state and actions"),
    "no statistics of actions": (statistics(lambda s: s.pop("actions")), "has no statistics of state and actions"),
    "statistics with NaN": (statistics(lambda s: s["state"]["std"].__setitem__(0, float("nan"))),
                            '"std" of "state" is missing or not finite'),
    "statistics without deviations": (statistics(lambda s: s["actions"].pop("std")), '"std" of "actions" is missing'),
    "statistics of a smaller robot": (statistics(lambda s: s["actions"].update(mean=[0.0] * 6, std=[1.0] * 6)),
                                      '"actions" are for another robot'),
    "statistics of a larger robot": (statistics(lambda s: s["state"].update(mean=[0.1] * 14, std=[0.5] * 14)),
                                     '"state" are for another robot'),
    "a negative deviation": (statistics(lambda s: s["actions"].update(std=[-1.0] * 7)), "deviation (std) is negative"),
    "statistics beyond fp32": (statistics(lambda s: s["actions"].update(std=[1e39] * 7)), "is missing or not finite"),
    "statistics beyond floating point": (statistics(lambda s: s["actions"].update(std=[10 ** 400] * 7)), "not finite"),
    "statistics nested without end": (lambda f: (f / STATISTICS).write_text("[" * 100_000),
                                      "norm_stats.json cannot be read"),
    "config.json nested without end": (lambda f: (f / "config.json").write_text("[" * 100_000),
                                       "config.json cannot be read"),
    "a pipe": (lambda f: ((f / STATISTICS).unlink(), os.mkfifo(f / STATISTICS)), "it is no regular file"),
    "complex weights": (tensors(lambda t: t.update({BIAS: t[BIAS].to(torch.complex64)})), "of real numbers"),
    "a weight is missing": (tensors(lambda t: t.pop(BIAS)), f"1 missing, 0 unknown: {BIAS}"),
    "a weight is unknown": (tensors(lambda t: t.update(more=torch.zeros(2))), "0 missing, 1 unknown: more"),
    "LoRA's weights": (tensors(lambda t: t.update({"x.lora_A.weight": torch.zeros(2)})), "1 unknown: x.lora_A.weight"),
    "a weight has another shape": (tensors(lambda t: t.update({BIAS: torch.zeros(9)})), f"{BIAS} has the shape [9]"),
    "of another model": (tensors(lambda t: [t.pop(k) for k in list(t) if k.startswith("state_proj")]),
                         "the weights are neither those of pi0 nor of pi0.5"),
    "no layers": (tensors(lambda t: [t.pop(k) for k in list(t) if ".gemma_expert.model.layers.0." in k]),
                  "the weights are not complete"),
    "no vision": (tensors(lambda t: [t.pop(k) for k in list(t) if k.startswith(VISION)]), "are not complete"),
    "a flat patch embedding": (tensors(lambda t: t.update({PATCHES: torch.zeros(48)})), "are not complete"),
    "patches of no square": (tensors(lambda t: t.update({POSITIONS: torch.zeros(255, 48)})), "do not fit each other"),
    "a layer is missing": (tensors(lambda t: [t.pop(k) for k in list(t) if ".gemma_expert.model.layers.3." in k]),
                           "do not fit each other"),
    "a chunk of another length": (config(action_horizon=10), "horizon is 50"),
    "a damaged config.json": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    "another library's config.json": (config(type="pi0"), "--openpi-config does not apply"),
    "JAX's weights": (into_jax, "the weights are JAX's"),
}


def refused(folder: Path, config: str | None = "pi0_libero", **options) -> str:
    with pytest.raises(VlaError) as raised:
        load_policy(folder, options=CheckpointOptions(openpi_config=config, **options))
    assert str(raised.value).count("\n") == 3, raised.value
    return str(raised.value)


def test_whole_ones_are_read_without_an_environment(whole):
    for case, folder in whole.items():
        options = CheckpointOptions(openpi_config=case)
        assert environment_for(str(folder), options=options) is None
        assert load_policy(folder, options=options).origin["spelled out"] == f"--openpi-config {case}"


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(folder, name):
    DAMAGED[name][0](folder)
    assert DAMAGED[name][1] in refused(folder)


def test_quantiles_in_the_wrong_order_are_refused(whole, tmp_path):
    folder = shutil.copytree(whole["pi05_libero"], tmp_path / "29999")
    statistics(lambda s: s["actions"].update(q01=s["actions"]["q99"], q99=s["actions"]["q01"]))(folder)
    assert "q99 is below q01" in refused(folder, "pi05_libero")


def test_numbers_that_never_change_have_no_spread(folder):
    """openpi adds a small number before it divides."""
    statistics(lambda s: s["actions"].update(std=[0.0] * 7))(folder)
    assert load_policy(folder, options=CheckpointOptions(openpi_config="pi0_libero")).outputs == ("action",)


def test_jax_weights_are_refused_with_openpis_own_conversion(folder):
    into_jax(folder)
    said = refused(folder)
    assert "examples/convert_jax_model_to_pytorch.py" in said and str(folder) in said and "copy assets/" in said


@pytest.mark.parametrize("config, options, what", [
    (None, {}, "the checkpoint does not say how it was trained"),
    ("pi0_aloha", {}, "there are physical-intelligence/libero, not trossen"),
    ("pi0_aloha,asset=physical-intelligence/libero", {}, "are for another robot"),
    ("pi05_libero", {}, "pi05_libero is a configuration of pi05"),
    ("pi0_libero", {"unnorm_key": "x"}, "--unnorm-key does not apply"),
    ("pi0_libero", {"tokenizer": "/nowhere/tokenizer.json"}, "there is no tokenizer.json"),
])
def test_what_no_file_says_is_asked(whole, config, options, what):
    assert what in refused(whole["pi0_libero"], config, **options)


def test_a_sentencepiece_model_is_refused(whole, tmp_path):
    file = tmp_path / "paligemma_tokenizer.model"
    file.write_bytes(b"\n")
    assert "SentencePiece" in refused(whole["pi0_libero"], tokenizer=str(file))


def test_several_data_sets_are_asked(folder):
    (folder / "assets" / "mine").mkdir()
    shutil.copy(folder / STATISTICS, folder / "assets" / "mine")
    said = refused(folder, "robot=libero,horizon=50,prompt_tokens=48,norms=mean_std,delta=joints,state=input")
    assert "several data sets" in said and "mine, physical-intelligence/libero" in said


def test_what_is_spelled_out_changes_the_actions(whole):
    """What is asked matters: with another answer the same files give other actions."""
    folder, tokenizer = whole["pi0_libero"], str(whole["pi0_libero"].parent / "tokenizer.json")
    found = {}
    for text in ("pi0_libero", "pi0_libero,delta=none", "pi0_libero,norms=quantile", "pi0_libero,steps=5",
                 "pi0_libero,cameras=image"):
        options = CheckpointOptions(openpi_config=text, tokenizer=tokenizer)
        policy, seen = load_policy(folder, options=options), observation("pi0_libero", 0)
        given = {f"observation.images.{n}": torch.from_numpy(f)[None] for n, f in seen["frames"].items()}
        given |= tokens_of(open_checkpoint(folder, options=options), seen["instruction"])
        given |= {"observation.state": torch.from_numpy(seen["state"])[None], "noise": torch.from_numpy(noise(50, 0))}
        found[text] = policy.observe(**{n: given[n] for n in policy.sources})["action"].numpy()
    first, *others = found.values()
    assert all(np.abs(other - first).max() > 1e-2 for other in others)


def test_without_a_tokenizer_the_host_writes_ids(whole):
    policy = load_policy(whole["pi0_libero"], options=CheckpointOptions(openpi_config="pi0_libero"))
    assert not policy.texts and "no tokenizer was given" in policy.origin["prompt"]
