"""A bundle that carries values from step to step."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from sample_bundles import Bundle

from vlart import vocabulary
from vlart.bundle.format import layout


class Adding:
    """The sum of all inputs of an episode, from `first` on, and their number; the action is their mean. `until`: what
    ends them. bound: of an action's magnitude."""

    def __init__(self, until: str = "episode", bound: float = 100.0):
        self.first = np.array([[[1, 2, 3]]], np.float32)
        b = self.bundle = Bundle("adding")
        b.source("word", "i64", (1,), "task")
        b.source("x", "f32", (1, 1, 3), "observation")
        initial = b.weight("initial/sum", self.first)
        for name, kind, dims in (("sum", "f32", (1, 1, 3)), ("count", "i64", (1,))):
            b.value(name, kind, dims)
            b.value(f"{name}.next", kind, dims)
            b.plan.add("carried", value=b.values[name], next=b.values[f"{name}.next"],
                       initial=initial if name == "sum" else layout.NONE, until=vocabulary.LIFETIMES[until])
        b.value("action", "f32", (1, 1, 3))
        node = helper.make_node
        b.stage("add", [
            node("Constant", [], ["one"], value_ints=[1]), node("Add", ["count", "one"], ["more"]),
            node("Cast", ["word"], ["said"], to=TensorProto.FLOAT), node("Add", ["x", "said"], ["heard"]),
            node("Add", ["sum", "heard"], ["whole"]),
        ], [0, 1], [("word", "word", "whole"), ("x", "x", "whole"), ("sum", "sum", "whole"),
                    ("count", "count", "whole")], [("whole", "sum.next", "whole"), ("more", "count.next", "whole")])
        b.stage("mean", [node("Cast", ["count"], ["number"], to=TensorProto.FLOAT),
                         node("Div", ["sum", "number"], ["mean"])],
                [0, 1], [("sum", "sum.next", "whole"), ("count", "count.next", "whole")],
                [("mean", "action", "whole")])
        b.action("action", 1, (-bound,) * 3, (bound,) * 3)

    def inputs(self, seed: int) -> dict[str, np.ndarray]:
        return {"word": np.array([2]), "x": np.random.default_rng(seed).uniform(-1, 1, (1, 1, 3)).astype(np.float32)}

    def reference(self, seen: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """After these inputs of an episode."""
        total = self.first + sum(s["x"] + np.float32(s["word"][0]) for s in seen)
        return {"sum.next": total.astype(np.float32), "count.next": np.array([len(seen)]),
                "action": (total / np.float32(len(seen))).astype(np.float32)}
