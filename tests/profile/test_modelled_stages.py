"""The latency that `plan` says, from shapes alone, beside that of the built bundle, from its emitted graphs."""

from __future__ import annotations

import pytest

import vlacompile as vc
from tests.samples import policies
from vlacompile.hardware.target import load_target
from vlacompile.pipeline import plan_on_board, plan_on_boards
from vlacompile.profile.kernel_work import work_of
from vlacompile.profile.roofline import model

BOARD = "orin-nano-8gb"


@pytest.mark.parametrize("make", [policies.late_fusion, policies.flow])
def test_a_plan_says_what_the_built_bundle_says(make, tmp_path):
    recipe = tmp_path / "fp16.toml"
    recipe.write_text(policies.EVERY_STAGE + '[precision]\nbase = "fp16"\nlayers = "fp16"\n', encoding="utf-8")
    policy = make()
    planned = plan_on_board(policy, BOARD, str(recipe))[1].modelled
    bundle = vc.build(policy, BOARD, str(recipe), tmp_path / "x.vlab")
    built = model(bundle.plan, work_of(bundle), load_target(BOARD))
    assert [s.stage for s in planned.stages] == [s.stage for s in built.stages]
    assert planned.execute == built.execute and planned.watts == built.watts
    for ours, theirs in zip(planned.stages, built.stages, strict=True):
        assert ours.every == theirs.every and ours.iterations == theirs.iterations
        assert ours.total == pytest.approx(theirs.total, rel=0.1), ours.stage
        assert ours.operations == pytest.approx(theirs.operations, rel=0.05), ours.stage


def test_several_boards_are_as_each_alone():
    boards = [BOARD, "orin-nx-16gb"]
    _, together = plan_on_boards(policies.flow(), boards)
    alone = [plan_on_board(policies.flow(), b)[1] for b in boards]
    assert [b.as_dict() for b in together] == [b.as_dict() for b in alone]
    assert together[0].modelled.same > together[1].modelled.same


def test_what_does_not_fit_has_no_latency(tmp_path):
    from pathlib import Path

    text = Path("targets/orin-nano-4gb.toml").read_text(encoding="utf-8")
    small = tmp_path / "small.toml"
    small.write_text(text.replace("visible_mib = 3337", "visible_mib = 1300"), encoding="utf-8")
    planned = plan_on_board(policies.late_fusion(), str(small))[1]
    assert not planned.fit.fits and planned.modelled is None and planned.as_dict()["latency"] is None
