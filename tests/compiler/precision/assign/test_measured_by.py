"""What is known without data, what is not, and that nobody is told a number that nobody measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples import policies
from tests.samples.staging import verified
from vlacompile.compiler.precision.assign import measured_by as observed_module
from vlacompile.compiler.precision.assign.measured_by import observed
from vlacompile.compiler.precision.assign.set_precision import set_precision
from vlacompile.compiler.staging.observations import calibration, edges
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.hardware.target import load_target
from vlacompile.phases.read_inputs import resolve
from vlacompile.recipe.precision_recipe import PrecisionRecipe
from vlacompile.recipe.recipe import load_recipe
from vlart.bundle.directory import read_bundle
from vlart.bundle.precision_record import NOT_MEASURED, is_uncalibrated, require_calibrated
from vlart.errors import CalibrationError
from vlart.serve.policy_host import PolicyHost

INT8 = PrecisionRecipe(layers="auto", schemes=("int8",), max_action_error=0.3, minimise="bytes")


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 96), nn.GELU(), nn.Linear(96, 96), nn.GELU(), nn.Linear(96, 24))

    def forward(self, state):
        return {"action": self.net(state).reshape(1, 4, 6)}


class Eyes(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
                                 nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 28))

    def forward(self, image):
        return {"action": self.net(image.permute(0, 3, 1, 2).float() / 255).reshape(1, 4, 7)}


def states(count: int, seed: int = 3) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    return [{"state": 2 * torch.randn(1, 8, generator=draw)} for _ in range(count)]


def pictures(count: int, seed: int = 5) -> list[dict[str, torch.Tensor]]:
    """Smooth and dim, as cameras see a room."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        coarse = torch.rand(1, 3, 5, 5, generator=draw) * 0.25 + 0.05
        fine = nn.functional.interpolate(coarse, (32, 32),
                                         mode="bilinear") + 0.02 * torch.randn(1, 3, 32, 32, generator=draw)
        found.append({"image": (255 * fine.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()})
    return found


def mlp(recorded: int = 0) -> vc.Policy:
    return vc.Policy("mlp", Mlp().eval(), {"state": vc.Source("observation")}, states(1)[0],
                     calibration=tuple(states(recorded)))


def eyes(recorded: int = 0) -> vc.Policy:
    return vc.Policy("eyes", Eyes().eval(), {"image": vc.Source("observation")}, pictures(1)[0],
                     calibration=tuple(pictures(recorded)))


def staged_of(policy: vc.Policy, target: str = "orin-nano-8gb"):
    where = load_target(target)
    return verified(policy, where, resolve(load_recipe(None), policy)).staging.staged


def errors_of(policy: vc.Policy, inputs: list[dict], target: str = "orin-nano-8gb") -> tuple[float, float]:
    """(of the worst dimension, in units of its spread over these inputs; the greatest in units of the largest
    action)"""
    staged = staged_of(policy, target)
    made = StageRunner(set_precision(staged, policy, INT8, load_target(target), lambda phase: None).staged)
    want, got = (torch.cat([runner.run(x)["action"] for x in inputs]) for runner in (StageRunner(staged), made))
    off = got - want
    spread = want.flatten(0, 1).std(0) if len(inputs) > 1 else torch.ones(want.shape[-1])
    return float((off.square().mean((0, 1)).sqrt() / spread).max()), float(off.abs().max() / want.abs().max())


# what is generated


def test_generated_observations_are_as_large_as_the_example():
    found = calibration(mlp(), PrecisionRecipe(), 32)
    example = mlp().example_inputs["state"]
    assert len(found) == 32 and torch.equal(found[0]["state"], example)
    spread = torch.cat([x["state"] for x in found]).std(0)
    assert float(spread.min()) > 0.3 and 0.5 < float(spread.mean()) / float(example.abs().mean()) < 3
    assert all(torch.equal(a["state"], b["state"])
               for a, b in zip(found, calibration(mlp(), PrecisionRecipe(), 32), strict=True))


def test_numbers_of_different_units_keep_them():
    example = {"state": torch.tensor([[0.1, -0.5, 300.0]])}
    policy = vc.Policy("units", lambda state: {"action": state[:, None] * 2},
                       {"state": vc.Source("observation")}, example)
    seen = torch.cat([x["state"] for x in calibration(policy, PrecisionRecipe(), 32)])
    assert float(seen[:, :2].abs().max()) < 5 and float(seen[:, 2].std()) > 30


def test_edges_are_within_what_the_example_shows():
    policy = policies.late_fusion()
    found = dict(edges(policy))
    example = policy.example_inputs
    for name, tensor in example.items():
        seen = torch.stack([x[name] for x in found.values()])
        if tensor.dtype == torch.uint8:
            assert int(seen.min()) == 0 and int(seen.max()) == 255
            assert {len(x[name].unique()) for x in found.values()} >= {1}
        elif tensor.dtype == torch.bool:
            assert any(bool(x[name].all())
                       for x in found.values()) and any(int(x[name].sum()) == 1 for x in found.values())
        elif not tensor.is_floating_point():
            assert int(seen.min()) == min(0, int(tensor.min())) and int(seen.max()) == int(tensor.max())
    recorded = replace(policy, calibration=(example, example))
    assert all(torch.equal(x[n], t) for _, x in edges(recorded) for n, t in example.items() if t.dtype == torch.int64)


def test_what_the_policy_cannot_deal_with_is_left_out():
    """An id of 0 that divides, a mask that hides all that is counted."""
    class Divides(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 64), nn.Linear(64, 6)

        def forward(self, state, count):
            return {"action": self.b(self.a(state / count))[:, None]}

    policy = vc.Policy("divides", Divides().eval(),
                       {"state": vc.Source("observation"), "count": vc.Source("observation")},
                       {"state": torch.randn(1, 4), "count": torch.tensor([[3]])})
    found = observed(staged_of(policy), policy, PrecisionRecipe())
    assert len(found.edges) == 1 and int(found.edges[0]["count"]) == 3
    assert any("left out" in note and "lowest" in note for note in found.notes)


def test_ordinary_inputs_do_not_clip_without_data():
    inputs = states(60, seed=11)
    assert errors_of(mlp(), inputs)[0] < 0.1
    assert errors_of(mlp(32), inputs)[0] < 0.1


def test_a_margin_is_what_keeps_them_in_range(monkeypatch):
    """Negative control: ranges of near observations alone clip."""
    monkeypatch.setitem(observed_module.MARGIN, "generated", 0.0)
    monkeypatch.setattr(observed_module, "calibration", lambda policy, recipe, at_least: [
        {"state": policy.example_inputs["state"] * (1 + 0.01 * i)} for i in range(8)])
    assert errors_of(mlp(), states(60, seed=11))[0] > 0.1


@pytest.mark.parametrize("recorded", [0, 16])
@pytest.mark.parametrize("target", ["orin-nano-8gb", "host"])
def test_a_white_frame_is_in_range(recorded, target):
    policy, white = eyes(recorded), [{"image": torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)}]
    assert errors_of(policy, white, target)[1] < 0.02
    assert errors_of(policy, pictures(24, seed=12), target)[0] < 0.06


