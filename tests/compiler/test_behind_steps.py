"""Numbers that are rounded to ticks, compared with a threshold or chosen: correct engines differ where one is near."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from vlacompile.compiler.behind_steps import LARGER
from vlacompile.compiler.staging.perturbed_runs import perturbed_results, roundings
from vlart.bundle.directory import GOLDEN_FILE
from vlart.verify.frames import read_frames
from vlart.verify.metrics import Limit, examine
from vlart.verify.tolerances import beside_steps

CHUNK, JOINTS = 50, 14
# Of 700 numbers about one lies within an engine's rounding of a half, so that most builds would be refused by chance
ROUNDED = {"ticks": lambda x: (x * 6000 + 2048).round().to(torch.int32), "in f32": lambda x: (x * 6000).round(),
           "of a servo": lambda x: (x * 6000 + 2048).round().clamp(0, 4095).int()}


class Rounded(nn.Module):
    def __init__(self, rounded, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Flatten(1), nn.Linear(3 * 32 * 32, 256), nn.ReLU(), nn.Linear(256, 64))
        self.head = nn.Sequential(nn.Linear(64 + JOINTS, 256), nn.SiLU(), nn.Linear(256, CHUNK * JOINTS))
        self.rounded = rounded

    def forward(self, camera, state):
        seen = self.encoder(camera.float() / 255)
        return {"action": self.rounded(self.head(torch.cat([seen, state], 1)).view(1, CHUNK, JOINTS))}


def policy_of(rounded, seed=0):
    generator = torch.Generator().manual_seed(5)
    return vc.Policy("rounded", Rounded(rounded, seed).eval(),
                     {"camera": vc.Source("observation"), "state": vc.Source("observation")},
                     {"camera": torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=generator),
                      "state": torch.randn(1, JOINTS, generator=generator)})


@pytest.mark.parametrize("name", ROUNDED)
def test_ticks_are_held_to_what_rounding_decides_and_no_further(name, tmp_path):
    out = tmp_path / "b.vlab"
    changed = 0
    for seed in range(2):
        vc.build(policy_of(ROUNDED[name], seed), target="host", out=out)
        assert vc.verify(out).passed
        expected = [f.expects["action"] for f in read_frames(out / GOLDEN_FILE) if not f.label.startswith("edges")]
        changed += sum(e.limit.max_abs > 0.5 for e in expected)
        for e in expected:
            two, one = e.array.copy(), e.array.copy()
            two[..., 3, 3] += 2
            one[..., ::2] += 1
            assert not examine(two, e.array, e.limit).passed, "two ticks are no rounding"
            assert not examine(one, e.array, e.limit).passed, "nor is one of every second number"
    assert changed, "rounding decides none of these: they tell nothing"


@pytest.mark.parametrize("name", ["ticks", "in f32"])
@pytest.mark.parametrize("target, recipe", [("orin-nano-8gb", None), ("host", "fp16"), ("host", "int8")])
def test_ticks_in_reduced_precision(name, target, recipe, tmp_path):
    out = tmp_path / "b.vlab"
    vc.build(policy_of(ROUNDED[name]), target=target, recipe=recipe, out=out)
    report = vc.verify(out, stand_in=target != "host")
    assert report.passed and {"chunk", "policy"} <= {v.level for v in report.values if v.value == "action"}
    frames = read_frames(out / GOLDEN_FILE)
    spread = max(float(np.abs(f.expects["action"].array).max()) for f in frames)
    assert all(f.expects["action"].limit.max_abs < 0.5 * spread for f in frames)


def test_what_no_rounding_decides_is_exact(tmp_path):
    out = tmp_path / "b.vlab"
    vc.build(policy_of(lambda x: (x > 100.0).to(torch.int64)), target="host", out=out)
    assert {f.expects["action"].limit for f in read_frames(out / GOLDEN_FILE)} == {Limit(0.0, 0.0, 1.0)}


def test_limits_follow_what_larger_errors_change():
    exact, want, reach = Limit(0.0, 0.0, 1.0), np.array([[3, 0, 5]], np.int32), np.array([100.0])
    same, other = want.copy(), want + np.array([[0, 1, 0]], np.int32)
    assert beside_steps(exact, want, [same, same], np.zeros(1), reach) is exact
    assert beside_steps(exact, want, [same, other], np.zeros(1), np.array([5.0])) is exact, "another token of ten"
    limit = beside_steps(exact, want, [same, other], np.zeros(1), reach)
    assert examine(other, want, limit).passed and examine(want - np.array([[1, 0, 0]], np.int32), want, limit).passed
    assert not examine(want + 1, want, limit).passed and not examine(want + np.array([[0, 2, 0]]), want, limit).passed

    smooth = Limit(1e-3, 1e-3, 0.99999)
    numbers, moved = np.array([[1.0, 2.0]]), np.array([[1.004, 2.0]])
    assert beside_steps(smooth, numbers, [moved], np.array([0.01]), reach) is smooth, "errors alone are no step"
    assert beside_steps(smooth, numbers, [moved + 1], np.array([0.01]), reach).max_abs == pytest.approx(1.005)


def test_whole_numbers_have_no_errors_of_their_own():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    aten, value = torch.ops.aten, torch.rand(3) * 4000
    x.meta["val"] = value
    nodes = [x]
    for target, *args in ((aten.mul.Tensor, 2.0), (aten.round.default,), (aten.clamp.default, 0, 4095),
                          (aten.add.Tensor, 1.0), (aten.add.Tensor, 0.5), (aten.div.Tensor, 2.0)):
        nodes.append(graph.call_function(target, (nodes[-1], *args)))
        value = target(value, *args)
        nodes[-1].meta["val"] = value
    assert [bool(size) for size in roundings(graph).values()] == [False, True, False, False, False, True, True]
    perturb = perturbed_results(0, LARGER)
    moved = [perturb(n, n.meta["val"]) for n in nodes]
    assert [m is not None for m in moved] == [False, True, False, False, False, True, True]


def test_an_index_at_the_end_of_a_table(tmp_path):
    """Larger errors lead behind the end, where PyTorch reads nothing."""
    generator = torch.Generator().manual_seed(0)
    table, head = torch.randn(4, 6, generator=generator), nn.Linear(3, 1)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(3.4999)

    def function(state):
        return {"action": table[head(state).round().long()[:, 0]][:, None]}

    policy = vc.Policy("indexed", function, {"state": vc.Source("observation")}, {"state": torch.randn(1, 3)})
    vc.build(policy, target="host", out=tmp_path / "b.vlab")
    assert vc.verify(tmp_path / "b.vlab").passed
