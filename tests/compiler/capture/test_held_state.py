"""What one call of a policy leaves for the next is refused with its line; what it writes and reads within a call is a
value."""

from __future__ import annotations

import datetime as dt
import random
import time
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples.live import worst
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.first_calls import check_calls
from vlacompile.compiler.graph.program import execute
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError, SourceError


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lin, self.queue, self.count, self.cached = nn.Linear(8, 12), deque(), 0, None
        self.register_buffer("last", torch.zeros(1, 8))
        self.register_buffer("cache", torch.zeros(1, 3, 8))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.history = torch.zeros(1, 8)

    def action(self, x):
        return {"action": self.lin(x).reshape(1, 2, 6)}


class Average(Base):
    def forward(self, state):
        self.last.mul_(0.5).add_(0.5 * state)  # kept
        return self.action(self.last)


class Assigned(Base):
    def forward(self, state):
        y = state + self.last
        self.last = state * 1.0  # kept
        return self.action(y)


class Attribute(Base):
    """A tensor that is no buffer."""

    def forward(self, state):
        y = state + self.history
        self.history = state * 2.0  # kept
        return self.action(y)


class PartOfABuffer(Base):
    """One row is not written before all are read."""

    def forward(self, state):
        self.cache[:, :2] = state[:, None]  # kept
        self.cache[:, 2] += self.cache[:, 0]
        return self.action(self.cache.sum(1))


class Queue(Base):
    def forward(self, state):
        if not self.queue:
            self.queue.extend(self.lin(state).reshape(2, 6))  # kept
        return {"action": self.queue.popleft().reshape(1, 1, 6)}  # kept


class Counting(Base):
    """A Python number that the result depends on."""

    def forward(self, state):
        self.count += 1  # kept
        return self.action(state * self.count)


class InstructionOnce(Base):
    """The first instruction is encoded, and all later ones are taken for it."""

    def forward(self, state):
        if self.cached is None:
            self.cached = state.tanh()  # kept
        return self.action(state + self.cached)


class ScaleOnce(Base):
    def forward(self, state):
        if self.cached is None:
            self.cached = float(state.abs().max())  # kept
        return self.action(state / self.cached)


@pytest.mark.parametrize("kind", [Average, Assigned, Attribute, PartOfABuffer, Queue, Counting, InstructionOnce,
                                  ScaleOnce], ids=lambda k: k.__name__)
