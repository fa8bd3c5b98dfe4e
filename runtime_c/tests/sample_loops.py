"""A bundle with a loop whose end the data decides."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from sample_bundles import Bundle

from vlart import vocabulary


class Ending:
    """The state is halved until the sum of its magnitudes is below 1, at most `most` times; the iterations are counted.
    A stage behind the loop makes the action of it."""

    def __init__(self, most: int, must_end: bool = False):
        self.most, self.must_end = most, must_end
        b = self.bundle = Bundle("ending")
        b.source("state", "f32", (1, 1, 3), "observation")
        b.value("false", "bool", (1,), b.weight("false", np.zeros(1, np.bool_)))
        b.value("zero", "i64", (1,), b.weight("zero", np.zeros(1, np.int64)))
        for name, kind, dims in (("small", "f32", (1, 1, 3)), ("count", "i64", (1,)), ("over", "bool", (1,))):
            b.value(name, kind, dims)
            b.value(f"{name}.scratch", kind, dims)
        b.value("action", "f32", (1, 1, 3))
        node = helper.make_node
        b.stage("halve", [
            node("Constant", [], ["half"], value_float=0.5), node("Constant", [], ["least"], value_float=1.0),
            node("Constant", [], ["one"], value_ints=[1]), node("Constant", [], ["shape"], value_ints=[1]),
            node("Mul", ["x", "half"], ["halved"]), node("Where", ["o", "x", "halved"], ["next_x"]),
            node("Add", ["n", "one"], ["more"]), node("Where", ["o", "n", "more"], ["next_n"]),
            node("Abs", ["halved"], ["magnitudes"]), node("ReduceSum", ["magnitudes"], ["sum"], keepdims=0),
            node("Less", ["sum", "least"], ["is_small"]), node("Reshape", ["is_small", "shape"], ["now"]),
            node("Or", ["o", "now"], ["next_o"]),
        ], [0], [("x", "state", "carry"), ("n", "zero", "carry"), ("o", "false", "carry")],
            [("next_x", "small", "carry"), ("next_n", "count", "carry"), ("next_o", "over", "carry")], (), most,
            [("state", "small", "small.scratch"), ("zero", "count", "count.scratch"),
             ("false", "over", "over.scratch")])
        b.plan.add("samplings", stage=0, form=vocabulary.LOOP_FORMS["steps"], iterations=most, written=most,
                   solver=b.plan.string("as-written"), error=0.0, budget=0.0)
        b.plan.add("loop_ends", stage=0, condition=b.values["over"], must_end=int(must_end))
        b.stage("act", [node("Cast", ["n"], ["turns"], to=TensorProto.FLOAT), node("Add", ["x", "turns"], ["action"])],
                [0], [("x", "small", "whole"), ("n", "count", "whole")], [("action", "action", "whole")])
        b.action("action", 1)

    def inputs(self, turns: int) -> dict[str, np.ndarray]:
        """A state that so many iterations make small."""
        return {"state": np.full((1, 1, 3), 0.9 / 3 * 2 ** turns, np.float32)}

    def reference(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x, turns = inputs["state"], 0
        while turns < self.most:
            x, turns = x * np.float32(0.5), turns + 1
            if np.abs(x).sum() < 1:
                break
        return {"small": x, "count": np.array([turns]), "over": np.array([np.abs(x).sum() < 1]), "action": x + turns}
