"""Real-time chunking added by the compiler to a flow whose function knows nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.compiler.staging.test_roll_loop import SAMPLERS, denoising
from vlacompile.compiler.staging.guide_flow import CHUNK, PREVIOUS, WEIGHTS, guidance_factors
from vlacompile.policy import action_decoding as dec
from vlacompile.policy.iterations import iterations
from vlart.errors import StagingError

H, D, WIDE, STEPS = 8, 3, 5, 6


class Flow(nn.Module):
    """Euler's method over a wide sample, of which the first D columns are the actions before un-normalisation. time: 1
    -> 0 with the velocity noise - clean, or 0 -> 1 with clean - noise."""

    def __init__(self, forward_in_time: bool, unrolled: bool, minus: bool):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDE + 5, 32), nn.Tanh(), nn.Linear(32, WIDE))
        self.std, self.mean = nn.Buffer(torch.tensor([2.0, 0.5, 3.0])), nn.Buffer(torch.tensor([1.0, -1.0, 0.0]))
        self.forward_in_time, self.unrolled, self.minus = forward_in_time, unrolled, minus

    def velocity(self, x: torch.Tensor, state: torch.Tensor, k: int) -> torch.Tensor:
        time = torch.full((1, H, 1), 0.3 * k)
        return self.net(torch.cat([x, state[:, None].expand(1, H, 4), time], -1)) * 2

    def forward(self, state, noise):
        dt, x = 1 / STEPS if self.forward_in_time else -1 / STEPS, noise
        for k in (range(STEPS) if self.unrolled else iterations(STEPS)):
            v = self.velocity(x, state, k)
            x = x - v / STEPS if self.minus else x + dt * v
        return {"action": x[:, :, :D] * self.std + self.mean}

    def guided(self, state, noise, previous, weights, most: float = 10.0):
        """The same with guidance written out, in the direction of either time. Returns (actions, normalised chunk)."""
        x = noise
        target = torch.zeros_like(noise)
        target[:, :, :D] = previous
        for k in range(STEPS):
            v = self.velocity(x, state, k)
            towards_clean = v if self.forward_in_time else -v
            tau = k / STEPS
            estimate = x + (1 - tau) * towards_clean
            ratio = float("inf") if k == 0 else (1 - tau) / tau
            factor = min(most, ratio * (tau**2 + (1 - tau) ** 2) / (1 - tau) ** 2)
            towards_clean = towards_clean + factor * weights.reshape(1, H, 1) * (target - estimate)
            x = x + towards_clean / STEPS
        return x[:, :, :D] * self.std + self.mean, x[:, :, :D]


def flow_policy(forward_in_time: bool = False, unrolled: bool = False, minus: bool = False, **fields) -> vc.Policy:
    torch.manual_seed(0)
    return vc.Policy("flow", Flow(forward_in_time, unrolled, minus).eval().requires_grad_(False),
                     {"state": vc.Source("observation"), "noise": vc.Source("step")},
                     {"state": torch.randn(1, 4), "noise": torch.randn(1, H, WIDE)}, **fields)


@pytest.fixture
def recipe(tmp_path):
    def write(text: str = "", action: str = "delay = 2\nexecute = 3") -> str:
        path = tmp_path / "recipe.toml"
        path.write_text(f'name = "r"\ndescription = "d"\n[action]\nconsume = "realtime"\n{action}\n{text}\n')
        return str(path)
    return write


@pytest.mark.parametrize("form", ["steps", "fused"])
@pytest.mark.parametrize("policy", [{}, {"unrolled": True}, {"forward_in_time": True}, {"minus": True}],
                         ids=["to-0", "to-0-written-out", "to-1", "to-0-by-minus"])
def test_a_flow_is_guided_by_its_last_chunk(tmp_path, recipe, policy, form):
    policy = flow_policy(**policy)
    bundle = vc.build(policy, recipe=recipe(f'[loop]\nform = "{form}"'), out=tmp_path / "a.vlab")
    rng = np.random.default_rng(0)
    left = np.zeros((0, D), np.float32)
    with vc.Session(bundle.path) as session:
        for replan in range(6):
            state, noise = (torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((1, 4), (1, H, WIDE)))
            session.write("state", state)
            session.write("noise", noise)
            taken = [session.pop() for _ in range(2)] if replan else []
            session.step()
            previous, weights = torch.zeros(1, H, D), torch.zeros(H)
            previous[0, : len(left)] = torch.from_numpy(left)
            start, end = min(2, len(left)), min(H - 3, len(left))
            weights[:start] = 1
            weights[start:end] = torch.linspace(1, 0, end - start + 2)[1:-1]
            np.testing.assert_allclose(session.read(PREVIOUS), previous, atol=1e-5)
            np.testing.assert_allclose(session.read(WEIGHTS).ravel(), weights, atol=1e-6)
            want, chunk = policy.observe.guided(state, noise, previous, weights)
            np.testing.assert_allclose(session.read("action"), want, atol=2e-5)
            np.testing.assert_allclose(session.read(CHUNK), chunk, atol=2e-5)
            plain = policy.infer(state=state, noise=noise)["action"]
            if replan == 0:
                np.testing.assert_allclose(session.read("action"), plain, atol=2e-5)
            else:
                assert (want - plain).abs().max() > 0.1, "control: guidance changes the chunk"
                last = (np.stack(taken) - policy.observe.mean.numpy()) / policy.observe.std.numpy()
                np.testing.assert_allclose(chunk[0, :2], last, atol=0.2)
            [session.pop() for _ in range(1)]
            left = chunk[0, len(taken) + 1:].numpy()


def test_a_written_chunk_is_taken_instead_of_the_last(tmp_path, recipe):
    """A host may say what is left of a chunk and how much it counts; the bound of the factor is the recipe's."""
    policy = flow_policy()
    bounded = recipe(action="delay = 2\nexecute = 3\nmax_guidance = 1.5")
    bundle = vc.build(policy, recipe=bounded, out=tmp_path / "a.vlab")
    draw = torch.Generator().manual_seed(1)
    state, noise, previous = (torch.randn(s, generator=draw) for s in ((1, 4), (1, H, WIDE), (1, H, D)))
    weights = torch.tensor([1, 1, 1, 0.5, 0.5, 0, 0, 0]).reshape(1, H, 1)
    written = {"state": state, "noise": noise, PREVIOUS: previous, WEIGHTS: weights}
    with vc.Session(bundle.path) as session:
        for name, tensor in written.items():
            session.write(name, tensor)
        session.step()
        found = session.read("action")
    np.testing.assert_allclose(found, policy.observe.guided(state, noise, previous, weights, 1.5)[0], atol=2e-5)
    assert np.abs(found - policy.observe.guided(state, noise, previous, weights)[0].numpy()).max() > 0.01, "control"