def test_without_edges_it_is_not(monkeypatch):
    """Negative control, and what the edges cost ordinary frames: less than half a step more."""
    white, ordinary = [{"image": torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)}], pictures(24, seed=12)
    wide = errors_of(eyes(16), ordinary)[0]
    monkeypatch.setattr(observed_module, "edges", lambda policy: [])
    assert errors_of(eyes(16), white)[1] > 0.025
    assert wide < 2 * errors_of(eyes(16), ordinary)[0] + 0.005


# what is said


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """{(policy, target, recorded): bundle in int8}"""
    folder = tmp_path_factory.mktemp("edges")
    recipe = folder / "r.toml"
    recipe.write_text('name = "r"\ndescription = ""\n[precision]\nlayers = "auto"\nschemes = ["int8"]\n'
                      'max_action_error = 0.3\nminimise = "bytes"\n', encoding="utf-8")
    made = {"mlp": mlp, "eyes": eyes}
    return {key: vc.build(made[key[0]](key[2]), target=key[1], recipe=str(recipe),
                          out=folder / f"{'-'.join(map(str, key))}.vlab")
            for key in (("mlp", "host", 0), ("mlp", "orin-nano-8gb", 0), ("mlp", "orin-nano-8gb", 16),
                        ("eyes", "host", 0),
                        ("eyes", "host", 16))}


UNCALIBRATED = {("mlp", "orin-nano-8gb", 0), ("eyes", "host", 0)}  # linears of the host take their ranges as they run


def test_a_manifest_says_whether_the_error_was_measured(bundles):
    for key, bundle in bundles.items():
        found = read_bundle(bundle.path).manifest["provenance"]["precision"]
        assert (key in UNCALIBRATED) == found["uncalibrated"] == is_uncalibrated(bundle), key
        assert (found["action_error"] is None) == (found["held_out_error"] is None) == found["uncalibrated"], key
        assert (found["recorded_observations"] > 0) == (key[2] > 0)
        assert found["static_int8_layers"] == 0 if key[:2] == ("mlp", "host") else found["static_int8_layers"] > 0
        told = any(p.error for s in bundle.plan.stages for p in s.precisions if p.scheme == "int8")
        assert told != found["uncalibrated"], "the plan's errors are measurements, or none"
    other = bundles["mlp", "host", 0].manifest["provenance"]["precision"]
    assert other["simulated"]["tensorrt"] is None and other["simulated"]["onnxruntime"] > 0


