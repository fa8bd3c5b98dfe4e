"""Wrong types in what a user declares in Python: four lines at once, not a TypeError, and not letters of a string."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from vlart.errors import SourceError

STATE = {"state": torch.zeros(1, 4)}


def act(state):
    return {"action": state[:, None]}


def policy(**changed) -> vc.Policy:
    return vc.Policy(**{"name": "p", "observe": act, "sources": {"state": vc.Source("observation")},
                        "example_inputs": STATE} | changed)


WRONG = {
    "clock of words": (lambda: vc.Source("observation", clock="base"), '"base" is not a positive number', "Hz"),
    "no clock": (lambda: vc.Source("observation", clock=0), "0 is not a positive number", "Hz"),
    "endless clock": (lambda: vc.Source("observation", clock=float("inf")), "inf is not a positive", "Hz"),
    "clock of NaN": (lambda: vc.Source("observation", clock=float("nan")), "nan is not a positive", "Hz"),
    "clock that is true": (lambda: vc.Source("observation", clock=True), "True is not a positive", "Hz"),
    "history of words": (lambda: vc.Source("observation", history="2"), '"2" is not a whole number', "observations"),
    "history of a half": (lambda: vc.Source("observation", history=1.5), "1.5 is not a whole number", "observations"),
    "no history": (lambda: vc.Source("observation", history=0), "0 is not a whole number of 1 or more", "observations"),
    "no update": (lambda: vc.Source(None), '"None" is not an update class', "how often"),
    "a list of updates": (lambda: vc.Source(["observation"]), "is not an update class", "how often"),
    "iterations of words": (lambda: vc.Loop("4", {"action": "noise"}), '"4" is not a whole number',
                           "number of iterations"),
    "no iterations": (lambda: vc.Loop(0, {"action": "noise"}), "0 is not a whole number", "number of iterations"),
    "carry of a name": (lambda: vc.Loop(4, "action"), '"action" is not a dict', "noise"),
    "no carry": (lambda: vc.Loop(4, {}), "nothing is carried", "noise"),
    "carry of tensors": (lambda: vc.Loop(4, {"action": torch.zeros(1)}),
                         '"action" is a tensor of torch.float32', "noise"),
    "index of a number": (lambda: vc.Loop(4, {"action": "noise"}, index=0), "0 is not a str", "name"),
    "no name": (lambda: policy(name=None), "None is not a name", "string"),
    "observe of a value": (lambda: policy(observe=act(STATE["state"])), "is not callable", "the function itself"),
    "sources of words": (lambda: policy(sources={"state": "observation"}), '"state" is a str', "vlacompile.Source"),
    "a list of sources": (lambda: policy(sources=["state"]), "is not a dict", "vlacompile.Source"),
    "sources without names": (lambda: policy(sources={0: vc.Source("observation")}), "0 is not a name",
                              "vlacompile.Source"),
    "a list of examples": (lambda: policy(example_inputs=[STATE["state"]]), "is not a dict", "every source"),
    "NumPy examples": (lambda: policy(example_inputs={"state": np.zeros((1, 4), np.float32)}), "a numpy.ndarray",
                       "torch.as_tensor"),
    "examples of numbers": (lambda: policy(example_inputs={"state": 1.0}), "a float", "torch.Tensor"),
    "a dict as an example": (lambda: policy(example_inputs={"state": STATE}), "is a dict", "sources of their own"),
    "a list as an example": (lambda: policy(example_inputs={"state": [STATE["state"]]}), "is a list", "stack"),
    "complex examples": (lambda: policy(example_inputs={"state": torch.zeros(1, 4, dtype=torch.complex64)}),
                         "a tensor of torch.complex64", "dtype"),
    "examples without memory": (lambda: policy(example_inputs={"state": torch.zeros(1, 4, device="meta")}),
                                "is on meta",
                                "cpu"),
    "sparse examples": (lambda: policy(example_inputs={"state": torch.zeros(1, 4).to_sparse()}), "sparse", "dense"),
    "outputs of one name": (lambda: policy(outputs="action"), 'outputs is the string "action"', 'outputs=("action",)'),
    "outputs of numbers": (lambda: policy(outputs=(0,)), "outputs is (0,)", "tuple of names"),
    "no outputs": (lambda: policy(outputs=()), "outputs is empty", "at least one"),
    "execute of words": (lambda: policy(execute="x"), '"x" is not a whole number', "how many"),
    "execute nothing": (lambda: policy(execute=0), "0 is not a whole number", "how many"),
    "ensemble of words": (lambda: policy(ensemble="mean"), '"mean" is not a Real', "decay"),
    "a decoder of words": (lambda: policy(decoder="fast"), '"fast" is not a Decoder', "Decoder"),
    "texts of words": (lambda: policy(texts={"state": "hello"}), '"state" is a str', "Text"),
    "calibration of one": (lambda: policy(calibration=STATE), "is not a tuple", "tuple of observations"),
    "calibration of tensors": (lambda: policy(calibration=(STATE["state"],)), "is not a dict", "example_inputs"),
    "calibration of arrays": (lambda: policy(calibration=({"state": np.zeros((1, 4))},)), "does not fit",
                              "example_inputs"),
    "a loop of numbers": (lambda: policy(step=act, loop=4), "4 is not a Loop", "vlacompile.Loop"),
    "a step of words": (lambda: policy(step="x", loop=vc.Loop(1, {"action": "state"})), "is not callable", "function"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_types_are_named(case):
    make, what, fix = WRONG[case]
    with pytest.raises(SourceError) as error:
        make()
    assert what in error.value.what and fix in error.value.fix and error.value.where and error.value.why


def test_what_is_right_stays_so():
    assert vc.Source("observation", clock=30).clock == 30 and vc.Source("tick", history=np.int64(2)).history == 2
    assert vc.Source("observation", clock=np.float32(29.97)).clock > 29
    assert vc.Loop(np.int64(4), {"action": "noise"}, "k").iterations == 4
    made = policy(outputs=["action"], calibration=[STATE, STATE], execute=np.int64(1), ensemble=0.01)
    assert made.outputs == ("action",) and len(made.calibration) == 2
