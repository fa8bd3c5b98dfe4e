"""Loops whose bodies use ops with several results: conditioning that is chunked, largest values, recurrent layers."""

from __future__ import annotations

import operator

import pytest
import torch

from tests.samples.staged_reference import run_staged
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.minimum_cut import CutProblem, bytes_to_keep, recomputed_by_consumers
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


LSTM = torch.nn.LSTM(4, 4, batch_first=True).eval().requires_grad_(False)
# Of f32[1,6,4]: ops with several results, as lists and as tuples.
SEVERAL = {
    "split": lambda x: x.split([1, 3], -1), "split evenly": lambda x: x.split(2, -1), "chunk": lambda x: x.chunk(2, -1),
    "unbind": lambda x: x.unbind(-1), "tensor_split": lambda x: x.tensor_split(3, 1), "sort": lambda x: x.sort(-1),
    "topk": lambda x: x.topk(2, 1), "max": lambda x: x.max(-1), "min": lambda x: x.min(1, keepdim=True),
    "aminmax": lambda x: torch.aminmax(x, dim=1), "cummax": lambda x: x.cummax(1), "hsplit": lambda x: x.hsplit(2),
    "var_mean": lambda x: torch.var_mean(x, -1), "std_mean": lambda x: torch.std_mean(x, 1),
    "median": lambda x: x.median(1), "broadcast": lambda x: torch.broadcast_tensors(x, x[:, :1], x[:, :, :1]),
    "broadcast of two": lambda x: torch.broadcast_tensors(x[..., :2] * 2, x[..., 2:] + 1),
    "broadcast of small": lambda x: torch.broadcast_tensors(x.mean(), x.amax(-1, keepdim=True)[..., :1]),
    "meshgrid": lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
    "a distribution": lambda x: (lambda d: (d.log_prob(x), d.entropy(), d.mean))(
        torch.distributions.Normal(x[..., :1], 0.5)),
    "a mixture": lambda x: (lambda d: (d.log_prob(x[..., 0]), d.mean))(torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=x[:, 0]), torch.distributions.Normal(x[:, 1], x[:, 2].exp()))),
    "lstm": lambda x: LSTM(x)[0].unbind(1)}


def apart(several) -> Policy:
    """Results of an op on one source are read by two stages, and by several ops of each."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 4).requires_grad_(False) for _ in range(3)]

    def total(parts, y):  # what reads a result depends on y as well
        return sum(layers[1 + i % 2](y * (p * y.sum()).mean() + (p.float() * y.mean()).amax())
                   for i, p in enumerate(parts))

    torch.manual_seed(1)

    def observe(state, goal, image):
        parts = several(layers[0](state))
        return {"action": total(parts, goal) + total(parts[:1], image), "other": total(parts[::-1], image)}

    return Policy("apart", observe, {"state": Source("observation"), "goal": Source("task"),
                                     "image": Source("observation")},
                  {"state": torch.randn(1, 6, 4), "goal": torch.randn(1, 4), "image": torch.randn(1, 4)},
                  outputs=("action", "other"))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("min_flops", [0, 10**6])
def test_each_of_several_results_is_what_stages_hand_on(name, min_flops):
    policy = apart(SEVERAL[name])
    staged = stage(capture(policy), load_target("host"), Recipe("r", "", StagesRecipe(min_flops))).staged
    got, want = run_staged(staged, dict(policy.example_inputs)), policy.infer(**policy.example_inputs)
    for output in policy.outputs:
        assert torch.allclose(got[output], want[output], atol=1e-5)
    assert min_flops or len(staged.stages) > 1


def test_a_cut_takes_results_one_by_one_however_cheap_all_together_seem():
    """Negative control: what costs as much as its results and has one value is handed on itself."""
    def cut(val):
        graph = torch.fx.Graph()
        x = graph.placeholder("x")
        op = graph.call_function(torch.ops.aten.split.Tensor, (x, 1))
        parts = [graph.call_function(operator.getitem, (op, i)) for i in range(4)]
        x.meta["val"] = torch.zeros(1000)
        op.meta["val"] = val
        for part in parts:
            part.meta["val"] = torch.zeros(1, dtype=torch.bfloat16)
        problem = CutProblem((x, op, *parts), set(parts), {x, op}, bytes_to_keep)
        return op, parts, recomputed_by_consumers(problem)

    _op, parts, again = cut([torch.zeros(1, dtype=torch.bfloat16)] * 4)
    assert not again & set(parts)
    _op, parts, again = cut(torch.zeros(4))
    assert set(parts) <= again


def test_an_iteration_that_takes_another_chunk_is_another_body():
    assert iterations(looped(CONDITIONING["chunked in every step"], lambda m, x: x, odd=2)) != [STEPS]
