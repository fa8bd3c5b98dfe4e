"""LeRobot policies of real size on Orin Nano 8 GB, planned without their weights: `benchmarks.plans --board`."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.environments.lerobot.checkpoints import sized, write
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.pipeline import plan_on_board

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
BOARD = "orin-nano-8gb"


def recorded(kind: str) -> dict:
    return json.loads(Path(f"profiles/fit/{kind}-{BOARD}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("kind", "below", "loops"), [
    ("smolvla", {}, {}), ("pi0", {}, {"fusion.2": 16}), ("groot", {}, {"fusion.1": 12}),
    ("pi05", dict.fromkeys(("vision.left", "vision.right", "fusion.1"), "int8"), {"fusion.2": 16})])
def test_recorded(kind, below, loops):
    """below: stages below fp16. loops: {stage: its equal layers, which are one engine}."""
    document = recorded(kind)
    assert document["fits"] and document["modelled"] and document["swap"] == 0 and document["board"].startswith(BOARD)
    assert {s["stage"]: s["scheme"] for s in document["stages"] if s["scheme"] != "fp16"} == below
    assert {s["stage"]: s["layers"] for s in document["stages"] if s["layers"]} == loops


def test_tiny_policy_from_its_checkpoint(tmp_path):
    """Of a checkpoint without weights, whose cameras share an encoder but not their frames' sizes."""
    folder = tmp_path / "pretrained_model"
    with sized("pi0", real=False):
        write("pi0", folder)
        with_weights, without = (plan_on_board(folder, BOARD, weights=w)[1].fit for w in (True, False))
    assert [s.stage for s in with_weights.stages] == [s.stage for s in without.stages]
    assert with_weights.fits and abs(with_weights.peak - without.peak) < 1_000_000


@pytest.mark.full
@pytest.mark.parametrize("kind", ["smolvla", "pi0"])
def test_recorded_fit_is_what_comes_out(kind, tmp_path):
    folder = tmp_path / "pretrained_model"
    write(kind, folder, real=True, weights=False)
    with sized(kind, real=True):
        fit = plan_on_board(folder, BOARD, weights=False)[1].fit
    assert json.loads(json.dumps(fit.as_dict())) == recorded(kind)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20, "KiB: no weights were loaded"
