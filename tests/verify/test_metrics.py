"""The three metrics and their limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from vlart.verify.metrics import Metrics, compare
from vlart.verify.tolerances import tolerance

MASK = np.array([0.0, -np.inf, 2.0, -np.inf])


def test_the_same_infinity_is_the_same_value():
    assert compare(MASK, MASK) == Metrics(0.0, 0.0, 1.0)
    near = compare(MASK + [1e-6, 0, 0, 0], MASK)
    assert near.within(tolerance("f32", "stage").limit(MASK)) and near.max_abs == pytest.approx(1e-6)


def test_no_number_is_what_pytorch_has_where_it_has_none():
    want = np.array([0.0, np.nan, 2.0])
    assert compare(want.copy(), want) == Metrics(0.0, 0.0, 1.0)
    assert compare(np.array([0.0, np.nan, 2.5]), want).max_abs == 0.5
    for other in ([0.0, 1.0, 2.0], [np.nan, np.nan, 2.0]):
        assert np.isinf(compare(np.array(other), want).max_abs)


@pytest.mark.parametrize("got", [[0.0, np.inf, 2.0, -np.inf], [0.0, -np.inf, 2.0, 0.0], [0.0, -np.inf, np.nan, -np.inf],
                                 [-np.inf, -np.inf, 2.0, -np.inf]])
def test_another_infinity_is_not(got):
    assert not compare(np.array(got), MASK).within(tolerance("f32", "stage").limit(MASK))


def test_a_mask_of_infinities_may_cross_a_stage_boundary(tmp_path):
    """The bias of the attention is made from the instruction's mask and read by the stage of the image."""
    torch.manual_seed(0)
    mix = torch.nn.Linear(64, 64).eval().requires_grad_(False)

    def observe(mask, image):
        bias = torch.where(mask, 0.0, -torch.inf)[:, None].expand(1, 64, 64).contiguous()
        bias = bias.cumsum(-1) * 1.0
        return {"action": torch.softmax(mix(image) + bias, -1)[:, :4, :4]}

    mask = torch.arange(64)[None] < 40
    policy = vc.Policy("masked", observe, {"mask": vc.Source("task"), "image": vc.Source("observation")},
                       {"mask": mask, "image": torch.randn(1, 64, 64)})
    recipe = tmp_path / "every.toml"
    recipe.write_text('name = "every"\ndescription = ""\n[stages]\nmin_flops = 0\n', encoding="utf-8")
    bundle = vc.build(policy, recipe=str(recipe), out=tmp_path / "a.vlab")
    with vc.Session(bundle.path) as session:
        session.write("mask", mask.numpy())
        session.write("image", policy.example_inputs["image"].numpy())
        session.step()
        kept = [v.name for v in bundle.plan.values if v.type.dtype == "f32" and v.name not in ("image", "action")]
        assert any(np.isinf(session.read(name)).any() for name in kept), "no infinity crosses a boundary"
