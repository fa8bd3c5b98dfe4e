"""LeRobot policies of toy size in fp16: loops, masks of -3.4e38, norms and positions that are written out."""

from __future__ import annotations

import pytest

from tests.compiler.precision.fp16.planted import staged_of, through_onnx
from tests.environments.lerobot.checkpoints import sized, write
from vlacompile.compiler.precision.fp16.convert import convert_to_fp16
from vlacompile.compiler.staging.choose_solver import calibration
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.phases.load_policy import load_policy
from vlacompile.recipe.recipe import LoopRecipe

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")


@pytest.mark.parametrize("kind", ["diffusion", "pi0", pytest.param("smolvla", marks=pytest.mark.full)])
def test_loops_of_lerobot_in_fp16(kind, tmp_path):
    write(kind, tmp_path / kind)
    with sized(kind, False):
        policy = load_policy(str(tmp_path / kind))
        staged = staged_of(policy)
    observations = calibration(policy, LoopRecipe())[:3]
    half = convert_to_fp16(staged, observations)
    assert half.action_error < 5e-3 and half.repaired == 0
    kinds = {s.name: {p.kind for p in s.kept_fp32.values()} for s in half.stages}
    assert kinds["step"] >= {"accumulator", "norm"} and kinds["decode"] >= {"action"}
    if kind != "diffusion":
        assert "position" in kinds["fusion"] and not any("softmax" in n for s in half.stages for n in s.kept_fp32)
    assert sum(s.made.weights for s in half.stages) < 0.55 * sum(s.before for s in half.stages)
    through_onnx(staged, half.staged, observations[0])
