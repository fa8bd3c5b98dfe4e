"""`vc.iterate`: a loop whose end the data decides, in PyTorch and as a trace; what is refused, and where it says so."""

from __future__ import annotations

import pytest
import torch

import vlacompile as vc
from tests.samples.ending import SEEDS, ending
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlart.errors import CaptureError, RuntimeFailure, SourceError, VlaError

MOST = 7


def by_hand(policy: vc.Policy, state: torch.Tensor) -> tuple[torch.Tensor, int]:
    """(the action, iterations) of the same loop written with `break`."""
    x = state.clone()
    for k in range(MOST):
        x = policy.observe.__self__.once(x, state, k)
        if policy.observe.__self__.is_over(x):
            break
    return x[None], k + 1


def test_it_ends_where_a_loop_with_a_break_ends():
    policy, ends = ending(MOST), []
    for seed in range(SEEDS):
        state = torch.randn(1, 4, generator=torch.Generator().manual_seed(seed))
        action, count = by_hand(policy, state)
        got = policy.infer(state=state)
        assert torch.equal(got["action"], action) and int(got["count"]) == count
        ends.append(count)
    assert 1 in ends and MOST in ends and len(set(ends)) > 3, ends


@pytest.mark.parametrize("most", [3, 4, MOST])
def test_a_trace_keeps_what_there_was_at_the_end(most):
    policy = ending(most)
    program = capture(policy, whole=True)
    for seed in range(SEEDS):
        state = {"state": torch.randn(1, 4, generator=torch.Generator().manual_seed(seed))}
        got, want = execute(program, state)[0], policy.infer(**state)
        assert all(torch.equal(got[n], want[n]) for n in policy.outputs)


@pytest.mark.parametrize("nest", [lambda x, n: {"x": x, "n": [n]}, lambda x, n: [(x,), {"n": n}]])
def test_the_state_may_be_nested(nest):
    def parts(state):
        return (state["x"], state["n"][0]) if isinstance(state, dict) else (state[0][0], state[1]["n"])

    def observe(state):
        def step(k, s):
            x, n = parts(s)
            return nest(torch.tanh(x * 1.5), n + 1)

        x, n = parts(vc.iterate(step, nest(state * 1, torch.zeros((), dtype=torch.int64)), MOST,
                                until=lambda s: parts(s)[0].sum() < 0.5))
        return {"action": x[None] + n}

    policy = vc.Policy("nested", observe, {"state": vc.Source("observation")}, {"state": torch.ones(1, 4) / 4})
    program = capture(policy, whole=True)
    for seed in range(4):
        state = {"state": torch.rand(1, 4, generator=torch.Generator().manual_seed(seed))}
        assert torch.equal(execute(program, state)[0]["action"], policy.infer(**state)["action"])


def test_a_loop_that_must_end_and_does_not_is_an_error():
    policy = ending(2, must_end=True)
    late = next(s for s in (torch.randn(1, 4, generator=torch.Generator().manual_seed(i)) for i in range(SEEDS))
                if by_hand(ending(MOST), s)[1] > 2)
    with pytest.raises(RuntimeFailure, match="did not end within 2 iterations") as caught:
        policy.infer(state=late)
    assert caught.value.status == "LOOP_NOT_ENDED"
    assert ending(2).infer(state=late)["count"] == 2


CONDITIONS = {
    "a constant": (lambda s, x: torch.tensor(False), None, "depends on nothing that an input changes"),
    "a count alone": (lambda s, x: s[1] > 3, None, "depends on nothing that an input changes"),
    "an input alone": (lambda s, x: x.sum() > 0, None, "depends on nothing that the loop changes"),
    "a branch of Python": (lambda s, x: bool(s[0].sum() > 0), "the end of a loop is bool", "test_iterate"),
    "a number": (lambda s, x: s[0].sum(), "the end of a loop is float32[]", "float32[]"),
    "one bool per element": (lambda s, x: s[0] > 0, "the end of a loop is bool[1, 4]", "bool[1, 4]"),
    "Python's own bool": (lambda s, x: False, "the end of a loop is bool", "is bool"),
}


