"""Bundles whose steps take something from the step before, beside what else a policy may have: loops, histories, every
dtype, reduced precision. Each is followed for more steps than its golden frames have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from vlart.errors import ConfigError

WIDTH, CHUNK, STEPS = 32, 4, 24
SPREAD = 0.05  # share of an output's spread that int8 may cost


class Remembers(nn.Module):
    """An LSTM over two frames' features, whose state a denoising loop starts beside."""

    def __init__(self, iterations: int):
        super().__init__()
        self.iterations = iterations
        self.see, self.cell = nn.Linear(8, WIDTH), nn.LSTMCell(2 * WIDTH, WIDTH)
        self.mix, self.head = nn.Linear(WIDTH + 3, WIDTH), nn.Linear(WIDTH, 3)
        self.register_buffer("times", torch.linspace(0, 1, max(2, iterations)))

    def forward(self, frames, noise, hidden, cell):
        seen = self.see(frames).tanh().flatten(1)
        hidden, cell = self.cell(seen, (hidden, cell))
        x = noise
        for k in vc.iterations(self.iterations):
            h = self.mix(torch.cat([hidden[:, None].expand(1, CHUNK, WIDTH), x], -1)).tanh() * (1 + self.times[k])
            x = x + self.head(h) / self.iterations
        return {"action": x, "hidden.next": hidden, "cell.next": cell}


def remembers(iterations: int = 6) -> vc.Policy:
    torch.manual_seed(0)
    zeros = torch.zeros(1, WIDTH)
    draw = torch.Generator().manual_seed(1)
    policy = vc.Policy(
        "remembers", Remembers(iterations).eval(),
        {"frames": vc.Source("observation", history=2), "noise": vc.Source("step")},
        {"frames": torch.randn(1, 2, 8), "noise": torch.randn(1, CHUNK, 3)},
        carried={"hidden": vc.Carried("hidden.next", initial=zeros), "cell": vc.Carried("cell.next", initial=zeros)})
    seen = tuple({"frames": torch.randn(1, 2, 8, generator=draw), "noise": torch.randn(1, CHUNK, 3, generator=draw)}
                 for _ in range(16))
    return replace(policy, calibration=seen)


