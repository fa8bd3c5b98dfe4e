"""Stages that do not depend on each other: three sources, a stage of each, two that join them, one that the actions
come from, and one that no action waits for."""

from __future__ import annotations

import numpy as np
from onnx import helper
from sample_bundles import Bundle

SHAPE = (1, 2, 4)
# {stage: what it reads}; each gives the hyperbolic tangent of a sum, every term half of the one behind it.
STAGES = {"left": ("a",), "middle": ("b",), "right": ("c",), "first": ("left", "middle"), "second": ("middle", "right"),
          "aside": ("right",), "act": ("first", "second", "left")}


class Branches:
    def __init__(self):
        b = self.bundle = Bundle("branches")
        for name in "abc":
            b.source(name, "f32", SHAPE, "observation", 20.0)
        half = b.weight("half", np.array(0.5, np.float32))
        depends = {name: {i} for i, name in enumerate("abc")}
        for stage, reads in STAGES.items():
            depends[stage] = set().union(*(depends[r] for r in reads))
            b.value(stage, "f32", SHAPE)
            nodes, total = [], "x0"
            for i in range(1, len(reads)):
                nodes += [helper.make_node("Mul", [total, "half"], [f"h{i}"]),
                          helper.make_node("Add", [f"h{i}", f"x{i}"], [f"s{i}"])]
                total = f"s{i}"
            nodes.append(helper.make_node("Tanh", [total], ["out"]))
            b.stage(stage, nodes, sorted(depends[stage]), [(f"x{i}", r, "whole") for i, r in enumerate(reads)],
                    [("out", stage, "whole")], [("half", half)] if len(reads) > 1 else [])
        b.action("act", 1)
        b.plan.add("concurrency", threads=1, parallel=3)

    @staticmethod
    def inputs(seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {name: rng.uniform(-1, 1, SHAPE).astype(np.float32) for name in "abc"}

    @staticmethod
    def reference(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {k: v.astype(np.float64) for k, v in inputs.items()}
        for stage, reads in STAGES.items():
            total = values[reads[0]]
            for r in reads[1:]:
                total = total * 0.5 + values[r]
            values[stage] = np.tanh(total)
        return {stage: values[stage].astype(np.float32) for stage in STAGES}
