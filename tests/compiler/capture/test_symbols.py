"""Tracing: numbers that a model reads from its own constants are known; those that an input decides are refused."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.fx.experimental.proxy_tensor import PythonKeyTracer

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.modules import modules_of
from vlacompile.compiler.emit.onnx.onnx_stage import source_line
from vlacompile.compiler.graph.program import execute
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError


class Positions(torch.nn.Module):
    """As SmolVLM's patch positions: spaced by a number that is counted from a mask of ones."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(16, 4))

    def forward(self, x):
        mask = torch.ones(1, 6, dtype=torch.bool)
        count = mask[0].sum()
        places = torch.arange(count, dtype=x.dtype) / count * (1 - 1e-6)
        ids = torch.zeros(6, dtype=torch.long)
        ids[mask[0]] = torch.bucketize(places, torch.arange(1 / 16, 1.0, 1 / 16), right=True)
        return {"action": (x + self.table[ids]).sum(1, keepdim=True)}


def test_numbers_from_constants_are_evaluated():
    inputs = {"x": torch.randn(1, 6, 4)}
    policy = Policy("positions", Positions().eval(), {"x": Source("observation")}, inputs)
    program = capture(policy)
    assert all(isinstance(d, int) for n in program.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)
               for d in n.meta["val"].shape)
    got = execute(program, inputs)[0]["action"]
    assert torch.equal(got, policy.infer(**inputs)["action"])


class Counted(torch.nn.Module):
    """Its chunk has as many steps as the input says."""

    def forward(self, x, mask):
        return {"action": x[:, mask[0]]}


def test_shapes_that_an_input_decides_are_refused():
    inputs = {"x": torch.randn(1, 8, 4), "mask": torch.ones(1, 8, dtype=torch.bool)}
    policy = Policy("counted", Counted().eval(), {n: Source("observation") for n in inputs}, inputs)
    with pytest.raises(CaptureError) as error:
        capture(policy)
    assert "input" in error.value.what and "mask[0]" in error.value.where and error.value.fix


class Sampler(torch.nn.Module):
    """Its work is in functions that are not called forward."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def sample(self, x):
        return self.inner(shifted(x))

    def forward(self, x):
        return {"action": self.sample(x)}


def shifted(x):
    return torch.cumsum(x, dim=-1)


def test_lines_are_those_of_whatever_function_it_is():
    policy = Policy("sampler", Sampler().eval(), {"x": Source("observation")}, {"x": torch.rand(1, 1, 4)})
    lines = {str(n.target): source_line(n.meta["stack_trace"]) for n in capture(policy).graph.nodes
             if n.op == "call_function"}
    assert "test_symbols.py" in lines["aten.cumsum.default"]
    assert lines["aten.cumsum.default"].endswith("return torch.cumsum(x, dim=-1)")
    assert lines["aten.linear.default"].endswith("return self.inner(shifted(x))")
    assert "_filter_traceback_frames" not in vars(PythonKeyTracer)
    failing = Policy("failing", lambda x: {"action": x[x > 0]}, {"x": Source("observation")},
                     {"x": torch.rand(1, 1, 4)})
    with pytest.raises(CaptureError):
        capture(failing)
    assert "_filter_traceback_frames" not in vars(PythonKeyTracer)


def test_a_variable_that_was_never_set_is_passed_over():
    """inspect.getclosurevars raises "Cell is empty" for it."""
    net, scaled = torch.nn.Linear(4, 4).eval(), False
    if scaled:
        gain = 2.0

    def observe(x):
        return {"action": net(x)[:, None] * (gain if scaled else 1.0)}

    inputs = {"x": torch.rand(1, 4)}
    policy = Policy("closure", observe, {"x": Source("observation")}, inputs)
    assert modules_of(observe) == {"net": net}
    assert torch.equal(execute(capture(policy), inputs)[0]["action"], policy.infer(**inputs)["action"])


LAYERS = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.1))])


def test_modules_are_found_wherever_a_function_holds_them():
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    class Holder:
        def __init__(self):
            self.parts = {"first": first}

        def observe(self, x):
            return second(x)

    assert set(modules_of(Holder().observe).values()) == {first, second}
    assert set(modules_of(functools.partial(lambda x, net: net(x), net=first)).values()) == {first}
    assert set(modules_of(lambda x: [layer(x) for layer in LAYERS]).values()) == {LAYERS}
    assert set(modules_of(lambda x: sum((lambda: LAYERS[0](x))() for _ in range(2))).values()) == {LAYERS}
    assert set(modules_of(torch.nn.Sequential(first), first)) == {"policy"}  # a part is left to the whole
    assert modules_of(None, len) == {}


def test_a_module_in_training_is_refused_also_inside_a_comprehension():
    LAYERS.train()
    policy = Policy("training", lambda x: {"action": torch.stack([layer(x) for layer in LAYERS], 1)},
                    {"x": Source("observation")}, {"x": torch.rand(1, 4)})
    with pytest.raises(CaptureError, match="training mode"):
        capture(policy)
