"""openpi's training configurations: the table against openpi's own classes, and what differs from it by key=value; the
real size, as its code has it on the meta device."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.frontends.openpi.checkpoints import RECORDED
from tests.samples.recorded_weights import unfolded
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openpi.model import load, sizes_of
from vlacompile.frontends.openpi.settings import CONFIGS, Settings, settings_of
from vlacompile.frontends.tensor_files import TensorFiles
from vlart.errors import ConfigError, SourceError

CONFIGURATIONS = {n: c for n, c in RECORDED["configurations"].items() if "lora" not in c["model"]["paligemma_variant"]}


def settings(text: str, kind: str = "pi0", known: dict[str, str] | None = None) -> Settings:
    return settings_of(kind, CheckpointOptions(openpi_config=text), "checkpoint", known or {})


def test_the_table_has_every_configuration():
    assert set(CONFIGS) == set(CONFIGURATIONS)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_table_says_what_openpi_says(name):
    model, transforms = CONFIGURATIONS[name]["model"], CONFIGURATIONS[name]["transforms"]
    found = settings(name, "pi05" if model["pi05"] else "pi0")
    assert (found.horizon, found.prompt_tokens, found.asset) == (
        model["action_horizon"], model["max_token_len"], CONFIGURATIONS[name]["asset"])
    assert found.quantiles == model["pi05"]
    assert (found.state == "prompt") == model["discrete_state_input"] and (found.state == "input") != model["pi05"]
    offsets = next((t for t in transforms if t.startswith("AbsoluteActions")), "")
    mask = [word == "True" for word in re.findall("True|False", offsets)]
    assert list(found.offsets[: len(mask)]) == mask and not any(found.offsets[len(mask):])
    assert transforms[-1].lower().startswith(CONFIGS[name]["robot"])
    assert found.internal == ("adapt_to_pi=True" in transforms[-1])


def test_what_is_spelled_out_differs_from_the_table():
    found = settings("pi0_libero,horizon=20,delta=none,norms=quantile,asset=mine,steps=4")
    assert (found.horizon, found.asset, found.steps) == (20, "mine", 4)
    assert found.quantiles and not any(found.offsets)
    assert settings("pi0_libero,delta=3:-4").offsets == (True,) * 3 + (False,) * 4
    assert settings("pi0_aloha,cameras=cam_high:cam_right_wrist").cameras == ((0, "cam_high"), (2, "cam_right_wrist"))


def test_another_robot_is_spelled_out():
    found = settings("robot=own,cameras=top:hand,state_dim=6,action_dim=5,horizon=50,prompt_tokens=48,norms=mean_std,"
                     "delta=5,state=input")
    assert (found.robot.state, found.robot.action, found.cameras) == (6, 5, ((0, "top"), (1, "hand")))
    assert all(found.offsets)


@pytest.mark.parametrize("text, what", {
    "robot=libero": "horizon, prompt_tokens, norms, delta, state is not given",
    "robot=own,horizon=9,prompt_tokens=48,norms=mean_std,delta=none,state=input": "cameras, state_dim, action_dim is",
    "pi0_libreo": '"pi0_libreo" is not in the table', "pi0_libero,horizont=3": '"horizont=3" is not key=value',
    "pi0_libero,horizon=0": "horizon=0 is no whole number", "pi0_libero,norms=l2": "norms=l2 is not known",
    "pi0_libero,delta=9": "delta=9 does not fit 7 actions", "pi0_libero,delta=x": "delta=x does not fit",
    "pi0_libero,cameras=top": "cameras=top are not those of libero", "pi0_libero,state=prompt": "state=prompt is not",
    "pi0_libero,horizon=3,horizon=4": '"horizon=4" is not key=value', "pi0_libero,": '"" is not key=value',
    "pi0_libero,steps=1000000": "steps=1000000 is no", "pi0_libero,steps=1001": "steps=1001 is no",
    "pi0_libero,prompt_tokens=99999": "prompt_tokens=99999 is no",
    "pi0_libero,horizon=99999999999999999999": "is no whole number",
    "pi0_libero,steps=1" + "0" * 5000: "is no whole number", "pi0_libero,adapt_to_pi=yes": "is given for libero",
    "pi0_libero,robot=droid": "delta is not given", "pi0_libero,action_dim=6": "action_dim is given for libero",
}.items())
def test_what_is_not_known_is_refused(text, what):
    with pytest.raises(ConfigError) as raised:
        settings(text)
    assert what in str(raised.value) and str(raised.value).count("\n") == 3


@pytest.mark.parametrize("text, kind, known, what", [
    ("pi05_libero", "pi0", {}, "pi05_libero is a configuration of pi05"),
    ("pi0_libero", "pi0", {"horizon": "10"}, "horizon is 50"),
])
def test_what_contradicts_the_files_is_refused(text, kind, known, what):
    with pytest.raises(SourceError, match=what):
        settings(text, kind, known)


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_names_and_shapes_of_the_real_size(kind):
    files = TensorFiles(Path(kind), {}, unfolded(RECORDED["real-size"][kind]))
    sizes = sizes_of(files)
    assert (sizes.kind, sizes.vision.side, sizes.vision.depth, sizes.language.depth, sizes.expert.heads) == (
        kind, 224, 27, 18, 8)
    with torch.device("meta"):
        load(files, sizes, 50, 10, weights=False)
        with pytest.raises(SourceError, match="1 missing, 1 unknown"):  # the control
            load(files.under(lambda n: "x" if n == "action_out_proj.bias" else n), sizes, 50, 10, weights=False)
