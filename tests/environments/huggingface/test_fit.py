"""A policy of seven billion weights, planned for a board from shapes alone."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.environments.huggingface.openvla_sized import make
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.pipeline import plan_on_board

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["huggingface"].is_here(),
                                reason="needs the environment huggingface: make test-huggingface")
RECORDED = Path("profiles/fit/openvla_sized-orin-nx-16gb.json")


def planned(layers: int, target: str):
    with weightless():
        policy = make(layers)
    account, found = plan_on_board(policy, target)
    return account, found.fit


def test_two_layers_of_it():
    account, fit = planned(2, "orin-nano-8gb")
    assert [s.stage for s in fit.stages] == ["vision.image", "language", "fusion"]
    assert fit.fits and {s.scheme for s in fit.stages} == {"fp16"} and account.parameters["in_stages"] > 1e9


def test_the_body_is_what_was_recorded():
    document = json.loads(RECORDED.read_text(encoding="utf-8"))
    fusion = next(s for s in document["stages"] if s["stage"] == "fusion")
    assert document["fits"] and document["modelled"] and document["swap"] == 0
    assert fusion["scheme"] == "int4" and fusion["weights"] == pytest.approx(6.54e9 * 0.625, rel=0.02)


@pytest.mark.full
def test_seven_billion_on_sixteen_gigabytes():
    """Without weights: 28 GB of them would not fit here either."""
    account, fit = planned(32, "orin-nx-16gb")
    assert account.parameters["all"] == pytest.approx(7.5e9, rel=0.01)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3 << 20, "KiB"
    assert json.loads(json.dumps(fit.as_dict())) == json.loads(RECORDED.read_text(encoding="utf-8"))


@pytest.mark.full
def test_seven_billion_on_eight_gigabytes_wants_swap_to_be_built():
    _, fit = planned(32, "orin-nx-8gb")
    assert fit.fits and fit.swap > 3e9 and "swap to build" in fit.verdict
