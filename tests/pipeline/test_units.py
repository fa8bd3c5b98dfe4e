"""Builds hold actions to their own unit, whatever it is, and refuse what is wrong in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples.random_flows import random_flow
from tests.samples.staging import verified
from vlacompile.cli.main import main
from vlacompile.compiler.golden_precise import golden_precise
from vlacompile.compiler.precision.fp16.rewrite import to_fp16
from vlacompile.hardware.target import load_target
from vlacompile.phases import emit as emit_phase
from vlacompile.recipe.recipe import load_recipe
from vlart.bundle.directory import GOLDEN_FILE
from vlart.errors import ParityError, PrecisionError
from vlart.verify.frames import read_frames
from vlart.verify.metrics import examine
from vlart.verify.tolerances import tolerance

# Scale and offset of six joints and a gripper.
UNITS = {"radians": ([0.5] * 7, [0.0] * 7), "milliradians": ([5e-4] * 7, [1e-3] * 7),
         "millimetres": ([150.0] * 7, [400.0] * 7), "ticks": ([600.0] * 7, [2048.0] * 7),
         "radians and ticks": ([0.5] * 6 + [600.0], [0.0] * 6 + [2048.0])}


class Reach(nn.Module):
    def __init__(self, scale, offset):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 4 * 7))
        self.scale, self.offset = (torch.tensor(x, dtype=torch.float64) for x in (scale, offset))  # as NumPy has them

    def forward(self, state):
        return {"action": self.net(state).reshape(1, 4, 7) * self.scale + self.offset}


def reach(unit: str) -> vc.Policy:
    return vc.Policy("reach", Reach(*UNITS[unit]).eval(), {"state": vc.Source("observation")},
                     {"state": torch.randn(1, 8, generator=torch.Generator().manual_seed(0))})


def with_constants(monkeypatch, change) -> None:
    """Engines are emitted with other weights than the golden frames were computed with."""
    honest = emit_phase.emit_onnx

    def emit(stage, *args, **kwargs):
        return honest(replace(stage, constants={n: change(n, t) for n, t in stage.constants.items()}), *args, **kwargs)

    monkeypatch.setattr(emit_phase, "emit_onnx", emit)


@pytest.mark.parametrize("unit", UNITS)
def test_actions_build_and_verify_in_their_unit(tmp_path, unit):
    bundle = vc.build(reach(unit), out=tmp_path / "p.vlab")
    assert vc.verify(bundle.path).passed
    for frame in read_frames(bundle.path / GOLDEN_FILE):
        limits = frame.expects["action"].limit.columns
        assert all(0 < m < 3e-3 * s for m, s in zip(limits, UNITS[unit][0], strict=True))


@pytest.mark.parametrize("unit, column", [("milliradians", 0), ("ticks", 6), ("radians and ticks", 0),
                                          ("radians and ticks", 6)])
def test_a_small_share_of_the_spread_in_one_column_is_refused(tmp_path, monkeypatch, unit, column):
    def change(name, tensor):
        if tensor.dim() != 1 or tensor.numel() != 7 or not tensor.is_floating_point():
            return tensor
        wrong = tensor.clone()
        wrong[column] += 0.01 * UNITS[unit][0][column]
        return wrong

    with_constants(monkeypatch, change)
    with pytest.raises(ParityError) as raised:
        vc.build(reach(unit), out=tmp_path / "p.vlab")
    assert f"in column {column}" in raised.value.why


@pytest.mark.parametrize("recipe", [None, "int8"])
def test_a_flow_policy_does_not_refuse_itself(tmp_path, recipe):
    bundle = vc.build(random_flow(0), target="orin-nano-8gb", recipe=recipe, out=tmp_path / "p.vlab")
    rows = vc.verify(bundle.path, stand_in=True).require().values
    assert all(v.worst.rel_l2 <= 0.6 * v.limit.rel_l2 for v in rows if v.limit.rel_l2 > 0), rows


def dropped(name, tensor):
    if not (tensor.is_floating_point() and tensor.dim() == 2 and min(tensor.shape) > 8):
        return tensor
    return tensor.index_fill(1, torch.tensor([3]), 0.0)


def perturbed(name, tensor):
    return tensor * 1.05 if tensor.is_floating_point() and tensor.dim() == 2 else tensor


@pytest.mark.parametrize("fault", [dropped, perturbed])
def test_a_fault_of_a_board_is_refused(tmp_path, monkeypatch, fault):
    with_constants(monkeypatch, fault)
    with pytest.raises(ParityError):
        vc.build(random_flow(1), target="orin-nano-8gb", out=tmp_path / "p.vlab")


def test_a_flow_with_a_step_too_few_is_refused(tmp_path, monkeypatch):
    """The golden frames are those of a policy that takes one step less, as after a loop that was rolled wrongly."""
    fewer = random_flow(1)
    fewer.observe.steps -= 1
    from vlacompile.phases import publish as phase

    monkeypatch.setattr(phase, "replay", lambda path, frames, *args, honest=phase.replay, **kwargs: honest(
        path, [replace(f, expects={"action": replace(f.expects["action"], array=after(fewer, f))}) for f in frames],
        *args, **kwargs))
    with pytest.raises(ParityError):
        vc.build(random_flow(1), target="orin-nano-8gb", out=tmp_path / "p.vlab")


def after(policy: vc.Policy, frame):
    inputs = {n: torch.from_numpy(a.copy()) for n, a in frame.writes.items()}
    return policy.infer(**inputs)["action"].numpy()


class Balanced(nn.Module):
    """Rows of the first weight sum up to zero: of equal numbers, as frames of edges have them, it leaves what rounding
    leaves, where other frames give numbers of about 1. The mask makes all actions of such a frame zero."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        weight = torch.randn(24, 512) / 512**0.5
        self.first, self.head = nn.Linear(512, 24), nn.Linear(24, 12)
        self.first.weight.data, self.first.bias.data = weight - weight.mean(1, keepdim=True), torch.zeros(24)

    def forward(self, goal, state):
        moved = torch.tanh(self.head(self.first(goal).amax(1) + state))
        return {"action": (moved * state.abs().amax()).reshape(1, 2, 6)}


