"""A product with a weight is a Linear for the passes behind; what is no such product stays as it was."""

from __future__ import annotations

import pytest
import torch

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import Program, execute
from vlacompile.compiler.passes.rewrite_products_as_linears import RewriteProductsAsLinears

torch.manual_seed(0)
MATRIX = torch.randn(6, 4)  # no weight: a constant of the method
ROBOT = torch.tensor([1])

REWRITTEN = {
    "one robot's of several": lambda m, x: torch.bmm(x, m.bank[ROBOT]) + m.biases[ROBOT][:, None],
    "without a bias": lambda m, x: torch.tanh(torch.bmm(x, m.bank[ROBOT])),
    "a table the other way": lambda m, x: x @ m.table.T,
    "a table that is read beside": lambda m, x: (x @ m.table.T) @ m.table,
    "of parts": lambda m, x: x @ torch.cat([m.bank[0, :3], m.bank[1, 3:]]) + m.row,
    "a row of a bias": lambda m, x: torch.matmul(x[0], m.bank[2])[None] + m.row[None, None],
}
LEFT = {
    "all robots'": lambda m, x: torch.matmul(x[:, None], m.bank),
    "from the left": lambda m, x: torch.matmul(m.table, x.transpose(1, 2)),
    "of two inputs": lambda m, x: torch.bmm(x, x.transpose(1, 2)),
    "what is no weight": lambda m, x: x @ MATRIX,
    "a weight that is needed as it was": lambda m, x: x @ m.plain + m.plain.sum(),
}


class Weights(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.table = function, torch.nn.Parameter(torch.randn(4, 6))
        self.bank, self.biases = torch.nn.Parameter(torch.randn(3, 6, 4)), torch.nn.Parameter(torch.randn(3, 4))
        self.row, self.plain = torch.nn.Parameter(torch.randn(4)), torch.nn.Parameter(torch.randn(6, 4))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"action": self.function(self, x)}


def _captured(name: str) -> tuple[Weights, Program]:
    module = Weights((REWRITTEN | LEFT)[name]).requires_grad_(False)
    return module, capture(vc.Policy("p", module, {"x": vc.Source("observation")}, {"x": torch.randn(1, 5, 6)}))


@pytest.mark.parametrize("name", [*REWRITTEN, *LEFT])
def test_it_is_the_same_product(name):
    x, (module, program) = torch.randn(1, 5, 6), _captured(name)
    result = RewriteProductsAsLinears().run(program)
    assert result.changed == (name in REWRITTEN)
    got = execute(result.program, {"x": x})[0]["action"]
    torch.testing.assert_close(got, module(x)["action"], rtol=1e-5, atol=1e-5)
    assert not RewriteProductsAsLinears().run(result.program).changed


def test_a_bias_is_part_of_it_and_the_other_robots_leave():
    program = RewriteProductsAsLinears().run(_captured("one robot's of several")[1]).program
    assert [n.target for n in program.graph.nodes if n.op == "call_function"] == [torch.ops.aten.linear.default]
    assert sorted(tuple(t.shape) for t in program.constants.values()) == [(4,), (4, 6)]


def test_a_table_is_not_copied():
    module, program = _captured("a table the other way")
    program = RewriteProductsAsLinears().run(program).program
    assert [t.data_ptr() for t in program.constants.values()] == [module.table.data_ptr()]
