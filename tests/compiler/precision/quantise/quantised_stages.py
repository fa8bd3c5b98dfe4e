"""Stages to quantise: small networks as one stage graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.precision.quantise.calibrate import Call
from vlacompile.compiler.precision.quantise.layers import layers_of
from vlacompile.compiler.staging.run_stages import stage_module
from vlacompile.compiler.staging.stages import Port, StageGraph


def as_stage(module: nn.Module, **example: torch.Tensor) -> StageGraph:
    """The function of tensors -> tensor as one stage, no pass applied."""
    module.eval()
    sources = dict.fromkeys(example, vc.Source("observation"))
    policy = vc.Policy("net", lambda **x: {"action": module(*x.values())}, sources, example)
    program = capture(policy, whole=True)
    inputs = tuple(Port(p.name, program.inputs[p.name]) for p in program.graph.nodes if p.op == "placeholder")
    return StageGraph("net", tuple(sorted(example)), program.graph, dict(program.constants), inputs,
                      (Port("action", "action"),))


def run(stage: StageGraph, call: Call) -> torch.Tensor:
    with torch.no_grad():
        return stage_module(stage)(*call)[0]


def layer_norm(d: int) -> nn.LayerNorm:
    """With an affine as after training."""
    norm = nn.LayerNorm(d)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


class Norm(nn.Module):
    """RMS norm, as a composition of elementary ops or as one op."""

    def __init__(self, d: int, composed: bool):
        super().__init__()
        self.weight, self.composed = nn.Parameter(torch.rand(d) + 0.5), composed

    def forward(self, x):
        if not self.composed:
            return F.rms_norm(x, x.shape[-1:], self.weight, 1e-6)
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


class Block(nn.Module):
    """A block of a transformer: a norm, attention with grouped queries, a norm, a gated feed-forward network.

    attention: "sdpa", "grouped" (the op's own groups) or "matmul"; norm: "layer", "rms" or "composed".
    """

    def __init__(self, d: int = 32, heads: int = 4, groups: int = 2, attention: str = "sdpa", norm: str = "layer",
                 bias: bool = True):
        super().__init__()
        self.heads, self.groups, self.attention, self.size = heads, groups, attention, d // heads
        make = {"layer": lambda: layer_norm(d), "rms": lambda: Norm(d, False), "composed": lambda: Norm(d, True)}[norm]
        self.norm_1, self.norm_2 = make(), make()
        self.q, self.out = nn.Linear(d, d, bias), nn.Linear(d, d, bias)
        self.kv = nn.Linear(d, 2 * groups * self.size, bias)
        self.gate, self.up, self.down = nn.Linear(d, 2 * d, bias), nn.Linear(d, 2 * d, bias), nn.Linear(2 * d, d, bias)

    def forward(self, x):
        n, t, d = x.shape
        h = self.norm_1(x)
        q = self.q(h).view(n, t, self.heads, -1).transpose(1, 2)
        k, v = (p.view(n, t, self.groups, -1).transpose(1, 2) for p in self.kv(h).chunk(2, -1))
        if self.attention != "grouped":
            k, v = (p.repeat_interleave(self.heads // self.groups, 1) for p in (k, v))
        if self.attention == "matmul":
            a = torch.softmax(q @ k.transpose(-1, -2) / self.size**0.5, -1) @ v
        else:
            a = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.attention == "grouped")
        x = x + self.out(a.transpose(1, 2).reshape(n, t, d))
        h = self.norm_2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer_io(graph, calls) -> dict[str, list[tuple]]:
    """{layer: [(arguments, result)]} by running the graph, without the code under test."""
    seen: dict[str, list[tuple]] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            result = super().run_node(n)
            if n.name in names:
                seen.setdefault(n.name, []).append((self.fetch_args_kwargs_from_env(n)[0], result))
            return result

    names = {x.node for x in layers_of(graph)}
    root = nn.Module()
    for name, tensor in graph.constants.items():
        root.register_buffer(name, tensor)
    for call in calls:
        with torch.no_grad():
            Watch(torch.fx.GraphModule(root, graph.graph), garbage_collect_values=False).run(*call)
    return seen
