"""Derivatives that a policy takes while it acts: samplers guided by a gradient, corrections of a chunk in flight.
PyTorch's own derivatives say what is right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.samples.live import worst
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute, op_name
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encode = nn.Linear(8, 16)
        self.flow = nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 8))


NET = Net().eval()


def velocity(x, state):
    return NET.flow(torch.cat([x, NET.encode(state)], -1))


def error(x, state):
    return (velocity(x, state)[:, :3] - 0.5).pow(2).sum()


def by_autograd(x, state):
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        slope, = torch.autograd.grad(error(x, state), x)
    return x - slope


def of_the_input_itself(x, state):
    with torch.enable_grad():
        x.requires_grad_(True)
        slope, = torch.autograd.grad(error(x, state), x)
    return (x - slope).detach()


def backwards(x, state):
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        error(x, state).backward()
    return x.grad


def a_chunk_in_flight(x, state):
    """Real-time chunking: the velocity is corrected so that the beginning of the chunk stays what it was."""
    for k in range(3):
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            v = velocity(x, state)
            final = x + (1 - k / 3) * v
            off = (state - final) * torch.linspace(1, 0, 8)
            correction, = torch.autograd.grad(final, x, off.detach(), retain_graph=False)
        x = x + (v + correction) / 3
    return x


def second_derivatives(x, state):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        slope, = torch.autograd.grad(error(x, state), x, create_graph=True)
        bend, = torch.autograd.grad(slope.pow(2).sum(), x)
    return bend


def vjp(x, state):
    y, back = torch.func.vjp(velocity, x, state)
    return y + back(torch.ones_like(y))[1]


def grad_and_value(x, state):
    slope, (value, aux) = torch.func.grad_and_value(lambda x: (error(x, state), x * 2), has_aux=True)(x)
    return slope + value + aux


def grad_of_grad(x, state):
    return torch.func.grad(lambda x: torch.func.grad(error)(x, state).pow(2).sum())(x)


def jacobian(x, state):
    of_both = torch.autograd.functional.jacobian(error, (x, state))
    return torch.func.jacrev(velocity)(x, state)[0, :, 0] @ x.T + of_both[1]


def of_a_constant(x, state):
    gain = torch.ones(8)
    return torch.func.grad(lambda g: error(x * g, state))(gain)[None]


def of_a_weight(x, state):
    def size(weight):
        return torch.func.functional_call(NET.encode, {"weight": weight, "bias": NET.encode.bias}, state).pow(2).sum()

    return torch.func.grad(size)(NET.encode.weight)[:8].T


FUNCTIONS = [by_autograd, of_the_input_itself, backwards, a_chunk_in_flight, second_derivatives, vjp, grad_and_value,
             grad_of_grad, jacobian, of_a_constant, of_a_weight]


def policy(function) -> Policy:
    shown = {"x": Source("step"), "state": Source("observation")}
    draw = torch.Generator().manual_seed(1)
    return Policy("p", lambda x, state: {"action": function(x, state)}, shown,
                  {n: torch.randn(1, 8, generator=draw) for n in shown})


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_derivatives_are_pytorchs(function):
    of = policy(function)
    program = capture(of)
    for seed in range(2):
        inputs = {n: torch.randn(1, 8, generator=torch.Generator().manual_seed(seed + k)) for k, n in enumerate("xs")}
        inputs = {"x": inputs["x"], "state": inputs["s"]}
        want = of.infer(**{n: t.clone() for n, t in inputs.items()})["action"].detach()
        got = execute(program, inputs)[0]["action"]
        assert (got - want).abs().max() <= 1e-5 * max(1, want.abs().max()) and want.abs().max() > 1e-3
    assert all(p.requires_grad for p in NET.parameters())


def test_without_derivatives_the_result_is_another():
    """The control: the comparison above sees a slope of zero."""
    of, without = policy(by_autograd), policy(lambda x, state: x * 1)
    x = torch.randn(1, 8)
    assert (of.infer(x=x, state=x)["action"] - without.infer(x=x, state=x)["action"]).abs().max() > 1e-3


def test_layers_of_which_no_derivative_is_asked_are_recorded_whole():
    """What is quantised and put on tensor cores is recognised by its op."""
    def function(x, state):
        with torch.enable_grad():
            seen = NET.encode(state)
            x = x.detach().requires_grad_()
            slope, = torch.autograd.grad((NET.flow(torch.cat([x, seen], -1)) - 0.5).pow(2).sum(), x)
        return slope

    ops = [op_name(n.target) for n in capture(policy(function)).graph.nodes if n.op == "call_function"]
    assert ops.count("linear") == 1 and any("mm" in op for op in ops)


class Layers(nn.Module):
    """One of each kind that networks are made of; a gradient goes through all."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.up = nn.Conv1d(1, 8, 3, padding=1), nn.ConvTranspose1d(8, 8, 4, 2, 1)
        self.group, self.batch = nn.GroupNorm(2, 8), nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, norm_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, x):
        y = self.up(F.mish(self.group(self.conv(x[:, None]))))
        y = F.silu(self.batch(F.avg_pool1d(y, 2)) + F.max_pool1d(y, 2)).transpose(1, 2)
        y = y + self.attention(y, y, y, need_weights=False)[0]
        q = self.layer(y).unflatten(-1, (2, 4)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2).flatten(2)
        return (F.softplus(F.elu(F.relu(y) + y.sigmoid() * 0.1)) + F.normalize(y, dim=-1)).amax(1) @ self.out.weight.T


@pytest.mark.parametrize(("target", "limit"), [("host", 1e-5), ("orin-nano-8gb", 2e-2)])
def test_through_layers_and_libvlart(tmp_path, target, limit):
    layers = Layers().eval()

    def function(x, state):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            slope, = torch.autograd.grad(layers(x + 0.1 * state).sum(), x)
        return (x - slope)[:, None]

    assert worst(lambda: policy(function), tmp_path / "p.vlab", target=target) < limit


def forward_mode(x, state):
    return torch.func.jvp(lambda x: velocity(x, state), (x,), (state,))[1]


def within_vmap(x, state):
    return torch.func.vmap(torch.func.grad(lambda x: error(x[None], state)))(x.repeat(3, 1))


@pytest.mark.parametrize("function", [forward_mode, within_vmap], ids=lambda f: f.__name__)
def test_what_the_tracer_does_not_follow_is_refused_with_its_line(function):
    with pytest.raises(CaptureError, match="torch.func") as raised:
        capture(policy(function))
    assert "test_gradients.py" in raised.value.where and "torch.autograd.grad" in raised.value.fix
