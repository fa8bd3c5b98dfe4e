"""Loops whose bodies use ops with several results: conditioning that is chunked, largest values, recurrent layers."""

from __future__ import annotations

import pytest
import torch

from tests.samples.staged_reference import run_staged
from vlacompile.compiler.capture.export import capture
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.recipe import LoopRecipe, Recipe, StagesRecipe

EVERY = Recipe("every-stage", "", StagesRecipe(min_flops=0), loop=LoopRecipe(form="steps"))
WIDTH, STEPS = 8, 4


class Block(torch.nn.Module):
    """adaLN-zero (Peebles and Xie 2023): shift, scale and gate of two layers are chunks of one projection."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.ada, self.lstm = torch.nn.Linear(WIDTH, 6 * WIDTH), torch.nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.one, self.two = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.norm = torch.nn.LayerNorm(WIDTH, elementwise_affine=False)

    def forward(self, x, modulation):
        shift, scale, gate, shift2, scale2, gate2 = (m[:, None] for m in modulation)
        x = x + gate * self.one(self.norm(x) * (1 + scale) + shift)
        return x + gate2 * self.two(self.norm(x) * (1 + scale2) + shift2)


CONDITIONING = {  # of the condition and the step
    "chunked once, outside": lambda m, c, t: m.ada(c).chunk(6, -1),
    "chunked in every step": lambda m, c, t: m.ada(c + t).chunk(6, -1),
    "of the step alone": lambda m, c, t: m.ada(torch.full((1, WIDTH), t)).chunk(6, -1),
    "split": lambda m, c, t: m.ada(c + t).split(WIDTH, -1),
    "unbind": lambda m, c, t: m.ada(c + t).view(1, 6, WIDTH).unbind(1),
    "tensor_split": lambda m, c, t: m.ada(c + t).tensor_split(6, -1),
    "largest, outside": lambda m, c, t: [c.topk(4, -1)[0].sum(-1, keepdim=True) + t] * 6,
    "largest of the step": lambda m, c, t: [(c * (t + 1)).max(-1, keepdim=True)[0]] * 6,
}
INSIDE = {
    "largest": lambda m, x: x - x.max(1, keepdim=True)[0],
    "where largest": lambda m, x: x + 0.1 * x.max(-1)[1][..., None],
    "topk": lambda m, x: x + x.topk(3, -1)[0].mean(-1, keepdim=True),
    "sorted": lambda m, x: 0.5 * x + 0.5 * x.sort(1)[0], "recurrent": lambda m, x: x + m.lstm(x)[0],
    "its last state": lambda m, x: x + m.lstm(x)[1][0].transpose(0, 1),
    "halves swapped": lambda m, x: torch.cat(x.chunk(2, -1)[::-1], -1),
    "variance": lambda m, x: x + torch.var_mean(x, -1, keepdim=True)[1],
}


def looped(modulate, inside, odd: int | None = None) -> Policy:
    """odd: the iteration in which another half of the sample is doubled."""
    model = Block().eval().requires_grad_(False)

    def observe(condition, noise):
        for k in range(STEPS):
            noise = noise + inside(model, model(noise, modulate(model, condition, k / STEPS))) / STEPS
            halves = list(noise.chunk(2, -1))
            halves[k == odd] = 2.0 * halves[k == odd]
            noise = torch.cat(halves, -1)
        return {"action": noise}

    return Policy("looped", observe, {"condition": Source("observation"), "noise": Source("step")},
                  {"condition": torch.randn(1, WIDTH), "noise": torch.randn(1, 5, WIDTH)})


def iterations(policy: Policy) -> list[int]:
    """Of the stages, which compute what the policy computes."""
    staged = stage(capture(policy), load_target("host"), EVERY).staged
    got = run_staged(staged, dict(policy.example_inputs))["action"]
    assert torch.allclose(got, policy.infer(**policy.example_inputs)["action"], atol=1e-5)
    return [s.iterations for s in staged.stages if s.iterations > 1]


@pytest.mark.parametrize("name", CONDITIONING)
def test_a_loop_is_found_however_its_conditioning_is_taken_apart(name):
    assert iterations(looped(CONDITIONING[name], lambda m, x: x)) == [STEPS]


@pytest.mark.parametrize("name", INSIDE)
def test_a_loop_is_found_whatever_has_several_results_inside(name):
    assert iterations(looped(CONDITIONING["chunked in every step"], INSIDE[name])) == [STEPS]


def test_an_iteration_that_takes_another_chunk_is_another_body():
    assert iterations(looped(CONDITIONING["chunked in every step"], lambda m, x: x, odd=2)) != [STEPS]