def _looped(step=None, until=None, most=6) -> vc.Policy:
    def observe(state):
        start = (state * 1.0, torch.zeros(1, dtype=torch.int64))
        x, _ = vc.iterate(step or (lambda k, s: (torch.tanh(s[0]) + state, s[1] + 1)), start, most,
                          until=(lambda s: until(s, state)) if until else lambda s: s[0].sum() > 3)
        return {"action": x[None]}

    return vc.Policy("looped", observe, {"state": vc.Source("observation")}, {"state": torch.randn(1, 4)})


@pytest.mark.parametrize("what", CONDITIONS)
def test_a_condition_that_is_none_is_refused(what):
    until, eager, traced = CONDITIONS[what]
    policy = _looped(until=until)
    if eager is not None:
        with pytest.raises(CaptureError) as caught:
            policy.infer(**policy.example_inputs)
        assert eager in str(caught.value)
    with pytest.raises(CaptureError) as caught:
        capture(policy)
    assert traced in str(caught.value) and "test_iterate.py" in caught.value.where


STEPS = {
    "a part too few": (lambda k, s: (s[0],), "state[1] nothing, and it was int64[1]"),
    "a part too many": (lambda k, s: (*s, s[0]), "state[2] float32[1, 4], and it was nothing"),
    "a part that grows": (lambda k, s: (torch.cat([s[0], s[0]]), s[1]), "state[0] float32[2, 4]"),
    "another type": (lambda k, s: (s[0], s[1] * 1.5), "state[1] float32[1], and it was int64[1]"),
    "a number": (lambda k, s: (s[0], 3), "state[1] is int"),
}


@pytest.mark.parametrize("what", STEPS)
def test_an_iteration_that_changes_the_kind_of_the_state_is_refused(what):
    step, said = STEPS[what]
    policy = _looped(step)
    for call in (lambda: policy.infer(**policy.example_inputs), lambda: capture(policy)):
        with pytest.raises(CaptureError) as caught:
            call()
        assert said in str(caught.value) and "test_iterate.py" in caught.value.where


@pytest.mark.parametrize("most", [0, -1, True, 2.5])
def test_a_number_of_iterations_that_is_none_is_refused(most):
    policy = _looped(most=most)
    for call in (lambda: policy.infer(**policy.example_inputs), lambda: capture(policy)):
        with pytest.raises(SourceError, match="is not a whole number of 1 or more"):
            call()


def test_more_iterations_than_a_replan_waits_for_are_refused():
    def counted(state):
        for _ in vc.iterations(10**9):
            state = torch.tanh(state)
        return {"action": state[None]}

    other = vc.Policy("counted", counted, {"state": vc.Source("observation")}, {"state": torch.randn(1, 4)})
    for policy in (_looped(most=10**9), other):
        with pytest.raises(CaptureError, match="iterations") as caught:
            capture(policy)
        assert "test_iterate.py" in caught.value.where and "10000" in caught.value.fix


def test_what_must_be_called_is_called():
    with pytest.raises(VlaError, match="not callable"):
        vc.iterate(3, torch.zeros(1), 2, until=lambda s: s > 0)


WRITES = {
    "an element": lambda k, s: (torch.tanh(s[0]), _written(s[1], k, s[0].sum(1))),
    "every part": lambda k, s: (s[0].mul_(0.8), s[1].add_(1)),
    "a view": lambda k, s: (s[0].view(-1).add_(0.1).view(1, 4), s[1]),
    "nothing": lambda k, s: (torch.tanh(s[0]), s[1] + 1),
}


def _written(room, k, value):
    room[:, k] = value
    return room


@pytest.mark.parametrize("what", WRITES)
def test_an_iteration_may_write_into_its_state(what):
    def observe(state):
        x, room = vc.iterate(WRITES[what], (state * 1, torch.zeros(1, MOST)), MOST, until=lambda s: s[0].sum() < 1.0)
        return {"action": x[None], "room": room, "kept": state * 1}

    policy = vc.Policy("writes", observe, {"state": vc.Source("observation")}, {"state": torch.ones(1, 4)},
                       outputs=("action", "room", "kept"))
    program = capture(policy, whole=True)
    for value in (-0.2, 0.24, 0.3, 0.5, 3.0):
        state = {"state": torch.full((1, 4), value)}
        got, want = execute(program, dict(state))[0], policy.infer(state=state["state"].clone())
        assert all(torch.allclose(got[n], want[n]) for n in policy.outputs)
        assert torch.equal(want["kept"], state["state"]), "the input stays as it is"
