"""A rotation is chosen by the error of actions, weighed against smoothing, and told of."""

from __future__ import annotations

import pytest

import vlacompile as vc
from tests.compiler.precision.rotate.planted import outliers
from tests.samples.staging import verified
from vlacompile.compiler.precision.assign.set_precision import Precise, set_precision
from vlacompile.hardware.target import load_target
from vlacompile.phases.read_inputs import resolve
from vlacompile.recipe.precision_recipe import PrecisionRecipe
from vlacompile.recipe.recipe import load_recipe
from vlart.bundle.precision_record import rotation_lines


@pytest.fixture(scope="module")
def staged():
    policy = outliers(100.0)
    return policy, verified(policy, load_target("host"), resolve(load_recipe(None), policy)).staging.staged


def precise(staged, **options) -> Precise:
    policy, stages = staged
    return set_precision(stages, policy, PrecisionRecipe(layers="int8", **options), load_target("host"),
                         lambda phase: None)


def test_it_is_taken_where_actions_come_out_nearer(staged):
    plain, turned = precise(staged), precise(staged, rotate="auto")
    (fact,) = turned.facts["rotations"]
    assert fact["groups"] and set(fact["errors"]) == {"plain", "rotated"}
    assert fact["errors"]["rotated"] < 0.6 * fact["errors"]["plain"]  # of the host, which measures ranges as it runs
    assert plain.simulated["tensorrt"] > 0.02 and turned.simulated["tensorrt"] < plain.simulated["tensorrt"] / 3
    assert any("is rotated (hadamard 64" in line for line in turned.report)
    assert plain.facts["rotations"] == [] and not any("rotated" in line for line in plain.report)


def test_smoothing_alone_is_kept_where_it_is_as_good(staged):
    found = precise(staged, rotate="auto", smooth=0.5)
    (fact,) = found.facts["rotations"]
    ways = fact["errors"]
    assert set(ways) == {"plain", "smoothed", "rotated", "both"}
    taken = ("both" if fact["smoothed"] else "rotated") if fact["groups"] else "smoothed"
    assert ways[taken] <= min(ways.values()) / 0.98 + 1e-12
    assert len(rotation_lines(found.facts)) == 1


def test_products_at_run_time_are_offered_by_their_price(staged):
    notes = precise(staged, rotate="auto").notes
    assert any("is not rotated: its products would take" in n and "by its rates" in n for n in notes)


def test_a_rotated_bundle_is_replayed_and_says_so(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\ndescription = ""\n[precision]\nlayers = "int8"\nrotate = "auto"\n', encoding="utf-8")
    bundle = vc.build(outliers(100.0, "layer"), recipe=str(recipe), out=tmp_path / "p.vlab")
    assert vc.verify(bundle.path).passed
    (fact,) = bundle.manifest["provenance"]["precision"]["rotations"]
    assert any(g["kind"] == "stream" and "mean kept" in g["matrix"] for g in fact["groups"])