@pytest.mark.parametrize("minus", [False, True])
def test_a_guided_flow_may_have_fewer_evaluations(tmp_path, recipe, minus):
    """The guidance is that of the iterations that are left; the distance is within what was allowed, or near it."""
    policy = flow_policy(minus=minus)
    bundle = vc.build(policy, recipe=recipe("[loop]\nmax_action_error = 0.3"), out=tmp_path / "a.vlab")
    sampling = next(s.sampling for s in bundle.plan.stages if s.sampling is not None)
    assert sampling.iterations < STEPS == sampling.written
    wants, founds = [], []
    with vc.Session(bundle.path) as session:
        for seed in range(8):
            draw = torch.Generator().manual_seed(seed)
            state, noise = (torch.randn(s, generator=draw) for s in ((1, 4), (1, H, WIDE)))
            previous, weights = torch.randn(1, H, D, generator=draw), torch.linspace(1, 0, H).reshape(1, H, 1)
            for name, tensor in {"state": state, "noise": noise, PREVIOUS: previous, WEIGHTS: weights}.items():
                session.write(name, tensor)
            session.step()
            founds.append(session.read("action")[0])
            wants.append(policy.observe.guided(state, noise, previous, weights)[0][0].numpy())
    error = np.sqrt(((np.array(founds) - wants) ** 2).mean((0, 1))) / np.std(wants, (0, 1))
    assert 0 < error.max() < 2 * sampling.budget


