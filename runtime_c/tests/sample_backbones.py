"""Two backbones that share what is seen: each has words of its own, and one reads a sensor that the other has not."""

from __future__ import annotations

from onnx import TensorProto, helper
from sample_bundles import Bundle


def paired() -> Bundle:
    b = Bundle("paired")
    b.source("words", "u8", (1, 3), "task")
    b.source("image", "u8", (1, 3), "observation", 20.0)
    b.source("touch", "u8", (1, 3), "observation", 20.0)
    for name in ("seen", "light", "heavy"):
        b.value(name, "f32", (1, 1, 3))
    node = helper.make_node
    shape = node("Constant", [], ["shape"], value_ints=[1, 1, 3])
    b.stage("vision", [node("Cast", ["image"], ["a"], to=TensorProto.FLOAT), shape,
                       node("Reshape", ["a", "shape"], ["seen"])], [1],
            [("image", "image", "whole")], [("seen", "seen", "whole")])
    for name, source, number in (("light", "words", 0), ("heavy", "touch", 2)):
        b.stage(f"fusion.{name}", [node("Cast", [source], ["a"], to=TensorProto.FLOAT), shape,
                                   node("Reshape", ["a", "shape"], ["b"]), node("Add", ["seen", "b"], [name])],
                sorted({number, 1}), [("seen", "seen", "whole"), (source, source, "whole")], [(name, name, "whole")])
    b.action("light", 1)
    for name in ("light", "heavy"):
        b.plan.add("chunks", backbone=b.plan.string(name), value=b.values[name])
    return b


def bucketed() -> Bundle:
    """One policy for two lengths of its text: what reads two tokens of it, and what reads all four."""
    b = Bundle("bucketed")
    b.source("tokens", "i64", (1, 4), "task")
    b.source("mask", "bool", (1, 4), "task")
    b.source("image", "u8", (1, 3), "observation", 20.0)
    names = ("tokens", "mask", "image")
    node = helper.make_node
    for name in ("short", "whole"):
        b.value(name, "f32", (1, 1, 3))
        b.stage(name, [node("Cast", ["image"], ["a"], to=TensorProto.FLOAT),
                       node("Constant", [], ["shape"], value_ints=[1, 1, 3]), node("Reshape", ["a", "shape"], [name])],
                [0, 1, 2], [(n, n, "whole") for n in names], [(name, name, "whole")])
    b.action("short", 1)
    for name, length in (("short", 2), ("whole", 4)):
        b.plan.add("chunks", backbone=b.plan.string(name), value=b.values[name])
        b.plan.add("buckets", mask=1, side=0, length=length)
    return b
