"""Policies of real size, planned without their weights: what `benchmarks.plans` writes, and what analysis expects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.environments.lerobot.checkpoints import sized, write
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.pipeline import plan

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
PLANS = Path("profiles/plans")


def recorded(kind: str) -> dict:
    return json.loads((PLANS / f"{kind}.json").read_text(encoding="utf-8"))


def computed_from(document: dict, *parts: str) -> tuple[float, float]:
    """Millions of numbers of folded weights that such modules have, and of what stands for them."""
    rows = [f for f in document["folded"] if any(p in w for w in f["weights"] for p in parts)]
    weights = {w: size for f in rows for w, size in f["weights"].items() if any(p in w for p in parts)}
    return sum(weights.values()) / 1e6, sum(f["numbers"] for f in rows) / 1e6


def test_time_leaves_the_weights_of_pi05():
    """37 norms of 1024 -> 3072 and the time's two layers: 116.5 + 2.1 million numbers, for 10 x 37 x 3072 but the gate
    of the last norm, which nothing reads."""
    gone, made = computed_from(recorded("pi05"), "dense", "time_mlp")
    assert gone == pytest.approx(37 * (1024 * 3072 + 3072) / 1e6 + 2 * (1024 * 1025) / 1e6, abs=1e-6)
    assert made == pytest.approx(10 * (37 * 3072 - 1024) / 1e6)


def test_time_and_other_bodies_leave_the_weights_of_groot():
    document = recorded("groot")
    gone, made = computed_from(document, "timestep_encoder", "norm1__linear", "proj_out_1")
    assert 80 < gone < 90 and made < 0.5
    assert computed_from(document, "state_encoder", "action_encoder", "action_decoder") == (0, 0)  # read where they are
    assert 300 < document["parameters"]["dropped"] / 1e6 < 310, "of 31 of 32 bodies"


@pytest.mark.parametrize(("kind", "iterations", "vision"), [("pi0", 10, 3), ("pi05", 10, 3), ("groot", 4, 1)])
def test_stages(kind, iterations, vision):
    rows = recorded(kind)["stages"]
    steps = [r for r in rows if r["stage"] == "step"]
    assert [r["iterations"] for r in steps] == [iterations]
    assert sum(r["stage"].startswith("vision.") for r in rows) == vision
    assert steps[0]["flops_share"] < 0.2 and sum(r["flops_share"] for r in rows) == pytest.approx(1)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["groot", "pi0", "pi05"])
def test_recorded_plan_is_what_comes_out(kind, tmp_path):
    folder = tmp_path / "pretrained_model"
    write(kind, folder, real=True, weights=False)
    with sized(kind, real=True):
        found = plan(folder, weights=False)
    assert json.loads(json.dumps(found.as_dict())) == recorded(kind)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["groot", "pi0", "pi05", "smolvla"])
def test_plan_needs_no_weights(kind, tmp_path):
    folder = tmp_path / "pretrained_model"
    write(kind, folder)
    with sized(kind, real=False):
        known, unknown = (plan(folder, weights=w).parameters for w in (True, False))
    assert {k: known[k] for k in ("all", "unread")} == {k: unknown[k] for k in ("all", "unread")}
    # weights of equal content, as the ones and zeros that norms start from, are seen to be equal only where they are
    # read
    merged = known["dropped"] - unknown["dropped"]
    assert 0 <= merged <= 0.02 * known["all"]
    assert known["in_stages"] + known["folded"] + merged == unknown["in_stages"] + unknown["folded"]
