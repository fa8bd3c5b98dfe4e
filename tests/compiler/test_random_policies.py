"""Random policies built and compared with PyTorch: a share of them, the same ones every time; `make fuzz` goes on with
others. Policies that once showed a fault are kept in tests/fuzz/kept, by kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

import vlacompile as vc
from tests.fuzz import policies
from tests.fuzz.check import Written, check
from tests.fuzz.policies import random_policies
from tests.fuzz.run_beside import Beside, Frames, Unsuitable
from vlacompile.compiler.passes.pass_manager import verified

KEPT = sorted((Path(policies.__file__).parent / "kept").glob("[a-z]*.py"))
SHARE = 60  # about two minutes

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own, of what a random policy happens to call


@pytest.fixture(scope="module", autouse=True)
def as_a_build_is():
    """As users build: types are not computed again after every pass."""
    with verified("types"):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("random")


@settings(max_examples=SHARE, derandomize=True, deadline=None, database=None, phases=(Phase.generate,),
          suppress_health_check=list(HealthCheck))
@given(policy=random_policies())
def test_a_random_policy_is_right(folder, policy):
    try:
        finding = check(policy.text, policy.target, policy.recipe, folder)
    except Unsuitable:
        return
    assert finding is None, f"{finding.kind}: {finding.words}\n{policy.target} {policy.recipe}\n{policy.text}"


@pytest.mark.parametrize("path", KEPT, ids=[p.stem for p in KEPT])
def test_a_policy_that_showed_a_fault_is_right(folder, path):
    text = path.read_text(encoding="utf-8")
    target, *recipe = text.split("\n", 1)[0].removeprefix("# ").split()
    assert check(text, target, recipe[0] if recipe else None, folder) is None


@settings(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(policy=random_policies())
def test_every_text_runs(folder, policy):
    made = Written.at(folder, policy.text).make()
    with torch.no_grad():
        made.infer(**{n: t.clone() for n, t in made.example_inputs.items()})


def test_most_policies_differ():
    seen = []

    @settings(max_examples=1000, derandomize=True, deadline=None, database=None, phases=(Phase.generate,),
              suppress_health_check=list(HealthCheck))
    @given(policy=random_policies())
    def drawn(policy):
        seen.append(policy)

    drawn()
    texts = {p.text for p in seen}
    assert len(texts) > 800
    for word in ("history=", "uint8", "float64", "scaled_dot_product_attention", "nn.LSTM", "for i in range", "-1e9",
                 "torch.split", ".chunk(", ".clone()", "every-stage"):
        assert any(word in p.text or p.recipe == word for p in seen), f"none of them has {word}"


TWO_SOURCES = """import time

import torch
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x, y):
        a, b = torch.tanh(self.a(x)), torch.tanh(self.b(y))
        {line}
        return {{"action": self.out({value}).unsqueeze(1)}}


def make():
    examples = {{n: torch.ones(1, 8) for n in ("x", "y")}}
    return vc.Policy("two", Net().eval(), {{n: vc.Source("observation") for n in examples}}, examples)


RANGES = {{}}
"""


def text_of(value: str, line: str = "pass") -> str:
    return TWO_SOURCES.format(value=value, line=line)


def found_beside(folder: Path, policy: str, bundle: str) -> set[str]:
    """Kinds of what is found with one policy beside the bundle of another."""
    asked, built = Written.at(folder, policy), Written.at(folder, bundle)
    out = folder / "control.vlab"
    vc.build(built.make(), out=out)
    return {kind for kind, _ in Beside(Frames(asked.make, asked.ranges), out, 0.0, stand_in=False).run()}


def test_control_the_right_bundle(folder):
    assert found_beside(folder, text_of("a + b"), text_of("a + b")) == set()


def test_control_another_number(folder):
    assert "wrong: all written" in found_beside(folder, text_of("a + b"), text_of("a + 1.001 * b"))


def test_control_a_source_that_is_not_looked_at(folder):
    """As a stage that is skipped though one of its sources was written."""
    assert "wrong: one source written" in found_beside(folder, text_of("a + b"), text_of("a + 1e-3 * b"))


def test_control_a_stage_that_runs_for_nothing(folder):
    assert found_beside(folder, text_of("a"), text_of("a + 0 * b")) == {"reruns: nothing changes"}


@pytest.mark.parametrize("value", ["torch.where(b > 5, 2 * a, a)", "a * b[:, :1].softmax(1)", "a + b.clamp(7, 8)"])
def test_what_values_hide_is_read_all_the_same(folder, value):
    assert found_beside(folder, text_of(value), text_of(value)) == set()


def test_control_a_branch_on_an_input(folder):
    text = text_of("a + b", "b = b if float(x.sum()) < 1e9 else a")
    finding = check(text, "host", None, folder)
    assert finding is not None and finding.kind.startswith("refused"), finding


def test_control_a_build_that_takes_too_long(folder):
    finding = check(text_of("a + b", "time.sleep(0.1)"), "host", None, folder, seconds=1)
    assert finding is not None and finding.kind == "hang"


def test_control_a_crash(folder, monkeypatch):
    def broken(*_, **__):
        raise IndexError("an error of the compiler")

    monkeypatch.setattr(vc, "build", broken)
    finding = check(text_of("a + b"), "host", None, folder)
    assert finding is not None and finding.kind.startswith("crash: IndexError")
