from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.zoo.built import FP32, build, changed, follow, worst
from tests.zoo.oracles import voxposer_inputs as oracle
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.systems.voxposer import STEPS, VoxPoser


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("voxposer", tmp_path_factory.mktemp("voxposer"))


def test_ways_are_those_of_pytorch(built, monkeypatch):
    """Or part from them between voxels of one cost, of which the last bits take one: boxes have a middle."""
    model, seen, costs = built.policy.observe, [], built.policy.observe.costs
    monkeypatch.setattr(model, "costs", lambda known: seen.append(costs(known)) or seen[-1])
    pairs = follow(built)
    for (got, want), cost in zip(pairs, seen, strict=True):
        ways = [model.in_voxels(torch.from_numpy(x[0, :, :3])).int() for x in (got, want)]
        apart = (ways[0] != ways[1]).any(1)
        first = int(apart.int().argmax()) if bool(apart.any()) else len(apart)
        assert worst([(got[:, :first], want[:, :first])]) <= FP32
        here, there = (cost[tuple(way[min(first, len(apart) - 1)])] for way in ways)
        assert abs(here - there) <= 1e-6
    assert sum(np.array_equal(got, want) for got, want in pairs) > len(pairs) // 2, "most are the same to their end"


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_the_loop_ends_where_nothing_around_is_cheaper(built):
    policy, draw, inputs = built.policy, torch.Generator().manual_seed(4), dict(built.policy.example_inputs)
    steps = []
    with vc.Session(built.bundle.path, threads=1) as session, torch.no_grad():
        for seed in range(4):
            inputs |= {"place": changed(policy, "place", draw)} if seed else {}
            for name, value in inputs.items():
                session.write(name, value)
            session.step()
            want = int(policy.infer(**inputs)["steps"])
            loop = session.stats().stages["step"]
            assert int(session.read("steps")[0]) == want == loop.last_iterations < STEPS
            steps.append(want)
    assert len(set(steps)) > 1


def test_texts_and_maps_have_their_rates(built):
    seen = {"tokens", "image.now", "depth", "camera", "intrinsics"}
    assert built.table() == {
        "vision.now": ({"image.now"}, 1), "fusion.1": (seen, 1), "fusion.2": (seen | {"place"}, 1),
        "step": (seen | {"place"}, STEPS), "decode": (seen | {"place"}, 1)}


@pytest.fixture(scope="module")
def planner():
    """The module at the side of the authors' maps, of which places of objects are asked, not the detector."""
    with torch.random.fork_rng(devices=[]):
        return VoxPoser(oracle.SIZES).eval()


def way_of(planner: VoxPoser, scene: oracle.Scene) -> tuple[np.ndarray, np.ndarray]:
    """(voxels [n,3], velocity and gripper at each [n,2])"""
    planner.objects = lambda inputs: torch.tensor(scene.objects)
    with torch.no_grad():
        got = planner(place=torch.tensor(scene.place)[None])
    rows = got["action"][0, :int(got["steps"]) + 1]
    return planner.in_voxels(rows[:, :3]).numpy(), rows[:, 3:].numpy()


@pytest.fixture(scope="module")
def recorded():
    return json.loads(oracle.RECORDED.read_text(encoding="utf-8"))["scenes"]


@pytest.mark.parametrize("number", range(oracle.ALIKE))
def test_a_way_is_that_of_the_authors(planner, recorded, number):
    """From the places of objects on: maps, distances, smoothing, the walk with its order of ties, and its end."""
    want = recorded[number]
    way, rest = way_of(planner, oracle.SCENES[number])
    np.testing.assert_array_equal(way, want["way"])
    np.testing.assert_array_equal(rest, np.stack([want["velocity"], want["gripper"]], 1))


def test_past_the_middle_of_a_box_the_way_parts_from_theirs_between_voxels_of_one_cost(planner, recorded):
    """Its sides cost the same there, and the last bits of f64 decide."""
    scene, want = oracle.SCENES[oracle.ALIKE], np.array(recorded[oracle.ALIKE]["way"])
    way, _ = way_of(planner, scene)
    with torch.no_grad():
        costs = planner.costs(planner.known(torch.tensor(scene.objects))).numpy()
    apart = int(np.argmax((way[:len(want)] != want[:len(way)]).any(1)))
    assert apart > 0 and abs(costs[tuple(want[apart])] - costs[tuple(way[apart].astype(int))]) <= 1e-6


def test_costs_are_those_of_the_authors(planner, recorded):
    for scene, want in zip(oracle.SCENES, recorded, strict=True):
        with torch.no_grad():
            costs = planner.costs(planner.known(torch.tensor(scene.objects)))
        got = costs[tuple(torch.tensor(oracle.PROBES).T)].numpy()
        assert np.abs(got - want["costs"]).max() <= 1e-6, "f32 beside f64, in 0 to 1"


def test_another_place_of_the_vase_takes_another_way(planner):
    """The control."""
    scene = oracle.SCENES[0]
    moved = replace(scene, objects=(scene.objects[0], (0.1, 0.0, 0.35)))
    first, second = way_of(planner, scene)[0], way_of(planner, moved)[0]
    assert first.shape != second.shape or (first != second).any()


@pytest.mark.full
def test_the_real_size_has_the_parameters_of_owl_vit():
    policy = catalogue.load("zoo:voxposer").observe
    assert sum(p.numel() for p in policy.parameters()) == 152_838_662