def balanced() -> vc.Policy:
    draw = torch.Generator().manual_seed(1)
    return vc.Policy("balanced", Balanced().eval(), {"goal": vc.Source("task"), "state": vc.Source("observation")},
                     {"goal": torch.randn(1, 256, 512, generator=draw), "state": torch.randn(1, 24, generator=draw)})


def test_an_edge_where_almost_nothing_is_left_is_judged_by_the_usual_reach(tmp_path):
    bundle = vc.build(balanced(), out=tmp_path / "p.vlab")
    frames = read_frames(bundle.path / GOLDEN_FILE)
    between = next(n for n, e in frames[0].expects.items() if n != "action")
    sizes = {f.label: float(abs(f.expects[between].array).max()) for f in frames}
    left = [f for f in frames if 0 < sizes[f.label] < 1e-5]
    assert left and sizes["example"] > 0.5, sizes
    for frame in left:
        expected = frame.expects[between]
        assert expected.limit.max_abs < 1e-3  # a small share of the usual reach, far above what is left
        noise = np.full_like(expected.array, 1e-5)
        assert examine(expected.array + noise, expected.array, expected.limit).passed
        own = tolerance("f32", "stage").limit(expected.array)
        assert not examine(expected.array + noise, expected.array, own).passed
        assert not examine(expected.array + 1e3 * noise, expected.array, expected.limit).passed


def test_a_fault_between_stages_is_refused_beside_such_an_edge(tmp_path, monkeypatch):
    with_constants(monkeypatch, lambda name, t: t * 1.002 if tuple(t.shape) in ((24, 512), (512, 24)) else t)
    with pytest.raises(ParityError) as raised:
        vc.build(balanced(), out=tmp_path / "p.vlab")
    assert '"language.0"' in raised.value.what


def test_an_error_relative_to_zeros_is_null_in_json(tmp_path, capsys):
    """Actions of an edge are zero: every error there, and its limit, is of infinite relative size. The trace adds a
    billionth."""
    policy, calls = balanced(), iter(range(100))
    moved = vc.Policy("moved", lambda **k: {"action": policy.observe(**k)["action"] + 1e-9 * (next(calls) <= 3)},
                      policy.sources, policy.example_inputs)
    path = vc.build(moved, out=tmp_path / "p.vlab").path
    assert any(math.isinf(f.expects["action"].limit.rel_l2) for f in read_frames(path / GOLDEN_FILE))

    def document(text):
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    assert document((path / "manifest.json").read_text())["provenance"]["staged_parity"]["action"]["rel_l2"] is None
    for verb in ("verify", "inspect"):
        assert main([verb, str(path), "--json"]) == 0
        document(capsys.readouterr().out)
    assert main(["inspect", str(path)]) == 0 and "rel L2 of zeros" in capsys.readouterr().out
    assert main(["report", str(path), "-o", str(tmp_path / "r.html")]) == 0


class Squared(nn.Module):
    """Its square overflows in fp16 where all joints are at their limit; the clamp makes a number of the infinity."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.head = nn.Linear(16, 64), nn.Linear(64, 12)

    def forward(self, state):
        h = self.net(state) * 4
        return {"action": self.head((h * h * 0.01).clamp(0, 4000.0)).reshape(1, 2, 6)}


def test_an_overflow_at_an_edge_is_refused():
    """All nodes in fp16, as if the calibration observations had not come near the range."""
    example = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    example[0, 0] = 90.0
    policy = vc.Policy("squared", Squared().eval(), {"state": vc.Source("observation")}, {"state": example})
    found = verified(policy, load_target("host"), load_recipe(None))
    staged = found.staging.staged
    half = replace(staged, stages=tuple(to_fp16(s, ()) for s in staged.stages))
    with pytest.raises(PrecisionError) as raised:
        golden_precise(list(found.frames), half, policy.outputs)
    assert "overflows" in raised.value.what and "edges" in raised.value.where and "off by" in raised.value.why
