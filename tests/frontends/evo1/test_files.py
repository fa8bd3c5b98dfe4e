"""Evo-1 directories that are damaged or do not fit: refused in four lines."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.frontends.evo1 import cases
from tests.frontends.evo1.checkpoints import RECORDED, options_of, save, weights, write
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.phases.load_policy import environment_for, load_policy
from vlacompile.pipeline import plan
from vlart.errors import VlaError

CASE, VLM = "bounds", RECORDED["config"]["vlm_name"]
FILE, BIAS = "mp_rank_00_model_states.pt", "action_head.norm_out.bias"
OPTIONS = CheckpointOptions(**options_of(CASE))


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write(CASE, Path("checkpoint"))


def edit(file: str, change):
    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        change(content)
        (folder / file).write_text(json.dumps(content), encoding="utf-8")

    return apply


def of_vlm(change):
    return edit(f"../{VLM}/config.json", change)


def statistics(change):
    return edit("norm_stats.json", lambda c: change(c[cases.ARM][cases.DATASET]))


def tensors(change):
    def apply(folder: Path) -> None:
        found = weights()
        change(found)
        save(folder, found)

    return apply


class Executed:
    """What a malicious file would run."""

    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


DAMAGES = {
    "no weights": (lambda f: (f / FILE).unlink(), "the checkpoint has no weights"),
    "cut weights": (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:900]), f"{FILE} cannot be read"),
    "weights with code": (lambda f: (f / FILE).write_bytes(pickle.dumps({"module": Executed()}, 2)),
                          f"{FILE} cannot be read"),
    "another kind of file": (lambda f: torch.save(weights(), f / FILE), f"{FILE} is no state dict"),
    "a missing weight": (tensors(lambda t: t.pop(BIAS)), f"1 missing, 0 unknown: {BIAS}"),
    "an unknown weight": (tensors(lambda t: t.update(more=torch.zeros(2))), "0 missing, 1 unknown: more"),
    "a weight of another shape": (tensors(lambda t: t.update({BIAS: torch.zeros(9)})), f"{BIAS} has the shape [9]"),
    "no statistics": (lambda f: (f / "norm_stats.json").unlink(), "norm_stats.json is missing"),
    "statistics of the state alone": (statistics(lambda c: c.pop("action")), 'min and max of "action" are missing'),
    "NaN": (statistics(lambda c: c["action"].update(min=[float("nan")] * 7)), 'min and max of "action" are missing'),
    "ranges in the wrong order": (statistics(lambda c: c["action"].update(max=[-1e9] * 7)), 'of "action" are damaged'),
    "a larger robot": (statistics(lambda c: c["action"].update(min=[0] * 25, max=[1] * 25)), "larger than the model's"),
    "another normalisation": (edit("config.json", lambda c: c.update(normalization_type="tanh")),
                              'normalization_type = "tanh" is not known'),
    "quantiles that are not there": (edit("config.json", lambda c: c.update(normalization_type="bounds_q99")),
                                     'q01 and q99 of "observation.state" are missing'),
    "several robots' weights": (edit("config.json", lambda c: c.update(num_categories=3)), "num_categories = 3 is not"),
    "another head": (edit("config.json", lambda c: c.update(action_head="diffusion")), "action_head = 'diffusion' is"),
    "two horizons": (edit("config.json", lambda c: c.update(action_horizon=4)), "action_horizon = 4 is not horizon"),
    "words for sizes": (edit("config.json", lambda c: c.update(num_layers="two")), "num_layers = 'two' is no size"),
    "another vision transformer": (of_vlm(lambda c: c["vision_config"].update(norm_type="rms_norm")),
                                   "norm_type = 'rms_norm' is not covered"),
    "another language model": (of_vlm(lambda c: c["llm_config"].update(architectures=["LlamaForCausalLM"])),
                               "architectures = ['LlamaForCausalLM'] is not covered"),
    "a wider language model": (of_vlm(lambda c: c["llm_config"].update(hidden_size=96)), "heads do not divide"),
    "padding on the left": (edit(f"../{VLM}/tokenizer_config.json", lambda c: c.update(padding_side="left")),
                            "the tokenizer pads on the left"),
    "no tokenizer": (lambda f: Path(VLM, "tokenizer.json").unlink(), "there is no tokenizer.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(saved, damage):
    DAMAGES[damage][0](saved)
    with pytest.raises(VlaError) as error:
        load_policy(saved, options=OPTIONS)
    assert DAMAGES[damage][1] in f"{error.value.what}: {error.value.why}" and str(error.value).count("\n") == 3


@pytest.mark.parametrize("options, message", [
    ({"evo1_config": None}, "images, attention is not given"), ({"evo1_config": "images=2"}, "attention is not given"),
    ({"evo1_config": "images=4,attention=eager"}, "images=4 is more than 3"),
    ({"evo1_config": "images=2,attention=sdpa"}, "attention=sdpa is not known"),
    ({"evo1_config": "images=2,attention=eager", "unnorm_key": "so100"}, 'there are no statistics "so100"'),
    ({"evo1_config": "images=2,attention=eager", "lerobot": "0.6.1"}, "does not apply"),
])
def test_what_no_file_says_is_asked(saved, options, message):
    with pytest.raises(VlaError, match=message):
        load_policy(saved, options=CheckpointOptions(**options))


def test_statistics_of_several_datasets_are_chosen(saved):
    edit("norm_stats.json", lambda c: c.update(aloha={"fold": c[cases.ARM][cases.DATASET]}))(saved)
    with pytest.raises(VlaError, match="has statistics of several") as error:
        load_policy(saved, options=OPTIONS)
    assert "there are franka/libero_10, aloha/fold" in error.value.why
    chosen = CheckpointOptions(**options_of(CASE), unnorm_key="aloha/fold")
    assert load_policy(saved, options=chosen).origin["actions of"] == "aloha/fold"


def test_no_environment_is_needed_and_a_plan_needs_no_weights(saved):
    (saved / FILE).unlink()
    assert environment_for(str(saved), weights=False, options=OPTIONS) is None
    assert plan(saved, weights=False, options=OPTIONS).stages


@pytest.mark.parametrize("kind", ["accelerate", "safetensors"])
def test_weights_of_other_trainings_are_the_same(saved, kind):
    with torch.no_grad():
        policy = load_policy(saved, options=OPTIONS)
        want = policy.observe(**policy.example_inputs)["action"]
    (saved / FILE).unlink()
    if kind == "accelerate":
        torch.save({"model_state_dict": weights(), "norm_stats": {}, "best_loss": 0.1}, saved / "checkpoint.pt")
    else:
        save_file(weights(), saved / "model.safetensors")
    with torch.no_grad():
        policy = load_policy(saved, options=OPTIONS)
        got = policy.observe(**policy.example_inputs)["action"]
    assert torch.allclose(got, want, atol=1e-4)  # tensors of a mapped file lie elsewhere, where sums are in other order
