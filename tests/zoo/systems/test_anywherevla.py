from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import share_of_spread
from tests.samples.shapes import compact
from tests.samples.weights_by_name import draw_weights
from tests.zoo.built import FP32, build, changed, follow, worst
from tests.zoo.oracles import record_smolvla as oracle
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.frontiers import UNKNOWN, Frontiers, FrontierSettings
from vlacompile.zoo.blocks.smolvla import TINY_SMOLVLA, SmolVla

TEXT = {"tokens", "mask"}
SEEN = TEXT | {"image.arm"}
PREFIX = SEEN | {"state"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("anywherevla", tmp_path_factory.mktemp("anywherevla"))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_boxes_and_goals_are_those_of_pytorch_and_a_map_makes_only_its_stages_run(built):
    policy, draw = built.policy, torch.Generator().manual_seed(2)
    inputs = dict(policy.example_inputs)
    with vc.Session(built.bundle.path, threads=1) as session, torch.no_grad():
        for name, value in inputs.items():
            session.write(name, value)
        session.step()
        for name in ("image.navigation", "target", "robot"):
            inputs[name] = torch.tensor([7]) if name == "target" else changed(policy, name, draw)
            before = session.stats().runs()
            session.write(name, inputs[name])
            session.step()
            want, after = policy.infer(**inputs), session.stats().runs()
            for output in ("boxes", "present", "goals"):
                np.testing.assert_allclose(session.read(output), want[output].numpy(), rtol=1e-4, atol=1e-4)
            assert after["step"] == before["step"], f"{name} has nothing to do with the actions"
    assert want["goals"][0, 0, -1] == 1 and want["goals"][0, -1, -1] == 0


def test_every_part_has_stages_of_its_own_sources(built):
    assert built.table() == {
        "vision.arm": ({"image.arm"}, 1), "fusion.1": (SEEN, 1), "fusion.2": (PREFIX, 1),
        "vision.navigation": ({"image.navigation"}, 1), "fusion.3": ({"image.navigation", "target"}, 1),
        "grid": ({"grid"}, 1), "fusion.4": ({"grid", "robot"}, 1), "step": (PREFIX | {"noise"}, 10),
        "decode": (PREFIX | {"noise"}, 1)}


def test_keys_of_the_prefix_are_projected_once_and_the_time_is_a_table(built):
    policy = built.policy.observe.policy
    layers = policy.vlm_with_expert.lm_expert["layers"]
    hoisted = sum(p.weight.numel() for x in layers[1::2] for p in (x.self_attn.k_proj, x.self_attn.v_proj))
    matrices = sum(p.numel() for p in layers.parameters() if p.dim() == 2) - hoisted
    matrices += policy.action_time_mlp_out.weight.numel() + policy.action_out_proj.weight.numel()
    # of what takes the sample and the time, one matrix is left, as large as that for actions
    matrices += policy.action_in_proj.weight.numel()
    assert built.stage("step").weight_bytes == 4 * matrices  # norms and biases are tables and constants


def test_actions_and_names_of_weights_are_those_of_lerobot():
    found = json.loads(oracle.RECORDED.read_text(encoding="utf-8"))
    model = SmolVla(TINY_SMOLVLA).eval()
    draw_weights(model)
    assert compact({n: p.shape for n, p in model.named_parameters()}) == found["weights"]
    with torch.no_grad():
        got = np.stack([model(*oracle.inputs(seed))[0].numpy()[::oracle.EVERY] for seed in range(oracle.SEEDS)])
    assert share_of_spread(got, np.array(found["chunks"])) < FP32


def test_goals_lie_where_the_known_ends_the_nearest_first_and_apart():
    settings = FrontierSettings(cell=0.5, reach=20.0, sight=2.0, gain=1.0, apart=2.0, goals=6)
    grid = torch.full((1, 32, 32), UNKNOWN, dtype=torch.int32)
    grid[:, 8:24, 8:24] = 0
    grid[:, 8:24, 8] = 100  # a wall on the left: nothing to see behind it
    goals = Frontiers(32, settings)(grid, torch.tensor([[2.0, 0.0]]))[0]
    assert (goals[:, -1] == 1).all()
    far = (goals[:, :2] - torch.tensor([2.0, 0.0])).norm(dim=1)
    assert (far.diff() >= 0).all()
    apart = torch.cdist(goals[:, :2], goals[:, :2]) + 9 * torch.eye(6)
    assert apart.min() >= settings.apart
    assert goals[0, 0] == 4.25 and abs(goals[0, 1]) < 0.5 and (goals[:, 0] > -4.0).all()
    looks = torch.stack([goals[0, 2].cos(), goals[0, 2].sin()])
    assert looks[0] > 0.5, "it looks to the right, where all is unknown"
    known = torch.zeros_like(grid)
    assert (Frontiers(32, settings)(known, torch.zeros(1, 2))[0, :, -1] == 0).all()


@pytest.mark.full
def test_the_real_size_has_the_published_parameters():
    policy = catalogue.load("zoo:anywherevla").observe.policy
    assert sum(p.numel() for p in policy.parameters()) == 450_046_176
