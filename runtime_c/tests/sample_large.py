"""A bundle with a stage of many weights and a small one, of which an engine can find them where its file says."""

from __future__ import annotations

import numpy as np
from onnx import helper
from sample_bundles import Bundle

WIDTH, ROWS = 1024, 4


class Large:
    """x -> two layers of WIDTH -> y -> z, with a golden frame. `tail` is 4 bytes of the weights that nothing reads."""

    def __init__(self, seed: int = 0, tail: bytes = b"\0" * 4, named: bool = True):
        rng = np.random.default_rng(seed)
        self.layers = [rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 32 for _ in range(3)]
        self.scale = rng.uniform(1, 2, (1, ROWS, WIDTH)).astype(np.float32)
        b = self.bundle = Bundle("large")
        b.source("x", "f32", (1, ROWS, WIDTH), "tick")
        first = b.weight("odd", np.zeros(3, np.float32))  # what follows lies at no page's beginning
        layers = [b.weight(f"layer{i}", w) for i, w in enumerate(self.layers)]
        scale = b.weight("scale", self.scale)
        assert first == 0
        b.weights += tail
        for name in ("y", "z"):
            b.value(name, "f32", (1, ROWS, WIDTH))
        node = helper.make_node
        nodes, read = [], "x"
        for i in range(3):
            nodes += [node("MatMul", [read, f"w{i}"], [f"h{i}"]), node("Relu", [f"h{i}"], ["y" if i == 2 else f"r{i}"])]
            read = f"r{i}"
        b.stage("large", nodes, [0], [("x", "x", "whole")], [("y", "y", "whole")],
                [(f"w{i}", w) for i, w in enumerate(layers)])
        b.stage("small", [node("Mul", ["y", "s"], ["z"])], [0], [("y", "y", "whole")], [("z", "z", "whole")],
                [("s", scale)])
        if named:
            b.name_weights()
        x = self.inputs()
        b.frame("frame", x, self.reference(x), max_abs=1e-3)

    def inputs(self) -> dict[str, np.ndarray]:
        return {"x": np.random.default_rng(7).standard_normal((1, ROWS, WIDTH)).astype(np.float32)}

    def reference(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = inputs["x"]
        for w in self.layers:
            y = np.maximum(y @ w, 0)
        return {"z": y * self.scale}
