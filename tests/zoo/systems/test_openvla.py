from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.frontends.openvla.cases import SEEDS, TOWER, WIDTH, observation, statistics, weights
from tests.frontends.openvla.checkpoints import RECORDED
from tests.samples.recorded_weights import unfolded
from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.plans import every_stage, planned
from tests.zoo.precision import check_precision
from vlacompile.frontends.openvla.model import TOWERS, LlamaSizes, is_unused
from vlacompile.frontends.vision_transformer import VisionSizes
from vlacompile.pipeline import plan
from vlacompile.zoo.systems.openvla import OpenVla, Sizes

CAMERA, TEXT, HEAD = "image.primary", {"tokens", "mask"}, "language_model.lm_head.weight"
EMPTY, PADDED = 29871, 64


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvla")
    return build("openvla", folder, recipe=every_stage(folder))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built, choices=True)


def test_six_of_seven_tokens_are_a_loop_behind_vision_and_prompt(built):
    everything = {CAMERA} | TEXT
    assert built.table() == {
        "vision.primary": ({CAMERA}, 1), "language.1": ({"tokens"}, 1), "language.2": ({"mask"}, 1),
        "fusion": (everything, 1), "step": (everything, 6), "decode": (everything, 1)}


def test_a_restricted_choice_reads_the_rows_of_action_tokens_alone(tmp_path):
    assert planned("openvla-restricted", tmp_path).parameters["dropped"] == 32 * (400 - 256)


@pytest.mark.full
def test_weights_have_the_names_and_shapes_of_the_checkpoint():
    dead = is_unused({"featurizer": 23, "fused_featurizer": 26})
    shapes = {n: s for n, s in unfolded(RECORDED["real-size"]["openvla-7b"]).items() if n == HEAD or not dead(n)}
    with torch.device("meta"):
        model = OpenVla(Sizes(), False)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == shapes


@pytest.mark.full
def test_a_plan_at_real_size_has_every_parameter():
    found = plan("zoo:openvla", weights=False)
    assert round(found.parameters["in_stages"] / 1e6) == 7498
    assert {s.stage: s.iterations for s in found.stages}["step"] == 6


@pytest.fixture(scope="module")
def original():
    """The module with weights drawn by the names of the checkpoint, and statistics, of the recording."""
    towers = (VisionSizes(TOWER["embed_dim"], TOWER["depth"] - 1, TOWER["num_heads"], 4 * TOWER["embed_dim"], 14, 224,
                          5, True), VisionSizes(48, 2, 16, 179, 14, 224))
    model = OpenVla(Sizes(towers, LlamaSizes(WIDTH, 2, 4, 4, 128, 32064, 1e-6, 10000.0)), False).eval()
    dead, shapes = is_unused(dict.fromkeys(TOWERS, 2)), unfolded(RECORDED["openvla"]["weights"])
    lacks = model.load_state_dict(weights("openvla", "model", shapes), strict=False)
    kept = {n for n, _ in model.named_buffers()} & set(model.state_dict())
    assert all(map(dead, lacks.unexpected_keys)) and set(lacks.missing_keys) == kept
    known = statistics("openvla")["fractal"]["action"]
    for name, key in (("low", "q01"), ("high", "q99"), ("mask", "mask")):
        getattr(model.bounds, name).copy_(torch.tensor(known[key]))
    return model


@torch.no_grad()
def answer(model, seed: int) -> np.ndarray:
    seen, ids = observation("openvla", seed), [*RECORDED["openvla"]["ids"][seed], EMPTY]
    tokens = torch.tensor([ids + [0] * (PADDED - len(ids))])
    found = model(**{CAMERA: torch.from_numpy(seen["frames"][0])[None], "tokens": tokens,
                     "mask": torch.arange(PADDED)[None] < len(ids)})
    return found["action"][0].numpy()


def test_the_module_answers_as_the_authors_code(original):
    recorded = np.array(RECORDED["openvla"]["actions"])
    for seed in SEEDS:
        difference = np.abs(answer(original, seed) - recorded[seed]) / recorded.std((0, 1))
        assert difference.max() < FP32
    assert np.abs(answer(original, 1) - recorded[0]).max() > 0.01
