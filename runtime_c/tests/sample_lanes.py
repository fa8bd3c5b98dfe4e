"""Two clocks: a slow view that a stage makes a latent of, and a fast state that the last stage reads beside both."""

from __future__ import annotations

from onnx import TensorProto, helper
from sample_bundles import Bundle

VIEW = 4096  # bytes: long enough that a torn copy would show


def laned() -> Bundle:
    b = Bundle("laned")
    b.source("view", "u8", (1, VIEW), "observation", 8.0)
    b.source("state", "u8", (1, 3), "tick", 200.0)
    b.value("latent", "u8", (1, VIEW))
    b.value("action", "f32", (1, 2, 3))
    node = helper.make_node
    b.stage("reason", [node("Identity", ["pixels"], ["latent"])], [0], [("pixels", "view", "whole")],
            [("latent", "latent", "whole")])
    b.stage("act", [
        node("Constant", [], ["begin"], value_ints=[0]), node("Constant", [], ["end"], value_ints=[3]),
        node("Constant", [], ["axis"], value_ints=[1]), node("Slice", ["latent", "begin", "end", "axis"], ["first"]),
        node("Cast", ["first"], ["a"], to=TensorProto.FLOAT), node("Cast", ["state"], ["b"], to=TensorProto.FLOAT),
        node("Cast", ["pixels"], ["all"], to=TensorProto.FLOAT), node("ReduceMin", ["all"], ["least"]),
        node("Add", ["a", "b"], ["c"]), node("Add", ["c", "least"], ["d"]),
        node("Constant", [], ["shape"], value_ints=[1, 1, 3]), node("Reshape", ["d", "shape"], ["e"]),
        node("Concat", ["e", "e"], ["action"], axis=1)], [0, 1],
        [("latent", "latent", "whole"), ("pixels", "view", "whole"), ("state", "state", "whole")],
        [("action", "action", "whole")])
    b.action("action", 1)
    b.plan.add("lanes", name=b.plan.string("slow"), clock_hz=8.0, max_age_ms=60000,
               index_begin=b.plan.scalars("indices", [0]), index_count=1)
    return b
