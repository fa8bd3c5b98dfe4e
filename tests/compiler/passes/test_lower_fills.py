"""A tensor that is filled depends on what it is filled with, not on whose shape it has."""

from __future__ import annotations

import pytest
import torch

from tests.samples.staging import verified
from vlacompile import Policy, Source
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.merge_fills import MergeFills
from vlacompile.hardware.target import load_target
from vlacompile.recipe.recipe import load_recipe


def _column(made, b):
    made.transpose(1, 2)[:, 1] = b.mean()
    return made


def _filled(made, b):
    return made.clone().fill_(b.mean())


FILLS = {
    "zeros_like": (lambda h, b: _column(torch.zeros_like(h), b), {"b"}),
    "full_like": (lambda h, b: torch.full_like(h, 0.25) * b, {"b"}),
    "new_ones": (lambda h, b: _column(h.new_ones(1, 3, 4), b), {"b"}),
    "fill_": (_filled, {"b"}),
    "copy_ of a row": (lambda h, b: h.clone().copy_(b[:, :1]), {"b"}),
    "copy_ of doubles": (lambda h, b: h.clone().copy_(b.double()), {"b"}),
    "all columns": (lambda h, b: h.index_put((torch.tensor([0]), torch.tensor([[0], [1], [2]]),
                                              torch.arange(4)), b[0]), {"b"}),
    "two of three rows": (lambda h, b: h.index_put((torch.tensor([0]), torch.tensor([2, 0])), b[0, :2]), {"a", "b"}),
    "a sum at all rows": (lambda h, b: h.index_put((torch.tensor([0]), torch.arange(3)), b[0], accumulate=True),
                          {"a", "b"}),
    "a column alone": (_column, {"a", "b"}),
    "masked_fill": (lambda h, b: h.masked_fill(b > 0, 0.5), {"a", "b"}),
}


@pytest.mark.parametrize("name", FILLS)
def test_sources_of_a_filled_tensor(name):
    fill, sources = FILLS[name]

    def policy(a, b):
        return {"action": torch.tanh(fill(torch.relu(a * 2) + 0, b)), "other": a + 0}

    inputs = {"a": torch.randn(1, 3, 4), "b": torch.randn(1, 3, 4)}
    made = Policy("fills", policy, dict.fromkeys(inputs, Source("observation")), inputs, outputs=("action", "other"))
    program = verified(made, load_target("host"), load_recipe(None)).staging.staged.program
    assert dependencies(program)[program.output_nodes()[0]] == sources


@pytest.mark.parametrize(("other", "merged"), [
    (lambda a, b: torch.zeros_like(torch.relu(b)), False), (lambda a, b: torch.zeros_like(torch.relu(a + b)), True),
    (lambda a, b: torch.ones_like(torch.relu(a)), False), (lambda a, b: torch.zeros_like(a[:, :1]), False),
    (lambda a, b: torch.zeros_like(a, dtype=torch.float64).float(), False)],
    ids=["of another source", "of more sources", "ones", "of another shape", "of another type"])
def test_a_fill_stands_for_one_that_depends_on_no_less(other, merged):
    def policy(a, b):
        return {"action": a + torch.zeros_like(torch.tanh(a)), "other": b + other(a, b)}

    inputs = {"a": torch.randn(1, 4), "b": torch.randn(1, 4)}
    made = Policy("zeros", policy, dict.fromkeys(inputs, Source("observation")), inputs, outputs=("action", "other"))
    result = MergeFills().run(capture(made))
    assert result.changed == merged
    assert torch.equal(execute(result.program, inputs)[0]["other"], made.infer(**inputs)["other"])


def test_passes_that_are_fed_zeros_of_what_they_gave_are_one():
    """A decoder that runs anew for every token, and forgets those that it was given."""
    layer, embed = torch.nn.Linear(4, 4), torch.nn.Linear(3, 1)

    def policy(a, forgets):
        given = torch.zeros(1, 3)
        for k in range(3):
            fed = torch.zeros_like(embed(given)) if forgets else embed(given)
            token = torch.softmax(layer(torch.cat([a, fed], 1)), -1)[:, k]
            given = torch.cat([given[:, :k], token[:, None], given[:, k + 1:]], 1)
        return {"action": given}

    def linears(forgets: bool) -> int:
        made = Policy("decoder", lambda a: policy(a, forgets), {"a": Source("observation")}, {"a": torch.randn(1, 3)})
        program = verified(made, load_target("host"), load_recipe(None)).staging.staged.program
        deps = dependencies(program)
        return sum(n.target is torch.ops.aten.linear.default and bool(deps[n]) for n in program.graph.nodes)

    assert linears(True) == 1 and linears(False) > 1
