from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.recipe.precision_recipe import PrecisionRecipe
from vlacompile.zoo import catalogue

FIRST = {"image.first", "marked"}
SEEN = FIRST | {"image.now", "depth", "camera", "intrinsics"}
ALL = SEEN | {"held", "pose", "field", "body"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("rekep", tmp_path_factory.mktemp("rekep"))


def test_paths_are_those_of_pytorch(built):
    assert worst(follow(built, steps=2)) <= FP32


def test_the_solver_is_one_loop_with_an_end(built):
    step = built.stage("step")
    assert step.iterations == 30 and step.end is not None and step.weight_bytes == 0
    assert built.table()["step"] == (ALL, 30)


@pytest.mark.full
def test_a_smaller_precision_costs_what_it_states(built):
    """A pose is the best of 64 local ones: where int8 moves a keypoint, another may be."""
    check_precision(built, PrecisionRecipe(layers="int8"), choices=True)


@pytest.mark.parametrize("variant", ["rekep", "rekep-grasp"])
def test_a_goal_costs_no_more_than_what_slsqp_finds(variant):
    policy = catalogue.load(f"zoo:{variant}@tiny")
    model, inputs = policy.observe, dict(policy.example_inputs)
    with torch.no_grad():
        scene, found = model.scene(inputs), float(model(**inputs)["cost"][0, 0])

    def both(x: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(x, dtype=torch.float32)[None].requires_grad_()
        cost = model.goal_cost(at, scene)
        slope, = torch.autograd.grad(cost.sum(), at)
        return float(cost.detach()), slope[0].nan_to_num().double().numpy()

    starts = torch.cat([scene["start"], model.seeds[1:3]]).double().numpy()
    least = min(minimize(both, x, jac=True, method="SLSQP", bounds=[(-1, 1)] * 6, options={"maxiter": 60}).fun
                for x in starts)
    assert found <= 1.01 * least + 0.01
    assert found < both(starts[0])[0], "the pose it starts from costs more"


@pytest.mark.full
def test_the_real_size_has_the_parameters_of_dinov2():
    policy = catalogue.load("zoo:rekep").observe
    assert sum(p.numel() for p in policy.parameters()) == 22_056_192
