"""Random numbers as inputs: what is drawn from them has the distribution of what they replace."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Normal

import vlacompile as vc
from vlacompile.policy.drawn_from import recorded_draws
from vlart.errors import CaptureError, SourceError

MANY = 20000


def _numbers(kind: str, count: int = MANY) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(1, count, generator=draw) if kind == "normal" else torch.rand(1, count, generator=draw)


NORMAL = {
    "randn": lambda: 3 + 2 * torch.randn(MANY),
    "randn of a shape": lambda: 3 + 2 * torch.randn((MANY // 4, 4), generator=torch.Generator()),
    "randn_like": lambda: 3 + 2 * torch.randn_like(torch.empty(MANY)),
    "normal_": lambda: torch.empty(MANY).normal_(3, 2),
    "normal of numbers": lambda: torch.normal(3.0, 2.0, (MANY,)),
    "normal of tensors": lambda: torch.normal(torch.full((MANY,), 3.0), torch.tensor(2.0)),
    "a distribution": lambda: Normal(torch.full((MANY,), 3.0), 2.0).sample(),
    "a reparametrised distribution": lambda: Normal(torch.full((MANY,), 3.0), 2.0).rsample()}
UNIFORM = {
    "rand": lambda: 1 + 2 * torch.rand(MANY),
    "rand_like": lambda: 1 + 2 * torch.rand_like(torch.empty(MANY)),
    "uniform_": lambda: torch.empty(MANY).uniform_(1, 3)}
CHOICES = {
    "multinomial": lambda p: torch.multinomial(p, 1)[:, 0],
    "multinomial of weights": lambda p: (5 * p).multinomial(1)[:, 0],
    "a distribution": lambda p: Categorical(probs=p).sample()}


@pytest.mark.parametrize("name", NORMAL)
def test_normal_numbers_keep_mean_and_spread(name):
    with vc.drawn_from(normal=_numbers("normal")):
        drawn = NORMAL[name]()
    assert abs(drawn.mean() - 3) < 0.05 and abs(drawn.std() - 2) < 0.05
    with vc.drawn_from(normal=-_numbers("normal")):
        assert torch.allclose(NORMAL[name]() - 3, 3 - drawn, atol=1e-5), "the numbers decide"


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_numbers_fill_their_interval(name):
    with vc.drawn_from(uniform=_numbers("uniform")):
        drawn = UNIFORM[name]()
    assert 1 <= drawn.min() < 1.01 and 2.99 < drawn.max() < 3 and abs(drawn.mean() - 2) < 0.02


WHOLE = {
    "a bound": lambda: torch.randint(5, (MANY,)) + 2, "two bounds": lambda: torch.randint(2, 7, (MANY,)),
    "named": lambda: torch.randint(low=2, high=7, size=(MANY,)),
    "a named bound": lambda: torch.randint(2, high=7, size=[MANY]),
    "a named size": lambda: torch.randint(2, 7, size=(MANY // 2, 2))}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_equally_frequent(name):
    with vc.drawn_from(uniform=_numbers("uniform")):
        drawn = WHOLE[name]()
    assert drawn.dtype == torch.int64 and drawn.min() == 2 and drawn.max() == 6
    assert all(abs((drawn == i).float().mean() - 0.2) < 0.02 for i in range(2, 7))
    with vc.drawn_from(uniform=torch.full((MANY,), 1 - 2**-24)):
        assert WHOLE[name]().max() == 6, "below the bound, whatever rounds"


EXPONENTIAL = {
    "exponential_": lambda: torch.empty(MANY).exponential_(0.5),
    "a distribution": lambda: torch.distributions.Exponential(torch.full((MANY,), 0.5)).sample()}


@pytest.mark.parametrize("name", EXPONENTIAL)
def test_waiting_times_have_their_rate(name):
    with vc.drawn_from(uniform=_numbers("uniform")):
        drawn = EXPONENTIAL[name]()
    assert drawn.min() > 0 and abs(drawn.mean() - 2) < 0.05 and abs(drawn.median() - 2 * math.log(2)) < 0.05
    with vc.drawn_from(uniform=torch.zeros(MANY)):
        assert bool((EXPONENTIAL[name]() > 0).all()), "as PyTorch, which draws no zero"


def test_marks_are_drawn_in_place():
    with vc.drawn_from(uniform=_numbers("uniform")):
        assert abs(torch.empty(MANY).bernoulli_(0.3).mean() - 0.3) < 0.02


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax_chooses_by_its_logits(hard):
    probabilities = torch.tensor([0.1, 0.2, 0.6, 0.1])
    with vc.drawn_from(uniform=_numbers("uniform", 4 * MANY)):
        drawn = torch.nn.functional.gumbel_softmax(probabilities.log().expand(MANY, 4), tau=0.5, hard=hard)
    assert torch.allclose(drawn.sum(-1), torch.ones(MANY), atol=1e-5)
    assert torch.allclose(torch.bincount(drawn.argmax(-1)) / MANY, probabilities, atol=0.02)
    assert bool(((drawn > 0) & (drawn < 1)).any()) is not hard


@pytest.mark.parametrize("name", CHOICES)
def test_choices_have_their_probabilities(name):
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).expand(MANY, 4)
    with vc.drawn_from(uniform=_numbers("uniform")):
        drawn = CHOICES[name](probabilities)
    frequencies = torch.bincount(drawn, minlength=4) / MANY
    assert torch.allclose(frequencies, probabilities[0], atol=0.015) and frequencies[1] == 0


@pytest.mark.parametrize("draw", [lambda: torch.randn(1, 4), lambda: torch.randn_like(torch.empty(1, 4))])
def test_what_is_drawn_is_memory_of_its_own(draw):
    """A sampler writes known dimensions into its noise; that of the caller stays."""
    noise = _numbers("normal", 4)
    with vc.drawn_from(normal=noise):
        drawn = draw()
    drawn[:] = 5
    assert torch.equal(noise, _numbers("normal", 4))


def test_bernoulli_has_its_probability():
    with vc.drawn_from(uniform=_numbers("uniform")):
        assert abs(torch.bernoulli(torch.full((MANY,), 0.3)).mean() - 0.3) < 0.015


@pytest.mark.parametrize(("given", "draws"), [(3, 0), (3, 2), (3, 4)])
def test_all_numbers_must_be_used_and_no_more(given, draws):
    message = f"3 normal random numbers are given, and the function draws {draws}"
    with pytest.raises(SourceError, match=message), vc.drawn_from(normal=_numbers("normal", given)):
        for _ in range(draws):
            torch.randn(1)


def test_an_error_inside_is_not_hidden_and_draws_are_draws_again():
    with pytest.raises(ValueError, match="inside"), vc.drawn_from(normal=torch.zeros(1, 3)):
        raise ValueError("inside")
    assert torch.randn(3).any()


def test_kinds_for_which_nothing_is_given_stay_draws():
    with vc.drawn_from(normal=torch.zeros(2)):
        assert not torch.randn(2).any() and torch.rand(8).any()


def test_what_is_refused_inside_names_the_policys_line(tmp_path):
    def infer(x, noise):
        with vc.drawn_from(normal=noise):
            return {"action": (torch.randn(1, 1, 4) + x[x > 0].cumsum(0).sum())}

    policy = vc.Policy("lines", infer, {"x": vc.Source("observation"), "noise": vc.Source("step")},
                       {"x": torch.randn(1, 4), "noise": torch.randn(1, 1, 4)})
    with pytest.raises(CaptureError) as raised:
        vc.build(policy, out=tmp_path / "lines.vlab")
    assert "test_drawn_from.py" in raised.value.where and "x[x > 0]" in raised.value.where


def _chunk() -> torch.Tensor:
    steps = [torch.randn(1, 4), torch.empty(2, 2).normal_().reshape(1, 4)]
    return torch.cat([*steps, torch.rand(1, 4), torch.bernoulli(torch.full((1, 4), 0.5))])


def test_recorded_draws_are_what_a_policy_needs_as_inputs():
    torch.manual_seed(3)
    with recorded_draws(seed=1) as drawn:
        one = _chunk()
    assert drawn.normal == [(1, 4), (2, 2)] and drawn.uniform == [(1, 4), (1, 4)]
    torch.manual_seed(4)
    torch.randn(100)  # whatever was drawn before
    with recorded_draws(seed=1):
        assert torch.equal(_chunk(), one)
    with recorded_draws(seed=2):
        assert not torch.equal(_chunk(), one)
    count = {kind: sum(map(math.prod, getattr(drawn, kind))) for kind in ("normal", "uniform")}
    with vc.drawn_from(normal=torch.zeros(count["normal"]), uniform=torch.zeros(count["uniform"])):
        assert not bool(_chunk()[:2].any())
