from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.oracles import record_tinyvla as oracle
from tests.zoo.oracles.recorded import fill, read
from tests.zoo.precision import check_precision
from vlacompile.pipeline import plan
from vlacompile.zoo import catalogue
from vlacompile.zoo.systems import tinyvla

CAMERAS, TEXT = {"image.base", "image.wrist"}, {"tokens", "mask"}
SEEN, SIZES = CAMERAS | TEXT | {"state"}, tinyvla.SMALL["s"]
MODULATED = 2 * 4 * (16 + 32 + 64)  # scales and biases: two blocks in each level down, in the middle, in two levels up


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("tinyvla", tmp_path_factory.mktemp("tinyvla"))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32
    assert built.bundle.plan.action.consume.decay == pytest.approx(tinyvla.DECAY)


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_keys_and_values_of_the_fixed_text_are_constants(built):
    """So nothing depends on the padding alone, and the body is read once."""
    table = built.table()
    assert table == {"fusion.1": (CAMERAS, 1), "fusion.2": (CAMERAS | TEXT, 1), "fusion.3": (SEEN, 1),
                     "step": (SEEN | {"noise"}, tinyvla.STEPS), "decode": (SEEN | {"noise"}, 1)}


def test_modulations_are_made_before_the_loop_and_it_reads_convolutions_alone(built):
    plan_, unet = built.bundle.plan, built.policy.observe.embed_out
    rows = [plan_.values[b.value].type.dims for b in built.stage("step").inputs
            if b.mode == "row"]
    assert sum(np.prod(dims[1:]) for dims in rows if np.prod(dims[1:]) > 1) == MODULATED
    convolutions = sum(p.numel() for m in unet.modules() if isinstance(m, (torch.nn.Conv1d, torch.nn.ConvTranspose1d,
                                                                          torch.nn.GroupNorm)) for p in m.parameters())
    step = built.stage("step")
    assert step.weight_bytes == pytest.approx(4 * convolutions, rel=0.02)


def test_actions_are_the_original_code_s():
    """Of its pixels, resized by Pillow, 7 of 1,000 are one grey level brighter."""
    model = fill(tinyvla.TinyVla(SIZES))
    for name, value in {"template": oracle.TEXT[:, : tinyvla.TEMPLATE], "state_mean": oracle.MOMENTS[0],
                        "state_std": oracle.MOMENTS[1], "action_min": oracle.BOUNDS[0],
                        "action_max": oracle.BOUNDS[1]}.items():
        getattr(model, name).copy_(value)
    text = F.pad(oracle.TEXT[:, tinyvla.TEMPLATE:], (0, tinyvla.LENGTH - oracle.USED))
    inputs = {"tokens": text, "mask": torch.arange(tinyvla.LENGTH)[None] < oracle.USED, "state": oracle.STATE,
              "noise": oracle.NOISE, **dict(zip(tinyvla.CAMERAS, oracle.CAMERAS, strict=True))}
    with torch.no_grad():
        got, want = model(**inputs)["action"][0].numpy(), read("tinyvla")
        inputs |= dict(zip(tinyvla.CAMERAS, oracle.CAMERAS[::-1], strict=True))
        swapped = model(**inputs)["action"][0].numpy()
    assert np.abs(got - want).max() <= 5e-3 * want.std(0).max()
    assert np.abs(swapped - want).max() > 0.1 * want.std(0).max()


@pytest.mark.full
@pytest.mark.parametrize("variant", ["s", "b", "h"])
def test_parameters_are_those_of_the_paper(variant):
    name = "tinyvla" if variant == "s" else f"tinyvla-{variant}"
    published = dict(zip("sbh", (p.value for p in catalogue.find(name).system.published), strict=True))
    found = plan(f"zoo:{name}", weights=False)
    assert found.parameters["policy"] / 1e6 == pytest.approx(published[variant], rel=0.02)
