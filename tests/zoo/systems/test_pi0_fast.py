from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.zoo.built import build, follow
from tests.zoo.oracles import record_pi0_fast as oracle
from tests.zoo.plans import every_stage, planned
from tests.zoo.precision import in_precision
from vlacompile.pipeline import plan
from vlacompile.zoo.blocks.paligemma import SMALL
from vlacompile.zoo.systems.pi0_fast import CAMERAS, Pi0Fast

INPUTS = {"image.exterior", "image.wrist", "tokens", "mask"}
MOST = 12


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pi0_fast")
    return build("pi0-fast-restricted", folder, recipe=every_stage(folder))


def test_tokens_are_those_of_pytorch(built):
    pairs = follow(built, steps=6)
    assert all(np.array_equal(got, want) for got, want in pairs)
    assert len({tuple(want[0]) for _, want in pairs}) > 1


def test_a_smaller_precision_writes_the_same_on_seven_scenes_of_eight(built):
    """Where it does not, another token is nearly as good: a number of tokens has no other error."""
    pairs = follow(in_precision(built), steps=8)
    assert sum(not np.array_equal(got, want) for got, want in pairs) <= 1


def test_tokens_become_actions_by_the_inverse_transform(built):
    policy = built.policy
    taken = policy.decoder.steps[0]
    with vc.Session(built.bundle.path, threads=1) as session:
        for name in policy.sources:
            session.write(name, policy.example_inputs[name])
        session.step()
        written = np.array(session.read("written"))[0]
        found = np.stack([session.pop().copy() for _ in range(8)])
    rows = [taken.first - t for t in written[: _stop(written, taken.stop)]]
    numbers = [n for r in rows if 0 <= r < len(taken.pieces) for n in taken.pieces[r]][:80]
    numbers = np.array(numbers + [-taken.offset] * (80 - len(numbers))).reshape(10, 8) + taken.offset
    time, frequency = np.arange(10)[:, None], np.arange(10)[None]
    matrix = np.where(frequency == 0, 10**-0.5, 5**-0.5) * np.cos(np.pi * (2 * time + 1) * frequency / 20)
    low, high = np.linspace(-1, -0.5, 8), np.linspace(0.6, 1.2, 8)
    want = (matrix @ numbers / 10 + 1) / 2 * (high - low + 1e-6) + low
    assert np.abs(numbers).max() > 0 and np.abs(found - want[:8]).max() < 1e-5


def _stop(written: np.ndarray, stop: int) -> int:
    return next((i for i, t in enumerate(written) if t == stop), len(written))


def test_writing_is_a_loop_that_its_data_ends_behind_one_prefix(built):
    table = built.table()
    assert table["vision.exterior"] == ({"image.exterior"}, 1) and table["vision.wrist"] == ({"image.wrist"}, 1)
    assert table["fusion.3"] == (INPUTS, 1) and table["step"] == (INPUTS, MOST - 1)
    assert built.stage("step").end is not None


def test_a_black_image_and_the_rows_of_a_restricted_choice_are_constants(tmp_path):
    """Three images, of which two are seen; 64 ids of actions, the bar and the end, of 400."""
    found = planned("pi0-fast-restricted", tmp_path)
    assert {"f32[1,4,32]", "f32[66,32]"} <= {f.type for f in found.folded}


@pytest.mark.full
def test_a_plan_at_real_size_takes_its_long_loop_from_three_iterations():
    found = plan("zoo:pi0-fast", weights=False)
    assert round(found.parameters["all"] / 1e6) == 2923
    assert next(s for s in found.stages if s.stage == "step").iterations == 255


@torch.no_grad()
def test_the_module_writes_as_openpi():
    recorded = json.loads((oracle.FOLDER / "pi0_fast.json").read_text(encoding="utf-8"))["written"]
    model = Pi0Fast(SMALL, oracle.MOST, None).eval()
    lacks = model.load_state_dict(oracle.weights(), strict=False)
    assert not lacks.unexpected_keys and all(n.rpartition(".")[2] in ("places", "black") for n in lacks.missing_keys)
    for seed, want in zip(oracle.SEEDS, recorded, strict=True):
        ids, mask = oracle.text(seed)
        exterior, _, wrist = oracle.frames(seed)
        inputs = {CAMERAS[0]: exterior, CAMERAS[1]: wrist, "tokens": ids, "mask": mask}
        assert model(**inputs)["written"][0].tolist() == want
    assert len({tuple(w) for w in recorded}) == len(recorded) and max(len(set(w)) for w in recorded) > 4
