"""Cameras behind one encoder: calibrated together, decided as one, stored once."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

import vlacompile as vc
from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.precision.assign.assign import assign
from vlacompile.compiler.precision.assign.set_precision import set_precision
from vlacompile.compiler.staging.choose_solver import calibration
from vlacompile.compiler.staging.identical_stages import with_one_graph
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.precision_recipe import PrecisionRecipe
from vlacompile.recipe.recipe import StagesRecipe, load_recipe

HOST = load_target("host")


class Pair(nn.Module):
    """Two cameras through one encoder."""

    def __init__(self):
        super().__init__()
        self.conv, self.mix = nn.Conv2d(3, 32, 8, stride=8), nn.Linear(32, 64)
        self.head, self.out = nn.Linear(128, 128), nn.Linear(128, 35)

    def see(self, image):
        patches = torch.relu(self.conv(image.permute(0, 3, 1, 2).float() / 255)).flatten(2).mT
        return torch.relu(self.mix(patches)).mean(1)

    def forward(self, base, wrist):
        return {"action": self.out(torch.tanh(self.head(torch.cat([self.see(base), self.see(wrist)],
                                                                  -1)))).view(1, 5, 7)}


def pair() -> vc.Policy:
    torch.manual_seed(0)
    image = lambda: torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    return vc.Policy("pair", Pair().eval(), {n: vc.Source("observation") for n in ("base", "wrist")},
                     {"base": image(), "wrist": image()})


INT8 = PrecisionRecipe(layers="int8", smooth=0.5)


def staged_of(policy):
    return stage(capture(policy), HOST, replace(load_recipe(None), stages=StagesRecipe(0)), policy).staged


def test_identical_stages_are_found_and_compute_what_they_did():
    policy = pair()
    plain = staged_of(policy)
    staged, owners = with_one_graph(plain)
    assert owners == {s.name: s.name for s in plain.stages} | {"vision.wrist": "vision.base"}
    inputs = policy.example_inputs
    assert torch.equal(StageRunner(staged).run(inputs)["action"], StageRunner(plain).run(inputs)["action"])


def test_one_weight_that_differs_makes_them_different():
    plain = staged_of(pair())
    wrist = next(s for s in plain.stages if s.name == "vision.wrist")
    name = next(n for n, t in wrist.constants.items() if t.is_floating_point() and t.numel() > 1)
    other = wrist.constants[name].clone()
    other.view(-1)[0] += 1e-6
    changed = replace(wrist, constants=wrist.constants | {name: other})
    staged = replace(plain, stages=tuple(changed if s is wrist else s for s in plain.stages))
    assert all(stage == owner for stage, owner in with_one_graph(staged)[1].items())


def test_identical_stages_are_quantised_to_the_same_numbers():
    policy = pair()
    precise = set_precision(staged_of(policy), policy, INT8, HOST, lambda phase: None)
    base, wrist = (next(s for s in precise.staged.stages if s.name == f"vision.{c}") for c in ("base", "wrist"))
    assert any(t.dtype == torch.int8 for t in base.constants.values())
    assert base.constants.keys() == wrist.constants.keys()
    assert all(torch.equal(t, wrist.constants[n]) for n, t in base.constants.items())
    sizes = {d.stage: d.bytes for d in precise.assignment.decisions if d.scheme == "int8"}
    assert sizes["vision.base"] > 0 and sizes["vision.wrist"] == 0, "stored once, counted once"


def test_a_stage_is_decided_as_one():
    policy = policies.flow()
    staged = staged_of(policy)
    found = {}
    for decide in ("block", "stage"):
        recipe = PrecisionRecipe(layers="auto", max_action_error=0.2, minimise="bytes", decide=decide)
        tried = []
        said = assign(staged, HOST, recipe, calibration(policy, recipe), [], lambda s, schemes: s, tried.append)
        found[decide] = [t for t in tried if t.startswith("try ")], {(d.stage, d.scheme) for d in said.decisions
                                                                     if d.decided == "optimiser"}
    assert len(found["stage"][0]) < len(found["block"][0])
    assert all("/" not in t for t in found["stage"][0])
    stages = [s for s, _ in found["stage"][1]]
    assert len(stages) == len(set(stages)) > 1, "one scheme per stage"