def test_state_is_refused_with_its_line(tmp_path, kind):
    policy = Policy("p", kind().eval(), {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(CaptureError) as raised:
        vc.build(policy, out=tmp_path / "p.vlab")
    assert "# kept" in raised.value.where and "test_held_state.py" in raised.value.where
    assert "Source" in raised.value.fix
    assert len(str(raised.value).splitlines()) == 4


def test_a_buffer_that_is_read_first_is_refused_by_the_graph_alone():
    """As for a plan without weights, for which nothing is called."""
    policy = Policy("p", Average().eval(), {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(CaptureError, match="keeps state") as raised:
        capture(policy)
    assert "mul_(0.5)" in raised.value.where


class Written(Base):
    """A cache that every call fills anew, a number of calls that nobody reads, an input that is written into."""

    def forward(self, state):
        self.calls += 1
        state /= 2
        for i in range(3):
            self.cache[:, i] = state * (i + 1)
        state[:, 0] = 0.0
        return self.action(self.cache.mean(1) + state)


def zeroed(self, x):
    self.last.zero_()
    self.last += x
    return self.last


def zeroed_in_parts(self, x):
    self.last[:, :4].zero_()
    self.last[:, 4:].zero_().sub_(x[:, 4:])
    self.last[:, :4] += x[:, 4:]
    return self.last


def counted(self, x):
    self.calls.zero_()
    while int(self.calls) < 3:
        x = x * 2
        self.calls += 1
    return x + self.calls


def counted_in_tensors(self, x):
    self.calls.zero_()
    for _ in range(3):
        x = x * self.calls + 1
        self.calls += 1
    return x


def zeroed_at_known_places(self, x):
    self.last.masked_fill_(torch.ones(1, 8, dtype=torch.bool), 2)
    self.last *= x
    self.cache.index_fill_(1, torch.arange(3), 0)
    self.cache += x
    return self.last + self.cache.sum(1)


def filled_with_what_is_new(self, x):
    self.last.fill_(3.0).mul_(x).clamp_(0, 1)
    self.cache[...] = 0
    self.cache[:, 1] += self.last
    return self.cache.sum(1)


FILLED_FIRST = [zeroed, zeroed_in_parts, counted, counted_in_tensors, zeroed_at_known_places, filled_with_what_is_new]


@pytest.mark.parametrize("function", FILLED_FIRST, ids=lambda f: f.__name__)
def test_a_buffer_that_every_call_fills_first_is_a_value(function):
    class Filled(Base):
        def forward(self, state):
            return self.action(function(self, state) * 1.0)

    module = Filled().eval()
    program = capture(Policy("p", module, {"state": Source("observation")}, {"state": torch.ones(1, 8)}))
    for seed in range(3):
        x = torch.randn(1, 8, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            want = module(state=x.clone())["action"]
        assert torch.allclose(execute(program, {"state": x})[0]["action"], want, atol=1e-6)


def scaled_to_zero(self, x):
    """NaN stays."""
    self.last *= 0
    self.last += x
    return self.last


def zeroed_afterwards(self, x):
    y = self.last + x
    self.last.zero_()
    self.last += x
    return y


def zeroed_in_one_part(self, x):
    self.last[:, :4].zero_()
    self.last += x
    return self.last


def filled_at_other_places(self, x):
    self.last.index_fill_(1, torch.arange(7), 1)
    self.last += x
    return self.last


def filled_with_what_was_there(self, x):
    self.last.masked_fill_(torch.ones(1, 8, dtype=torch.bool), self.last[0, 0])
    return self.last + x


@pytest.mark.parametrize("function", [scaled_to_zero, zeroed_afterwards, zeroed_in_one_part, filled_at_other_places,
                                      filled_with_what_was_there], ids=lambda f: f.__name__)
def test_a_buffer_of_which_something_is_left_is_state(function):
    class Left(Base):
        def forward(self, state):
            return self.action(function(self, state) * 1.0)

    with pytest.raises(CaptureError, match="keeps state"):
        capture(Policy("p", Left().eval(), {"state": Source("observation")}, {"state": torch.ones(1, 8)}))


class Lazy(Base):
    """A table that the first call makes and all read."""

    def forward(self, state):
        if self.cached is None:
            self.cached = torch.arange(8.0).cos()
        return self.action(state * self.cached)


@pytest.mark.parametrize("kind", [Written, Lazy], ids=lambda k: k.__name__)
def test_what_does_not_outlast_a_call_is_a_value(tmp_path, kind):
    make = lambda: Policy("p", kind().eval(), {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    assert worst(make, tmp_path / "p.vlab") < 1e-6


def _in_a_closure():
    seen, lin = [], nn.Linear(8, 12).eval()

    def observe(state):
        seen.append(state)  # kept
        return {"action": lin(torch.stack(seen).mean(0)).reshape(1, 2, 6)}
    return observe


def _in_a_variable():
    last, lin = torch.zeros(1, 8), nn.Linear(8, 12).eval()

    def observe(state):
        nonlocal last
        last = 0.5 * last + state  # kept
        return {"action": lin(last).reshape(1, 2, 6)}
    return observe


_SEEN = {}


def _in_a_global():
    def observe(state):
        _SEEN.setdefault("first", state * 1.0)  # kept
        return {"action": (state - _SEEN["first"])[:, None]}
    return observe


@pytest.mark.parametrize("make", [_in_a_closure, _in_a_variable, _in_a_global], ids=lambda f: f.__name__)
def test_state_beside_modules_is_refused_with_its_line(tmp_path, make):
    policy = Policy("p", make(), {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(CaptureError) as raised:
        vc.build(policy, out=tmp_path / "p.vlab")
    assert "# kept" in raised.value.where, str(raised.value)


def _drawn(state):
    return {"action": state[:, None] + torch.randn(1, 1, 8)}  # drawn


def _dropped(state):
    return {"action": torch.nn.functional.dropout(state, 0.1)[:, None]}  # drawn


def _sampled(state):
    return {"action": torch.distributions.Normal(state, 0.1).rsample()[:, None]}  # drawn


@pytest.mark.parametrize("function", [_drawn, _dropped, _sampled], ids=lambda f: f.__name__)
def test_random_numbers_are_refused_with_their_line(tmp_path, function):
    policy = Policy("p", function, {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(CaptureError, match="random numbers") as raised:
        vc.build(policy, out=tmp_path / "p.vlab")
    assert "# drawn" in raised.value.where


OUTSIDE = {
    "numpy": (lambda: np.random.rand(8), "draws random numbers"),  # noqa: NPY002  # asked
    "python": (lambda: random.uniform(0.0, 1.0), "draws random numbers"),  # asked
    "clock": (lambda: time.perf_counter() % 1, "a clock is asked"),  # asked
    "date": (lambda: dt.datetime.now(dt.UTC).microsecond, "a clock is asked"),  # asked
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_a_line_takes_from_outside_is_refused_with_it(kind):
    draw, why = OUTSIDE[kind]

    def observe(state):
        begin = time.time()
        action = state[:, None] * torch.as_tensor(draw())
        assert time.time() >= begin
        return {"action": action}

    policy = Policy("p", observe, {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(CaptureError, match="two calls with the same inputs") as raised:
        check_calls(policy)
    assert why in raised.value.why and "test_held_state.py:" in raised.value.where
    assert "draw())" in raised.value.where or "# asked" in raised.value.where


def test_a_clock_that_only_measures_is_no_reason():
    def observe(state):
        begin = time.perf_counter()
        action = state * 2
        assert time.perf_counter() >= begin
        return {"action": action}

    check_calls(Policy("p", observe, {"state": Source("observation")}, {"state": torch.ones(1, 8)}))


@pytest.mark.parametrize("draw", [lambda: np.random.rand(8), random.random], ids=["numpy", "python"])  # noqa: NPY002
def test_random_numbers_that_no_trace_shows_are_refused(tmp_path, draw):
    """They would be constants of the trace; the function itself gives others with every call."""
    policy = Policy("p", lambda state: {"action": state[:, None] * torch.as_tensor(draw())},
                    {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(CaptureError, match="two calls with the same inputs"):
        vc.build(policy, out=tmp_path / "p.vlab")


def test_numbers_of_a_generator_with_a_seed_are_a_constant(tmp_path):
    def observe(state):
        noise = np.random.RandomState(3).randn(1, 8).astype(np.float32)
        return {"action": (state + torch.from_numpy(noise))[:, None]}

    make = lambda: Policy("p", observe, {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    assert worst(make, tmp_path / "p.vlab") < 1e-6


def test_a_branch_on_an_input_is_refused_with_its_line(tmp_path):
    def branch(state):
        return {"action": torch.cond(state.sum() > 0, lambda y: y * 2, lambda y: y - 1, (state,))[:, None]}  # chosen

    def python(state):
        return {"action": (state * 2 if state.sum() > 0 else state)[:, None]}  # chosen

    for function in (branch, python):
        policy = Policy("p", function, {"state": Source("observation")}, {"state": torch.ones(1, 8)})
        with pytest.raises(CaptureError) as raised:
            vc.build(policy, out=tmp_path / "p.vlab")
        assert "# chosen" in raised.value.where and "torch.where" in raised.value.fix


def test_a_sparse_buffer_is_refused_by_its_name(tmp_path):
    class Sparse(Base):
        def __init__(self):
            super().__init__()
            self.register_buffer("adjacency", torch.eye(8).to_sparse())

        def forward(self, state):
            return self.action(torch.sparse.mm(self.adjacency, state.T).T)

    policy = Policy("p", Sparse().eval(), {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(CaptureError, match="adjacency"):
        vc.build(policy, out=tmp_path / "p.vlab")


def test_a_function_that_fails_by_itself_is_told_so(tmp_path):
    def broken(state):
        return {"action": state.reshape(3, 3)}  # fails

    policy = Policy("p", broken, {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(SourceError, match="example inputs") as raised:
        vc.build(policy, out=tmp_path / "p.vlab")
    assert "# fails" in raised.value.where and "shape '[3, 3]'" in raised.value.why
