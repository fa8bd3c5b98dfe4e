"""Chunks whose numbers are near and whose motion is not are told apart, and a limit of it holds in the search."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.compiler.precision.assign.stand_ins import NUMERICS
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.precision.assign.assign import assign, split
from vlacompile.compiler.precision.assign.chunk_jerk import STILL, jerk, times_as_jerky
from vlacompile.compiler.precision.assign.sensitivity import Trial
from vlacompile.compiler.staging.action_scale import ActionScale
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.precision_recipe import PrecisionRecipe, PrecisionRule
from vlacompile.recipe.recipe import LoopRecipe, StagesRecipe, load_recipe
from vlart.errors import BudgetError, ConfigError

HOST, H, D = load_target("host"), 16, 2
RECIPE = PrecisionRecipe(layers="auto", schemes=("int8", "int4"), max_action_error=10.0, minimise="bytes",
                         rule=(PrecisionRule("*", "auto"),))


def test_jerk_is_the_third_difference():
    t = torch.arange(H, dtype=torch.float64)
    chunk = torch.stack([t**3, t**2], dim=1)[None]
    torch.testing.assert_close(jerk([chunk], torch.tensor([2.0, 1.0])), torch.tensor([3.0, 0.0], dtype=torch.float64),
                               atol=1e-9, rtol=0)
    assert jerk([chunk[:, :3]], torch.ones(D)) is None and jerk([torch.ones(5)], torch.ones(1)) is None


def test_a_shift_is_no_jerk_and_a_zigzag_of_the_same_error_is():
    t = torch.linspace(0, 3, H, dtype=torch.float64)
    want = [torch.stack([torch.sin(t + k), torch.cos(t + k)], dim=1)[None] for k in range(5)]
    scale = ActionScale.of(want)
    shifted = [w + 0.01 * scale.spread for w in want]
    zigzag = [w + 0.01 * scale.spread * (-1.0) ** torch.arange(H)[:, None] for w in want]
    torch.testing.assert_close(scale.errors(shifted, want), scale.errors(zigzag, want))
    assert float(times_as_jerky(shifted, want, scale.spread).max()) == pytest.approx(1, abs=1e-6)
    assert float(times_as_jerky(zigzag, want, scale.spread).min()) > 5


def test_what_stands_still_in_both_is_not_jerky():
    want = [torch.zeros(1, H, D) + torch.randn(1, 1, D) for _ in range(4)]
    spread = ActionScale.of(want).spread
    still = [w + 0.1 * STILL * torch.randn(1, H, D) * spread.float() for w in want]
    assert times_as_jerky(still, want, spread).tolist() == [1.0, 1.0]
    assert float(times_as_jerky([w * torch.nan for w in want], want, spread).max()) == torch.inf


class Drawn(nn.Module):
    """A smooth curve, plus what a wide layer gives to every row alike, plus a little that another one gives to each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.alike, self.each = nn.Linear(64, 256), nn.Linear(64, 256)
        self.shift, self.rows = nn.Linear(256, D), nn.Linear(256, H * D)
        self.curve = nn.Buffer(torch.linspace(0, 1, H)[None, :, None] ** 2)
        smooth = torch.linspace(0, 3, H)
        with torch.no_grad():  # rows that are a smooth function of the features
            basis = torch.stack([torch.sin(smooth + k) for k in range(256)], dim=1)  # [H,256]
            self.rows.weight.copy_((basis[:, None, :] * torch.randn(1, D, 256) / 64).reshape(H * D, 256))
            self.rows.bias.zero_()

    def forward(self, state):
        base = self.shift(torch.tanh(self.alike(state)))[:, None, :]
        return {"action": base + self.curve + self.rows(torch.tanh(self.each(state))).reshape(1, H, D)}


@pytest.fixture(scope="module")
def drawn():
    policy = vc.Policy("drawn", Drawn().eval(), {"state": vc.Source("observation")}, {"state": torch.ones(1, 64)})
    recipe = replace(load_recipe(None), stages=StagesRecipe(None), loop=LoopRecipe())
    rng = torch.Generator().manual_seed(1)
    seen = [{"state": torch.randn(1, 64, generator=rng)} for _ in range(12)]
    return stage(capture(policy), HOST, recipe, policy).staged, seen


