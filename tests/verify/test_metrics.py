"""The three metrics and their limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from vlacompile.verify.metrics import Metrics, compare
from vlacompile.verify.tolerances import DISTURBED, ROUNDING_SHARE, tolerance, usually, within_precision

MASK = np.array([0.0, -np.inf, 2.0, -np.inf])


def test_the_same_infinity_is_the_same_value():
    assert compare(MASK, MASK) == Metrics(0.0, 0.0, 1.0)
    near = compare(MASK + [1e-6, 0, 0, 0], MASK)
    assert near.within(tolerance("f32", "stage").limit(MASK)) and near.max_abs == pytest.approx(1e-6)


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


@pytest.mark.parametrize("numbers", [1, 2, 7, 1000])
def test_few_numbers_are_not_refused_by_chance(numbers):
    """Two right engines round independently. What a single frame shows of one number is chance; what all show is not. A
    step of the precision that is ten times as coarse is refused all the same."""
    draw = np.random.default_rng(0)

    def refused(coarse: float) -> float:
        bad = 0
        for _ in range(300):
            full = draw.standard_normal((6, numbers)).astype(np.float32)
            ours, other = (full + s * 1e-3 * draw.standard_normal(full.shape).astype(np.float32) for s in (1.0, coarse))
            pairs = list(zip(ours, full, strict=True))
            limits = [within_precision(tolerance("f32", "chunk").limit(f), compare(o, f).worst(usually(pairs, f)),
                                       Metrics(0.0, 0.0, 1.0), numbers) for o, f in pairs]
            bad += not all(compare(got, o).within(limit)
                           for got, (o, _), limit in zip(other, pairs, limits, strict=True))
        return bad / 300

    assert refused(1.0) <= 0.02
    assert refused(10.0) > 0.5


def test_integers_and_zeros_usually_do_not_move():
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert usually([(ones, zeros)], zeros) == usually([(ones.astype(int),) * 2],
                                                      ones.astype(int)) == Metrics(0.0, 0.0, 1.0)
    assert usually([(ones * np.inf, ones)], ones) == Metrics(0.0, 0.0, 1.0)


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_errors_that_add_up_are_allowed_by_all_three_metrics_or_none(share):
    """What a precision moves a vector by, and what two right engines may be apart, may lie in one direction."""
    want, aside = np.zeros(64, np.float32), np.zeros(64, np.float32)
    want[0], aside[1] = 1.0, 1.0
    moved, disturbed = (compare(want + r * aside, want) for r in (0.02, 0.01))
    limit = within_precision(Metrics(0.0, 0.0, 1.0), moved, disturbed)
    allowed = ROUNDING_SHARE * 0.02 + DISTURBED * 0.01
    got = compare(want + np.float32(share * allowed) * aside, want)
    assert (got.rel_l2 <= limit.rel_l2) == (got.cosine >= limit.cosine) == (share < 1)
