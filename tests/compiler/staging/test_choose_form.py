"""Whether a loop is one engine per iteration or one for all: a launch is compared with what an iteration takes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.recipe import Recipe

WEIGHT = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)) / 3


def _stages(ops: int, host) -> list[int]:
    """How often each stage runs, of a loop whose body has so many ops."""
    def infer(noise):
        for _ in range(8):
            noise = noise @ WEIGHT
            for _ in range(ops):
                noise = torch.tanh(noise)
        return {"action": noise}

    policy = vc.Policy("p", infer, {"noise": vc.Source("step")}, {"noise": torch.randn(1, 8)})
    staged = stage(capture(policy), host, Recipe("r", "")).staged
    return [s.iterations for s in staged.stages]


@pytest.mark.parametrize(("ops", "runs"), [(2, 1), (200, 8)])
def test_small_ops_are_worth_a_launch_if_they_are_many(ops, runs):
    assert max(_stages(ops, load_target("host"))) == runs


def test_a_host_without_measured_calls_counts_work_alone():
    host = dataclasses.replace(load_target("host"), rates=None)
    assert max(_stages(200, host)) == 1
