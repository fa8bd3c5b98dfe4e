"""What a generator draws that every call makes and seeds is a constant; other draws are refused with what helps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vlacompile as vc
from vlacompile import Policy, Source
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlart.errors import CaptureError

OUTSIDE = torch.Generator().manual_seed(0)


def _policy(function) -> Policy:
    return Policy("draws", lambda x: {"action": function(x)}, {"x": Source("observation")}, {"x": torch.rand(1, 8)})


def of_a_generator(x):
    return x + torch.randn(1, 8, generator=torch.Generator().manual_seed(0))


def one_after_another(x):
    draw = torch.Generator(device="cpu")
    draw.manual_seed(3)
    for _ in range(3):
        x = x * torch.rand(x.shape, generator=draw) + torch.normal(0.0, 1.0, (8,), generator=draw)
    return x


def after_the_seed(x):
    torch.manual_seed(5)
    return x * torch.rand(8) + torch.randn_like(x) + torch.empty(8).uniform_() + torch.randperm(8)


def orders(x):
    draw = torch.Generator().manual_seed(1)
    return x[:, torch.randperm(8, generator=draw)] * torch.randint(1, 5, (8,), generator=draw)


def decided(x):
    draw = torch.Generator().manual_seed(1)
    return x * 2 if float(torch.rand((), generator=draw)) > 0.5 else x * 3


@pytest.mark.parametrize("function", [of_a_generator, one_after_another, after_the_seed, orders, decided],
                         ids=lambda f: f.__name__)
def test_seeded_draws_are_constants(function):
    policy = _policy(function)
    program = capture(policy)
    for seed in range(2):
        x = torch.rand(1, 8, generator=torch.Generator().manual_seed(seed))
        want = policy.infer(x=x.clone())["action"]
        torch.manual_seed(seed)
        assert torch.allclose(execute(program, {"x": x})[0]["action"], want, atol=1e-6)


def unseeded(x):
    return x + torch.randn(1, 8, generator=torch.Generator())


def reseeded_by_chance(x):
    draw = torch.Generator().manual_seed(0)
    draw.seed()
    return x + torch.randn(1, 8, generator=draw)


def of_one_outside(x):
    return x + torch.randn(1, 8, generator=OUTSIDE)


def before_the_seed(x):
    y = torch.randn(1, 8)
    torch.manual_seed(0)
    return x + y


def after_the_fork(x):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = torch.randn(1, 8)
    return x + y + torch.randn(1, 8)


def of_an_input(x):
    return x + torch.bernoulli(x, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("function", [unseeded, reseeded_by_chance, of_one_outside, before_the_seed, after_the_fork,
                                      of_an_input], ids=lambda f: f.__name__)
def test_draws_that_are_not_known_are_refused_with_their_line(function):
    with pytest.raises(CaptureError, match="random numbers are drawn inside") as error:
        capture(_policy(function))
    assert "test_random_draws.py" in error.value.where


def test_a_seed_of_an_earlier_trace_counts_for_no_other():
    capture(_policy(after_the_seed))
    with pytest.raises(CaptureError, match="drawn inside"):
        capture(_policy(lambda x: x + torch.randn(8)))
    assert torch.Generator is torch._C.Generator


FIXES = {
    "normal": (lambda x: x + torch.randn(1, 8), "drawn_from(normal=noise)"),
    "exponential": (F.gumbel_softmax, "drawn_from(uniform=noise)"),
    "choices": (lambda x: torch.multinomial(x, 1) * x, "drawn_from(uniform=noise)"),
    "marks": (lambda x: x * torch.empty(8).bernoulli_(0.5), "drawn_from(uniform=noise)"),
    "several choices": (lambda x: torch.multinomial(x, 3).sum() * x, "draw them outside"),
    "integers": (lambda x: x + torch.randint(0, 5, (8,)), "draw them outside"),
    "dropout": (lambda x: F.dropout(x, 0.5), "training=False"),
    "attention": (lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.5)[0],
                  "dropout_p=0.0"),
}


@pytest.mark.parametrize("kind", FIXES)
def test_the_fix_is_one_that_works(kind):
    function, fix = FIXES[kind]
    with pytest.raises(CaptureError, match="drawn inside") as error:
        capture(_policy(function))
    assert fix in error.value.fix
    if "drawn_from(" not in fix:
        return
    given = fix.removeprefix("drawn_from(").split("=")[0]
    count = 1 if kind == "choices" else 8

    def within(x, noise):
        with vc.drawn_from(**{given: noise}):
            return {"action": function(x) * 1.0}

    capture(Policy("drawn", within, {"x": Source("observation"), "noise": Source("step")},
                   {"x": torch.rand(1, 8), "noise": torch.rand(1, count)}))
