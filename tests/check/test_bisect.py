"""The first layer that leaves its limit: found where a weight was changed, and none where none was. TensorRT is a
double here: not run on a GPU."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.check import polygraphy_double
from tests.samples import policies
from vlacompile.check.bisect import bisect, full_of_bundle
from vlacompile.check.layer_runners import TENSORRT
from vlacompile.policy.policy import Policy, Source
from vlart.errors import ConfigError, ParityError

PRECISION = {"fp32": 'base = "fp32"\n[[precision.rule]]\nlayers = "*"\nscheme = "fp32"\n',
             "fp16": 'base = "fp16"\nlayers = "fp16"\n',
             "int8": '[[precision.rule]]\nlayers = "*"\nscheme = "int8"\n'}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """built(policy, precision, target="host") -> Bundle."""
    folder = tmp_path_factory.mktemp("bisect")

    def build(policy, precision, target="host", name="a"):
        recipe = folder / f"{precision}.toml"
        recipe.write_text(policies.EVERY_STAGE + "[precision]\n" + PRECISION[precision], encoding="utf-8")
        return vc.build(policy, recipe=str(recipe), target=target, out=folder / f"{name}-{precision}-{target}.vlab")
    return build


@pytest.fixture(scope="module")
def whole(built):
    return built(policies.late_fusion(), "fp32")


def planted(change):
    """The policy with another weight."""
    policy = policies.late_fusion()
    with torch.no_grad():
        change(policy.observe)
    return policy


def test_no_layer_of_a_right_bundle(built, whole, cli):
    bundle = built(policies.late_fusion(), "int8")
    for stage in ("vision.base", "state", "language", "fusion"):
        found = bisect(bundle, stage, full_of_bundle(whole, stage))
        assert found.first is None and found.runs >= 5 and len(found.layers) >= 2 and found.scheme == "int8"
        found.require()
    code, out, _ = cli("bisect", bundle.path, "fusion", "--against", whole.path)
    assert code == 0 and "0 over their limit" in " ".join(out.split()) and max(map(len, out.splitlines())) <= 80
    with pytest.raises(ParityError):  # the limit is a limit: a smaller one is left
        bisect(bundle, "vision.base", full_of_bundle(whole, "vision.base"), limit=1e-4).require()


def test_the_layer_whose_weight_was_changed(built, whole, cli):
    """Of three in a row: neither what is before it nor what it spreads to."""
    bundle = built(planted(lambda m: m.kv[1].weight.mul_(1.3)), "int8", name="kv")
    found = bisect(bundle, "vision.base", full_of_bundle(whole, "vision.base"))
    assert found.first.value == "vision_base_1" and "policy__kv__1__weight__int8" in found.first.weights
    assert [x.value for x in found.layers if x.at_fault] == ["vision_base_1"]
    bundle = built(planted(lambda m: m.camera[0].weight.mul_(1.3)), "int8", name="camera")
    found = bisect(bundle, "vision.base", full_of_bundle(whole, "vision.base"))
    assert found.first.value == "view" and {"Conv", "QuantizeLinear"} <= set(found.first.ops)
    assert next(x for x in found.layers if x.value == "div").parity.passed
    assert bisect(bundle, "state", full_of_bundle(whole, "state")).first is None, "the inputs are the same in both"
    code, out, err = cli("bisect", bundle.path, "vision.base", "--against", whole.path)
    assert code == 10 and "NO" in out and '"view" is the first in stage "vision.base"' in err
    assert "policy__camera__0__weight" in err and max(map(len, out.splitlines())) <= 80
    code, out, _ = cli("bisect", bundle.path, "vision.base", "--against", whole.path, "--json")
    assert code == 10 and json.loads(out.splitlines()[0] if out.count("\n") == 1 else out[:out.rindex("}") + 1])


def test_fp16_of_a_board_against_the_source_with_the_line(built, cli, every_stage):
    """The board's graph says the line; full precision is traced again."""
    right = built(policies.late_fusion(), "fp16", "orin-nano-8gb")
    source = ("--source", "tests.samples.policies:late_fusion", "--recipe", every_stage)
    code, out, err = cli("bisect", right.path, "vision.base", *source)
    assert code == 0, out + err
    wrong = built(planted(lambda m: m.camera[0].weight.mul_(1.1)), "fp16", "orin-nano-8gb", "camera")
    code, out, err = cli("bisect", wrong.path, "vision.base", *source)
    first = next(line for line in out.splitlines() if line.startswith("first: "))
    assert code == 10 and "conv2d" in first and first.endswith("by Cast, MatMul")  # patches of a camera, on a board
    assert "samples/policies.py:" in out + err
    code, _, err = cli("bisect", wrong.path, "vision.bas", *source)
    assert code == 3 and 'no stage "vision.bas"' in err


