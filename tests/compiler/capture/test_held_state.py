"""What one call of a policy leaves for the next is refused with its line; what it writes and reads within a call is a
value."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples.live import worst
from vlacompile.compiler.capture.export import capture
from vlacompile.errors import CaptureError, SourceError
from vlacompile.policy.policy import Policy, Source


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


def _from_a_generator(state):
    draw = torch.Generator().manual_seed(0)
    return {"action": state[:, None] + torch.randn(1, 1, 8, generator=draw)}  # drawn


def _seeded(state):
    torch.manual_seed(0)
    return {"action": state[:, None] * torch.rand(1, 1, 8)}  # drawn


@pytest.mark.parametrize("function", [_drawn, _from_a_generator, _seeded], ids=lambda f: f.__name__)
def test_random_numbers_are_refused_with_their_line(tmp_path, function):
    policy = Policy("p", function, {"state": Source("observation")}, {"state": torch.ones(1, 8)})
    with pytest.raises(CaptureError, match="random numbers") as raised:
        vc.build(policy, out=tmp_path / "p.vlab")
    assert "# drawn" in raised.value.where


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