def test_a_mix_that_is_too_jerky_is_rejected_and_the_notes_say_so(drawn):
    staged, seen = drawn
    fit, held = split(seen)
    free = assign(staged, HOST, RECIPE, fit, held, NUMERICS)
    assert free.jerk > 1.5 and free.max_jerk is None
    limit = 1 + (free.jerk - 1) / 4
    calm = assign(staged, HOST, replace(RECIPE, max_jerk=limit), fit, held, NUMERICS)
    assert 1 <= calm.jerk <= limit == calm.max_jerk and calm.chosen.bytes > free.chosen.bytes
    assert any("too jerky" in note and f"{limit:g} allowed" in note for note in calm.notes), calm.notes
    assert calm.worst < free.worst <= RECIPE.max_action_error  # the error alone would have allowed it
    measured = Trial(staged, fit, NUMERICS).measure(calm.schemes)
    assert measured.jerkiest == pytest.approx(calm.jerk)


def test_a_limit_that_cannot_be_met_says_what_can(drawn):
    staged, seen = drawn
    fixed = PrecisionRecipe(layers="int4", max_jerk=1.0001, rule=(PrecisionRule("*", "int4"),))
    with pytest.raises(BudgetError) as caught:
        assign(staged, HOST, fixed, seen, [], NUMERICS)
    assert caught.value.reachable["max_jerk"] > 1.5 and "max_jerk = " in caught.value.fix
    assert "times as jerky" in caught.value.why
    met = assign(staged, HOST, replace(fixed, max_jerk=1.01 * caught.value.reachable["max_jerk"]), seen, [], NUMERICS)
    assert met.jerk == pytest.approx(caught.value.reachable["max_jerk"])


def test_chunks_without_jerk_cannot_be_limited():
    class Short(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 256), nn.Linear(256, 6)

        def forward(self, state):
            return {"action": self.b(torch.tanh(self.a(state))).reshape(1, 3, 2)}

    policy = vc.Policy("short", Short().eval(), {"state": vc.Source("observation")}, {"state": torch.ones(1, 64)})
    staged = stage(capture(policy), HOST, load_recipe(None), policy).staged
    seen = [{"state": torch.randn(1, 64)} for _ in range(4)]
    with pytest.raises(ConfigError, match="jerk") as caught:
        assign(staged, HOST, replace(RECIPE, max_jerk=1.2), seen, [], NUMERICS)
    assert "[1, 3, 2]" in caught.value.why and "max_jerk" in caught.value.fix
    assert assign(staged, HOST, RECIPE, seen, [], NUMERICS).jerk is None


def test_a_build_tells_it_and_keeps_the_limit(tmp_path):
    torch.manual_seed(0)
    policy = vc.Policy("drawn", Drawn().eval(), {"state": vc.Source("observation")}, {"state": torch.randn(1, 64)},
                       calibration=tuple({"state": torch.randn(1, 64)} for _ in range(12)))
    body = ('name = "r"\ndescription = "r"\n[precision]\nlayers = "int4"\n{}\n[[precision.rule]]\nlayers = "*"\n'
            'scheme = "int4"\n')
    (tmp_path / "r.toml").write_text(body.format(""))
    made = vc.build(policy, recipe=str(tmp_path / "r.toml"), out=tmp_path / "a.vlab")
    told = made.manifest["provenance"]["precision"]
    assert told["jerk"] > 1.2 and told["max_jerk"] is None and told["held_out_jerk"] > 1
    (tmp_path / "r.toml").write_text(body.format("max_jerk = 1.05"))
    with pytest.raises(BudgetError, match="times as jerky"):
        vc.build(policy, recipe=str(tmp_path / "r.toml"), out=tmp_path / "b.vlab")
    assert not (tmp_path / "b.vlab").exists()