def test_a_loop_is_run_iteration_by_iteration(built):
    """With the carried values of full precision, so that an error is its layer's own and not the sum of all before."""
    whole, half = built(policies.flow(), "fp32", name="flow"), built(policies.flow(), "int8", name="flow")
    found = bisect(half, "step", full_of_bundle(whole, "step"))
    iterations = next(s.iterations for s in whole.plan.stages if s.name == "step")
    assert found.first is None and iterations > 1 and found.runs % iterations == 0 and found.runs >= 2 * iterations
    wrong = policies.flow()
    with torch.no_grad():
        wrong.observe.q[1].weight.mul_(-1)
    found = bisect(built(wrong, "int8", name="q"), "step", full_of_bundle(whole, "step"))
    assert any("policy__q__1__weight" in w for w in found.first.weights)


class TwoLayers(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(32, 64, bias=False), nn.Linear(64, 8, bias=False)
        with torch.no_grad():
            self.first.weight.mul_(scale)
            self.second.weight.div_(scale)

    def forward(self, x):
        return {"action": self.second(torch.relu(self.first(x)))}


def test_another_scale_that_the_next_layer_undoes_comes_back(built):
    """As smoothing does: the numbers between two layers are others, what comes out is not."""
    def policy(scale):
        torch.manual_seed(5)
        return Policy("two", TwoLayers(scale), {"x": Source("observation")}, {"x": torch.randn(1, 4, 32)})
    whole, other = built(policy(1.0), "fp32", name="two"), built(policy(4.0), "int8", name="scaled")
    name = whole.plan.stages[0].name
    found = bisect(other, name, full_of_bundle(whole, name))
    assert found.first is None and any(x.comes_back for x in found.layers)


def test_tensorrt_by_polygraphy(built, monkeypatch):
    """The same values are marked, by the build's flags; on a double, not run on a GPU."""
    right = built(policies.late_fusion(), "fp16", "orin-nano-8gb")
    whole = built(policies.late_fusion(), "fp32", "orin-nano-8gb")
    by_ort = bisect(right, "vision.base", full_of_bundle(whole, "vision.base"))
    with pytest.raises(ConfigError, match="polygraphy is not installed"):
        monkeypatch.setitem(__import__("sys").modules, "polygraphy", None)
        bisect(right, "vision.base", full_of_bundle(whole, "vision.base"), engine=TENSORRT)
    log = polygraphy_double.install(monkeypatch)
    found = bisect(right, "vision.base", full_of_bundle(whole, "vision.base"), engine=TENSORRT)
    assert found.layers == by_ort.layers and found.engine == TENSORRT
    assert log == [("network", "vision.base.onnx", True), ("tf32", False)] * 2 + ["closed"] * 2


def test_what_is_no_full_precision_is_refused(built, whole):
    reduced = built(policies.late_fusion(), "int8")
    with pytest.raises(ConfigError, match="not in full precision"):
        full_of_bundle(reduced, "fusion")
    flow = built(policies.flow(), "fp32", name="flow")
    with pytest.raises(ConfigError, match="is another one there"):
        bisect(reduced, "fusion", full_of_bundle(flow, "fusion"))
