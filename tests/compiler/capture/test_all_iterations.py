"""Three traced iterations stand for all only where all compute what follows from them; a loop with a declared end
hands on its state alone."""

from __future__ import annotations

import pytest
import torch

import vlacompile as vc
from tests.samples.staged_reference import run_staged
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.recipe import LoopRecipe, Recipe, StagesRecipe
from vlart.errors import CaptureError

MOST = 12
EVERY = Recipe("every-stage", "", StagesRecipe(min_flops=0), loop=LoopRecipe(form="steps"))
GAINS = torch.linspace(0.9, 0.5, MOST)
LIST = [0.9, 0.9, 0.9, 0.9, *(0.1 * i for i in range(8))]
ROWS = [torch.full((1, 4), v) for v in LIST]
# what begins as the first three iterations do, and goes on otherwise; the example's input ends the loop at once
HIDDEN = {
    "a branch": lambda k, x: torch.tanh(x) if k < 11 else torch.sin(x),
    "a branch on a number": lambda k, x: x * 0.9 + (0.1 if k < 3 else 1.0),
    "every fourth": lambda k, x: x * 0.5 if k % 4 == 3 else torch.tanh(x),
    "a list": lambda k, x: x * LIST[k],
    "a list of tensors": lambda k, x: x * ROWS[k],
    "a power": lambda k, x: x * 0.5 ** max(0, k - 2),
    "a row that stays": lambda k, x: x * GAINS[min(k, 5)],
    "a tensor of a number": lambda k, x: x + torch.tensor(0.1 if k < 3 else 1.0),
}
ALIKE = {
    "nothing of the index": lambda k, x: torch.tanh(x) * 0.9,
    "a row of the index": lambda k, x: torch.tanh(x) * GAINS[k],
    "a slice": lambda k, x: torch.tanh(x) * GAINS[k: k + 1],
}


def once(body, declared: bool = True) -> vc.Policy:
    """A loop whose later iterations no example shows: it ends before them, or their values are not chosen."""
    def observe(state):
        if declared:
            x = vc.iterate(body, state * 1, MOST, until=lambda x: x.sum() > 3.0)
        else:
            x = state * 1
            for k in vc.iterations(MOST):
                x = torch.where(state.sum() < 3.0, body(k, x), torch.tanh(x))
        return {"action": x[None]}

    return vc.Policy("once", observe, {"state": vc.Source("observation")}, {"state": torch.full((1, 4), 3.0)})


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "counted"])
@pytest.mark.parametrize("what", HIDDEN)
def test_what_only_later_iterations_do_is_traced(what, declared):
    policy = once(HIDDEN[what], declared)
    program = capture(policy)
    assert not program.iterations and any("test_all_iterations.py" in n for n in program.notes), program.notes
    for value in (-0.5, -0.1, 0.3, 2.0):
        state = {"state": torch.full((1, 4), value)}
        assert torch.allclose(execute(program, state)[0]["action"], policy.infer(**state)["action"], atol=1e-6)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "counted"])
@pytest.mark.parametrize("what", ALIKE)
def test_iterations_that_are_alike_stay_three(what, declared):
    policy = once(ALIKE[what], declared)
    program = capture(policy)
    assert program.iterations == {0: MOST}
    if not declared:  # without weights it is traced whole, as it is no loop that is looked for
        return
    staging = stage(program, load_target("host"), EVERY)
    for value in (-0.5, 0.3, 2.0):
        state = {"state": torch.full((1, 4), value)}
        assert torch.allclose(run_staged(staging.staged, dict(state))["action"], policy.infer(**state)["action"],
                              atol=1e-6)


def test_a_loop_that_python_leaves_early_is_traced_as_it_runs():
    def observe(state):
        x = state * 1
        for k in vc.iterations(MOST):
            if k == 5:
                break
            x = torch.where(state.sum() < 3.0, torch.tanh(x) + 0.1, x)
        return {"action": x[None]}

    policy = vc.Policy("left", observe, {"state": vc.Source("observation")}, {"state": torch.full((1, 4), 3.0)})
    program, state = capture(policy), {"state": torch.full((1, 4), 0.2)}
    assert not program.iterations
    assert torch.allclose(execute(program, state)[0]["action"], policy.infer(**state)["action"], atol=1e-6)


class Leaking(torch.nn.Module):
    """how: by which way a value of an iteration gets out of the loop."""

    def __init__(self, how: str, most: int):
        super().__init__()
        self.how, self.most, self.last = how, most, None

    def forward(self, state):
        seen, room, last = [], torch.zeros(1, 4, self.most), None

        def step(k, x):
            nonlocal last
            x = torch.sin(x) * 0.5 + state
            if self.how == "list":
                seen.append(x)
            elif self.how == "attribute":
                self.last = x
            elif self.how == "room":
                room[..., k] = x
            else:
                last = x
            return x

        x = vc.iterate(step, state * 1, self.most, until=lambda x: x.sum() > 3.0)
        out = {"list": lambda: sum(seen), "attribute": lambda: self.last * 2, "room": lambda: room.sum(-1),
               "nonlocal": lambda: last, "state": lambda: x + state}[self.how]()
        self.last = None
        return {"action": out[None]}


def leaking(how: str, most: int, example: float) -> vc.Policy:
    return vc.Policy("leaking", Leaking(how, most).eval(), {"state": vc.Source("observation")},
                     {"state": torch.full((1, 4), example)})


@pytest.mark.parametrize("most", [3, MOST])
@pytest.mark.parametrize("example", [-1.0, 2.0], ids=["never", "at once"])
@pytest.mark.parametrize("how", ["list", "attribute", "room", "nonlocal"])
def test_what_leaves_a_loop_beside_its_state_is_refused(how, example, most):
    with pytest.raises(CaptureError, match="inside a loop is read after its end") as caught:
        capture(leaking(how, most, example))
    assert "test_all_iterations.py" in caught.value.where
    assert capture(leaking("state", most, example)).outputs == ("action",), "the control"
