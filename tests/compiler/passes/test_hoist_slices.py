"""What is read of a value in part: the part alone is computed, and it is the same part."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import Program, execute
from vlacompile.compiler.passes.fold_slices_of_concat import FoldSlicesOfConcat
from vlacompile.compiler.passes.hoist_slices import HoistSlices
from vlacompile.compiler.passes.pass_manager import run_passes
from vlacompile.policy.policy import Policy, Source

torch.manual_seed(0)
HEAD, NORM = torch.nn.Linear(6, 4), torch.nn.LayerNorm(4)
SCALE = torch.nn.Parameter(torch.randn(5, 1))
TWICE = torch.nn.Linear(6, 4)

IN, OUT = torch.nn.Linear(6, 18), torch.nn.Linear(6, 6)
SEES = torch.ones(5, 5).tril() > 0


def attended(x: torch.Tensor, fused: bool, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Attention of two heads with a residual, as one op or step by step."""
    q, k, v = (p.view(1, 5, 2, 3).transpose(1, 2) for p in IN(x).chunk(3, -1))
    if fused:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    else:
        scores = q @ k.transpose(-1, -2)
        out = torch.softmax(scores if mask is None else scores.masked_fill(~mask, -1e9), -1) @ v
    x = x + OUT(out.transpose(1, 2).reshape(1, 5, 6))
    return x + torch.tanh(OUT(x))


HOISTED = {
    "a layer": lambda x: attended(x, True)[:, 3:],
    "a masked layer": lambda x: attended(x, True, SEES)[:, 1:3],
    "a layer step by step": lambda x: attended(x, False)[:, -1],
    "a masked layer step by step": lambda x: attended(x, False, SEES)[:, 2:],
    "behind a norm": lambda x: (lambda y: y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6))(HEAD(x))[:, 3:],
    "behind a rotation": lambda x: (lambda y: y * 2 + torch.cat([-y[..., 2:], y[..., :2]], -1) * 3)(HEAD(x))[:, 3:],
    "tokens before features": lambda x: torch.tanh(HEAD(x))[:, 3:][..., :2],
    "several parts": lambda x: (lambda y: y[:, 1] + y[:, 3])(torch.tanh(HEAD(x))),
    "the last token": lambda x: torch.tanh(HEAD(x))[:, -1],
    "tokens in between": lambda x: F.gelu(NORM(HEAD(x)))[:, 1:3],
    "beside a scale per token": lambda x: (HEAD(x) * SCALE)[:, 3:],
    "beside a scale for all": lambda x: (HEAD(x) * SCALE[:1])[:, :2],
    "a product with itself": lambda x: (lambda y: y * y)(HEAD(x))[:, 2],
    "a sum of two heads": lambda x: torch.relu(HEAD(x) + TWICE(x * 2))[:, 2:3],
}
LEFT = {
    "features": lambda x: HEAD(x)[..., 1:3],
    "every second token": lambda x: HEAD(x)[:, ::2],
    "all tokens": lambda x: HEAD(x)[:, 0:5],
    "read twice": lambda x: (lambda y: y[:, -1] + y[:, 0])(torch.tanh(HEAD(x))),
    "a causal op": lambda x: F.scaled_dot_product_attention(*HEAD(x)[:, None].chunk(2, -1), HEAD(x)[:, None, :, :2],
                                                            is_causal=True)[:, :, 2:],
    "of itself": lambda x: (lambda y: F.scaled_dot_product_attention(y, y, y))(HEAD(x)[:, None])[:, :, 2:],
    "behind a mean of tokens": lambda x: (lambda y: y - y.mean(1, keepdim=True))(HEAD(x))[:, 3:],
    "over tokens": lambda x: torch.softmax(HEAD(x), 1)[:, -1],
    "no product on the way": lambda x: torch.tanh(x)[:, -1],
}


def _program(function, inputs: dict[str, torch.Tensor]) -> Program:
    return capture(Policy("rows", lambda **x: {"action": function(**x)}, dict.fromkeys(inputs, Source("observation")),
                          inputs))


@pytest.mark.parametrize("name", [*HOISTED, *LEFT])
def test_it_is_the_same_part(name):
    x = torch.randn(1, 5, 6)
    function = (HOISTED | LEFT)[name]
    result = HoistSlices().run(_program(function, {"x": x}))
    assert result.changed == (name in HOISTED)
    torch.testing.assert_close(execute(result.program, {"x": x})[0]["action"], function(x), rtol=1e-6, atol=1e-6)
    if result.changed:
        heads = [n for n in result.program.graph.nodes if n.target is torch.ops.aten.linear.default]
        assert heads and heads[-1].meta["val"].shape[1] < 5
        assert not HoistSlices().run(result.program).changed


def test_what_is_read_of_joined_tokens_depends_on_these():
    inputs = {"a": torch.randn(1, 2, 6), "b": torch.randn(1, 3, 6)}
    program = _program(lambda a, b: torch.tanh(HEAD(torch.cat([a, b], 1)))[:, 2:4], inputs)
    made, _ = run_passes(program, (HoistSlices(), FoldSlicesOfConcat()))
    assert dependencies(made)[made.output_nodes()[0]] == {"b"}
    torch.testing.assert_close(execute(made, inputs)[0]["action"], execute(program, inputs)[0]["action"])
