"""What a policy's function is called with and returns: a slip is named in its own words, with the function's line."""

from __future__ import annotations

import functools
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlart.errors import CaptureError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(8, 12)

    def forward(self, state):
        return self.inner(state).reshape(1, 2, 6)


NET = Net().eval()
STATE = {"state": torch.randn(1, 8)}


def policy(observe, inputs=None, **more) -> vc.Policy:
    inputs = STATE if inputs is None else inputs
    return vc.Policy("p", observe, dict.fromkeys(inputs, vc.Source("observation")), inputs, **more)


def returns(make):
    return lambda state: make(NET(state))


ANSWERS = {
    "a tensor": (lambda x: x, "returns a tensor [1, 2, 6], not a dict", 'return {"action": the tensor}'),
    "a tuple": (lambda x: (x, None), "returns a tuple of 2, not a dict", "its first tensor"),
    "an unnamed field": (lambda x: Pair(None, x), 'output "action" is nothing', "leave it out"),
    "a dataclass itself": (lambda x: Answer, "not a dict", 'return {"action": ...}'),
    "nothing": (lambda x: None, "returns nothing, not a dict", 'return {"action": ...}'),
    "an empty dict": (lambda x: {}, "returns no action", 'return {"action": ...}'),
    "another name": (lambda x: {"actions": x}, "returns no action", 'outputs=("actions",)'),
    "a nested dict": (lambda x: {"out": {"action": x}}, "returns no action", 'content of "out"'),
    "a dict of dicts": (lambda x: {"action": {"arm": x}}, 'output "action" is a dict of arm', "names of their own"),
    "a number": (lambda x: {"action": 1.0}, 'output "action" is a float', "torch.tensor"),
    "none": (lambda x: {"action": None}, 'output "action" is nothing', "leave it out"),
    "an empty list": (lambda x: {"action": []}, 'output "action" is a list of 0', "return a tensor"),
    "a list of shapes": (lambda x: {"action": [x, x[:, :1]]}, "a list of 2 tensors that cannot be stacked",
                         "a name of its own"),
    "a list of types": (lambda x: {"action": [x, x.int()]}, "a list of 2 tensors that cannot be stacked",
                        "a name of its own"),
    "a list of batches": (lambda x: {"action": list(x[0])}, "a list of 2 tensors that cannot be stacked",
                          "a name of its own"),
    "a mixed list": (lambda x: {"action": [x, None]}, 'output "action" is a list of 2', "return a tensor"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_no_answer_is_refused(answer):
    make, what, fix = ANSWERS[answer]
    with pytest.raises(CaptureError) as error:
        capture(policy(returns(make)))
    assert what in error.value.what and fix in error.value.fix and error.value.why
    assert "test_function_call.py" in error.value.where


class Pair(NamedTuple):
    action: torch.Tensor
    value: torch.Tensor | None = None


@dataclass
class Answer:
    action: torch.Tensor
    value: torch.Tensor | None = None
    unset: torch.Tensor = field(init=False)


@pytest.mark.parametrize("make", [
    Pair, Answer, lambda x: Answer([x[:, 0], x[:, 1]], x),
    lambda x: {"action": x}, lambda x: OrderedDict(action=x),
    lambda x: {"action": x, "info": "x", "loss": None, "n": 3},
    lambda x: {"action": [x[:, 0], x[:, 1]]}, lambda x: {"action": (x[:, 0], x[:, 1])}])
def test_what_is_an_answer_builds(make, tmp_path):
    """A list of one action per step is the chunk."""
    it = policy(returns(make))
    with torch.no_grad():
        assert torch.equal(it.infer(**STATE)["action"], NET(STATE["state"]))
    bundle = vc.build(it, out=tmp_path / "p.vlab")
    with vc.Session(bundle.path) as session:
        session.write("state", STATE["state"])
        session.step()
        np.testing.assert_allclose(session.read("action"), NET(STATE["state"]).detach().numpy(), atol=1e-5)


def two(state, image):
    return {"action": NET(state) + image.sum()}


@torch.no_grad()
def decorated(state, image):
    return two(state, image)


def by_position(state, /):
    return {"action": NET(state)}


IMAGE = {"image": torch.rand(1, 4)}
CALLS = {
    "missing": (two, STATE, 'takes "image", which no source provides', 'declare "image" as a source'),
    "missing under a decorator": (decorated, STATE, 'takes "image", which no source provides', 'declare "image"'),
    "missing of a module": (Net(), IMAGE, 'does not take "image"', 'use one name for both, "state" or "image"'),
    "missing of a partial": (functools.partial(two), STATE, 'takes "image", which', 'declare "image"'),
    "unknown": (lambda state: {"action": NET(state)}, STATE | IMAGE, 'does not take "image"', "remove that source"),
    "renamed": (lambda state: {"action": NET(state)}, {"observation": STATE["state"]}, 'does not take "observation"',
                'use one name for both, "state" or "observation"'),
    "by position": (by_position, STATE, 'does not take "state" by name', "remove the /"),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_called_with_other_names_is_refused(call):
    function, inputs, what, fix = CALLS[call]
    if isinstance(function, nn.Module):
        function.eval()
    with pytest.raises(CaptureError) as error:
        capture(policy(function, inputs))
    assert what in error.value.what and fix in error.value.fix and "test_function_call.py" in error.value.where


def supplied(function):
    """A decorator that gives an argument itself, and so lies about the signature."""
    @functools.wraps(function)
    def inner(state):
        return function(state, torch.ones(1, 4))
    return inner


@pytest.mark.parametrize("function", [
    supplied(two), functools.partial(two, image=torch.ones(1, 4)),
    lambda state, scale=1.0: {"action": NET(state) / scale},
    lambda **given: {"action": NET(given["state"])}])
def test_what_takes_the_inputs_is_traced(function):
    assert capture(policy(function)).outputs == ("action",)


def test_a_type_error_inside_the_function_is_its_own():
    def observe(state):
        return {"action": two(state)}

    with pytest.raises(CaptureError) as error:
        capture(policy(observe))
    assert "missing 1 required positional argument" in error.value.why and "two(state)" in error.value.where


ARRAY = np.array  # under a name of its own, as `from numpy import array` gives it: tracing does not see its calls


def test_what_numpy_copies_unseen_is_refused():
    with pytest.raises(CaptureError) as error:
        capture(policy(lambda state: {"action": ARRAY(NET(state)) * 2}))
    assert "NumPy copies" in error.value.why and "ARRAY" in error.value.where and ".numpy()" in error.value.fix


def test_what_numpy_copies_is_traced():
    program = capture(policy(lambda state: {"action": np.array(NET(state)) * 2}))
    with torch.no_grad():
        want = NET(STATE["state"]) * 2
    torch.testing.assert_close(execute(program, STATE)[0]["action"], want)


def test_an_array_is_returned_as_a_tensor():
    program = capture(policy(lambda state: {"action": NET(state).numpy()}))
    assert program.output_nodes()[0].meta["val"].dtype == torch.float32


def loop(step, carry=None, observe=lambda state: {"seen": NET(state)}, **more):
    inputs = STATE | {"noise": torch.randn(1, 2, 6)}
    take = lambda state, noise: observe(state)
    return policy(take, inputs, step=step, loop=vc.Loop(3, carry or {"action": "noise"}, **more))


LOOPS = {
    "carry from nowhere": (loop(lambda seen, action: {"action": action}, {"action": "noize"}),
                           'starts "action" from "noize"', 'did you mean "noise"'),
    "index not taken": (loop(lambda seen, action: {"action": action}, index="k"), 'step does not take "k"', "k"),
    "argument of nobody": (loop(lambda seen, action, mask: {"action": action}), 'step takes "mask"', "seen, action"),
    "no dict": (loop(lambda seen, action: action + seen), "returns a tensor [1, 2, 6], not a dict", "by name"),
}


@pytest.mark.parametrize("case", LOOPS)
def test_declared_loops(case):
    it, what, why = LOOPS[case]
    with pytest.raises(CaptureError) as error:
        capture(it)
    assert what in error.value.what and why in error.value.why


def test_examples_that_ask_for_a_gradient_build(tmp_path):
    asking = {"state": STATE["state"].clone().requires_grad_()}
    it = policy(returns(lambda x: {"action": x}), asking, calibration=(asking, asking))
    assert not it.example_inputs["state"].requires_grad and not it.calibration[0]["state"].requires_grad
    assert asking["state"].requires_grad
    assert vc.verify(vc.build(it, out=tmp_path / "p.vlab").path).passed
