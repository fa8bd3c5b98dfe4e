"""LeRobot policies of toy size in every precision, through libvlart: what is lost is measured and within the
recipe's."""

from __future__ import annotations

import pytest

import vlacompile as vc
from tests.environments.lerobot.checkpoints import sized, write
from vlacompile.frontends.environments import ENVIRONMENTS

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")


QUICK = {("act", "int8"), ("act", "auto"), ("pi0", "int4"), ("diffusion", "int4")}
EVERY = [(k, r) for k in ("act", "diffusion", "smolvla", "pi0") for r in ("int8", "int4", "auto")]


@pytest.mark.parametrize("kind, recipe",
                         [pytest.param(*x, marks=() if x in QUICK else pytest.mark.full) for x in EVERY])
def test_precisions_of_lerobot(kind, recipe, tmp_path):
    folder = tmp_path / "pretrained_model"
    write(kind, folder)
    with sized(kind, False):
        bundle = vc.build(folder, recipe=recipe, out=tmp_path / "p.vlab")
    report = vc.verify(bundle.path)
    rows = {v.level: v for v in report.values if v.value == "action"}
    assert report.passed and rows["policy"].worst.rel_l2 < {"int8": 0.1, "int4": 0.3, "auto": 0.1}[recipe]
    schemes = {p.scheme for s in bundle.plan.stages for p in s.precisions}
    assert recipe == "auto" or recipe in schemes