def test_ranges_of_recordings_are_of_what_was_recorded(tmp_path, recipe):
    """The rest of a chunk may lie outside of what an example had, and is not refused for it."""
    recorded = tuple({"state": torch.randn(1, 4), "noise": torch.randn(1, H, WIDE)} for _ in range(3))
    bundle = vc.build(flow_policy(calibration=recorded), recipe=recipe('[safety]\nranges = "calibration"'),
                      out=tmp_path / "a.vlab")
    assert [bundle.plan.values[g.source].name for g in bundle.plan.guards if g.low] == ["state"]
    with vc.Session(bundle.path) as session:
        for scale in (1.0, 50.0, 1.0):
            session.write("state", recorded[0]["state"])
            session.write("noise", recorded[0]["noise"] * scale)
            session.step()
            assert np.isfinite(session.pop()).all()


def no_loop(state, noise):
    return {"action": noise[:, :, :D] * state[:, None, :D]}


def moved(state, noise):
    """Joint angles relative to the state."""
    x = noise
    for _ in range(4):
        x = x + 0.25 * torch.tanh(x * state[:, None, :1])
    return {"action": x[:, :, :D] + state[:, None, :D]}


def started_by_the_state(state, noise):
    x = noise + state[:, None, :1]
    for _ in range(4):
        x = x + 0.25 * torch.tanh(x * state[:, None, :1])
    return {"action": x[:, :, :D]}


def cut_late(state, noise):
    x = noise
    for _ in range(4):
        x = x + 0.25 * torch.tanh(x * state[:, None, :1])
    return {"action": torch.cumsum(x, 1)[:, 2:, :D]}


def plain(observe, **fields) -> vc.Policy:
    policy = flow_policy()
    return vc.Policy("plain", observe, policy.sources, policy.example_inputs, **fields)


RELATIVE = dec.Decoder((dec.Delta("state", (0, 1, None)),))


@pytest.mark.parametrize(("policy", "why", "line"), [
    (lambda: plain(no_loop), "there are 0 loops", 'return {"action": noise[:, :, :D] * state'),
    (lambda: plain(moved), "depend on state beside the sample", "return"),
    (lambda: plain(started_by_the_state), "does not begin with noise", "return"),
    (lambda: plain(cut_late), "is not cut to the steps of the chunk", "return"),
    (lambda: flow_policy(decoder=RELATIVE), "relative to the state", "return"),
    (lambda: denoising(SAMPLERS["ddim-10"]), "is not sampled by Euler", ""),
], ids=["no-loop", "relative", "begins-otherwise", "cut", "relative-decoder", "diffusion"])
def test_what_is_not_a_flow_is_refused(tmp_path, recipe, policy, why, line):
    with pytest.raises(StagingError, match="cannot be added") as caught:
        vc.build(policy(), recipe=recipe(), out=tmp_path / "a.vlab")
    assert why in caught.value.why and line in caught.value.where and "action" in caught.value.where
    assert len(str(caught.value).splitlines()) == 4 and not (tmp_path / "a.vlab").exists()


def test_what_the_refusal_recommends_works(tmp_path, recipe):
    bundle = vc.build(plain(no_loop), recipe=recipe(action="delay = 2\nexecute = 3\nmax_guidance = 0"),
                      out=tmp_path / "a.vlab")
    assert bundle.plan.action.consume.previous is None and bundle.plan.action.consume.delay == 2


def test_a_flow_that_is_not_guided_is_not_changed(tmp_path, recipe):
    bundle = vc.build(flow_policy(), recipe=recipe(action="delay = 2\nexecute = 3\nmax_guidance = 0"),
                      out=tmp_path / "a.vlab")
    assert [bundle.plan.values[s.value].name for s in bundle.plan.sources] == ["state", "noise"]


def test_the_factor_is_the_papers():
    """At tau = 0 it is bounded, in the middle it is 1 * (0.25 + 0.25) / 0.25; in another unit of time it is as much
    smaller."""
    factors, left = guidance_factors((0.25,) * 4, 10.0)
    assert factors[0] == 10 and factors[2] == pytest.approx(2) and left == pytest.approx([1, 0.75, 0.5, 0.25])
    slower, _ = guidance_factors((-2.0,) * 4, 10.0)
    assert slower == pytest.approx([f / -8 for f in factors])