def followed(bundle: vc.Bundle, policy: vc.Policy, steps: int = STEPS, reset: int = 13, forget: bool = True) \
        -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{value: (libvlart's, PyTorch's), per step}. reset: the step before which another episode begins; forget: in
    PyTorch too."""
    draw, carried, found = torch.Generator().manual_seed(7), {}, {n: ([], []) for n in policy.returned}
    window: dict[str, torch.Tensor] = {}
    with vc.Session(bundle.path, threads=1) as session, torch.no_grad():
        for step in range(steps):
            if step == reset:
                session.reset()
                carried, window = ({}, {}) if forget else (carried, {})
            given: dict[str, torch.Tensor] = {}
            for name, source in policy.sources.items():
                example = policy.example_inputs[name]
                example = example[:, -1] if source.history > 1 else example
                newest = torch.randn(example.shape, generator=draw)
                session.write(name, newest)
                if source.history > 1:
                    last = window.get(name, torch.stack([newest] * source.history, 1))
                    newest = window[name] = torch.cat([last[:, 1:], newest[:, None]], 1)
                given[name] = newest
            session.step()
            values = policy.infer(**given, **carried)
            carried = policy.handed_on(values)
            for name, (got, want) in found.items():
                got.append(session.read(name))
                want.append(values[name].float().numpy())
    return {n: (np.concatenate(g), np.concatenate(w)) for n, (g, w) in found.items()}


def error(pairs: tuple[np.ndarray, np.ndarray]) -> float:
    got, want = pairs
    return float(np.abs(got - want).max() / want.std())


@pytest.mark.parametrize("form", ["steps", "fused"])
def test_beside_a_loop_and_a_history(tmp_path, form):
    (tmp_path / "r.toml").write_text(f'name = "r"\ndescription = "r"\n[loop]\nform = "{form}"\n')
    policy = remembers()
    bundle = vc.build(policy, recipe=str(tmp_path / "r.toml"), out=tmp_path / "b.vlab")
    assert (max(s.iterations for s in bundle.plan.stages) > 1) == (form == "steps")
    assert all(error(pairs) < 1e-4 for pairs in followed(bundle, policy).values())
    assert error(followed(bundle, policy, forget=False)["hidden.next"]) > 1e-2


@pytest.mark.parametrize("recipe, allowed", [("fp16", 0.02), ("int8", 3 * SPREAD)])
def test_in_reduced_precision_the_state_stays_f32_and_does_not_drift_away(tmp_path, recipe, allowed):
    policy = remembers()
    bundle = vc.build(policy, recipe=recipe, out=tmp_path / "b.vlab")
    kept = {bundle.plan.values[c.value].type.dtype for c in bundle.plan.carried}
    assert kept == {"f32"}
    found = followed(bundle, policy, steps=100, reset=50)
    early, late = ({n: error((g[part], w[part])) for n, (g, w) in found.items()}
                   for part in (slice(0, 10), slice(40, 50)))
    assert all(e < allowed for e in (*early.values(), *late.values())), (early, late)
    report = vc.verify(bundle.path).require()
    assert report.steps == 8 and {"hidden.next", "cell.next"} <= {v.value for v in report.values}


KINDS = {"f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64, "u8": torch.uint8, "i32": torch.int32,
         "bool": torch.bool}


def test_every_dtype_is_kept_as_it_is_or_in_f32(tmp_path):
    def step(x, **kept):
        found = {}
        for name, value in kept.items():
            if value.dtype is torch.bool:
                found[f"{name}.next"] = value ^ (x[:, :2] > 0)
            elif value.is_floating_point():
                found[f"{name}.next"] = (0.5 * value + x[:, :2]).to(value.dtype)
            else:
                found[f"{name}.next"] = value + 3
        total = sum(v.to(torch.float32).sum() for v in found.values())
        return {"action": (x + 0.01 * total)[:, None], **found}

    carried = {n: vc.Carried(f"{n}.next", initial=torch.ones(1, 2).to(dtype)) for n, dtype in KINDS.items()}
    policy = vc.Policy("kinds", step, {"x": vc.Source("observation")}, {"x": torch.randn(1, 3)}, carried=carried)
    bundle = vc.build(policy, out=tmp_path / "k.vlab")
    kinds = {bundle.plan.values[c.value].name: bundle.plan.values[c.value].type.dtype for c in bundle.plan.carried}
    assert kinds == {"f16": "f32", "bf16": "f32", "f64": "f32", "u8": "u8", "i32": "i32", "bool": "bool"}
    for name, (got, want) in followed(bundle, policy).items():
        np.testing.assert_allclose(got, want, rtol=1e-2 if name in ("bf16.next", "action") else 2e-3, atol=2e-2)


@pytest.mark.parametrize("acts", [True, False])
def test_lanes_carry_nothing(tmp_path, acts):
    """acts: the action depends on it, so that the control loop's stage would have the lane's source too."""
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.slow, self.fast = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, plan, x, kept):
            kept = self.slow(plan + kept)
            return {"action": (self.fast(x) + (kept if acts else 0))[:, None], "kept.next": kept}

    lane = '[[lane]]\nname = "slow"\nclock_hz = 5\nsources = ["plan"]\nmax_age_ms = 500\n'
    (tmp_path / "r.toml").write_text(f'name = "r"\ndescription = "r"\n[stages]\nmin_flops = 0\n{lane}')
    policy = vc.Policy("two", Two().eval(), {n: vc.Source("observation") for n in ("plan", "x")},
                       {n: torch.randn(1, 4) for n in ("plan", "x")},
                       carried={"kept": vc.Carried("kept.next", initial=torch.zeros(1, 4))})
    words = "no stage runs in lane" if acts else '"kept" cannot be carried in lane "slow"'
    with pytest.raises(ConfigError, match=words) as refused:
        vc.build(policy, recipe=str(tmp_path / "r.toml"), out=tmp_path / "t.vlab")
    assert "plan" in refused.value.why