def test_errors_of_a_manifest_count_in_the_spread_that_it_states(tmp_path):
    """Those on held-out observations, too, which move less here than those that decide."""
    seen = states(8)
    seen[3] = seen[7] = {"state": seen[3]["state"] / 50}
    policy = vc.Policy("mlp", Mlp().eval(), {"state": vc.Source("observation")}, seen[0], calibration=tuple(seen))
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\ndescription = ""\n[precision]\nlayers = "int8"\n', encoding="utf-8")
    bundle = vc.build(policy, recipe=str(recipe), out=tmp_path / "mlp.vlab")
    found = bundle.manifest["provenance"]["precision"]
    deciding = [x for i, x in enumerate(seen) if i % 4 != 3]
    want, off = {}, {}
    with vc.Session(bundle.path, threads=1) as session, torch.no_grad():
        for key, inputs in (("action_error", deciding), ("held_out_error", [seen[3]])):
            got = []
            for x in inputs:
                session.write("state", x["state"])
                session.step()
                got.append(torch.from_numpy(session.read("action")))
            want[key] = torch.cat([policy.infer(**x)["action"] for x in inputs]).flatten(0, 1)
            off[key] = (torch.cat(got).flatten(0, 1) - want[key]).square().mean(0).sqrt()
    spread = torch.tensor(found["action_spread"])
    torch.testing.assert_close(spread, want["action_error"].std(0), rtol=1e-3, atol=0)
    for key, by_dimension in off.items():
        assert found[key] == pytest.approx(float((by_dimension / spread).max()), rel=0.1), key
    own = float((off["held_out_error"] / want["held_out_error"].std(0)).max())
    assert own > 2 * found["held_out_error"], "in its own spread it would be another number"


def test_notes_state_no_error_that_was_not_measured(bundles):
    for key, bundle in bundles.items():
        notes = " ".join(n for n in bundle.manifest["provenance"]["notes"] if n.startswith("precision: "))
        assert (f"precision: action error {NOT_MEASURED}" in notes) == (key in UNCALIBRATED), key
        assert ("measured error" in notes) == (key not in UNCALIBRATED), notes
        if key == ("mlp", "host", 0):
            assert "on generated observations" in notes
            assert f"tensorrt and simulated: action error {NOT_MEASURED}" in notes
        assert ("on calibration observations" in notes) == (key[2] > 0)


def test_inspect_says_it(bundles, cli):
    for key, bundle in bundles.items():
        _, out, _ = cli("inspect", bundle.path)
        assert (f"\naction error {NOT_MEASURED}\n" in out) == (key in UNCALIBRATED), key
        assert "r was asked" in out and "int8: " in out
        _, out, _ = cli("inspect", bundle.path, "--json")
        assert json.loads(out)["provenance"]["precision"]["uncalibrated"] == (key in UNCALIBRATED)


def test_a_report_says_it(bundles, cli, tmp_path):
    for key in (("eyes", "host", 0), ("eyes", "host", 16)):
        page = tmp_path / f"{key[2]}.html"
        code, _, err = cli("report", bundles[key].path, "-o", page)
        assert code == 0, err
        assert (f"; action error {NOT_MEASURED};" in page.read_text(encoding="utf-8")) == (key in UNCALIBRATED)


# who is refused it


def test_flash_refuses_it_before_it_connects(bundles, cli):
    for key in (("mlp", "orin-nano-8gb", 0), ("mlp", "orin-nano-8gb", 16)):
        code, _, err = cli("flash", bundles[key].path, "nobody@host.invalid")
        assert code == (11 if key in UNCALIBRATED else 12), err
        if key in UNCALIBRATED:
            assert NOT_MEASURED in err and "--uncalibrated" in err and "Policy(calibration=...)" in err
    code, _, err = cli("flash", bundles["mlp", "orin-nano-8gb", 0].path, "nobody@host.invalid", "--uncalibrated")
    assert code == 12, err


def test_a_fleet_is_refused_it_too(bundles, cli, tmp_path):
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[host]]\nname = "nobody@host.invalid"\n', encoding="utf-8")
    assert cli("flash", bundles["mlp", "orin-nano-8gb", 0].path, "--fleet", fleet)[0] == 11


def test_serve_refuses_it(bundles):
    with pytest.raises(CalibrationError, match="not measured"):
        PolicyHost(bundles["eyes", "host", 0].path)
    PolicyHost(bundles["eyes", "host", 0].path, uncalibrated=True).stop()
    PolicyHost(bundles["eyes", "host", 16].path).stop()


def test_a_bundle_of_before_is_not_refused(bundles):
    bundle = bundles["eyes", "host", 0]
    older = {k: v for k, v in bundle.manifest["provenance"].items() if k != "precision"}
    require_calibrated(replace(bundle, manifest=bundle.manifest | {"provenance": older}), False)


def test_full_precision_says_nothing_of_it(flow_bundle, cli):
    assert flow_bundle.manifest["provenance"]["precision"] is None
    _, out, _ = cli("inspect", flow_bundle.path)
    assert "was asked" not in out and "action error" not in out


def test_what_was_seen_is_what_was_recorded(bundles):
    assert np.isfinite(bundles["eyes", "host", 16].manifest["provenance"]["precision"]["action_error"])
