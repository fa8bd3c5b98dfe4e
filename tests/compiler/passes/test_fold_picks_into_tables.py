"""Words that cannot be chosen leave a table, and what is read of it stays."""

from __future__ import annotations

import pytest
import torch

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.fold_picks_into_tables import FoldPicksIntoTables
from vlacompile.policy.policy import Policy, Source

torch.manual_seed(0)
WORDS = torch.tensor([7, 2, 2, 5])


class Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.table, self.function = torch.nn.Embedding(9, 4), function

    def forward(self, x, i):
        return {"action": self.function(self.table, x, i)}


FOLDED = {
    "one table": lambda table, x, i: table(WORDS[x.argmax(-1)]),
    "one that others read too": lambda table, x, i: table(WORDS[x.argmax(-1)]) + table(i),
}
LEFT = {
    "by a source, which may count from the end": lambda table, x, i: table(WORDS[i]),
    "by all words": lambda table, x, i: table(x.argmax(-1)),
    "by words of a source": lambda table, x, i: table(i[0][x.argmax(-1)]),
}


@pytest.mark.parametrize("name", [*FOLDED, *LEFT])
def test_it_is_the_same_row(name):
    model, inputs = Model((FOLDED | LEFT)[name]), {"x": torch.randn(1, 4, 4), "i": torch.tensor([[0, 3, 1, 2]])}
    program = capture(Policy("words", model, dict.fromkeys(inputs, Source("observation")), inputs))
    result = FoldPicksIntoTables().run(program)
    assert result.changed == (name in FOLDED)
    assert torch.equal(execute(result.program, inputs)[0]["action"], model(**inputs)["action"])
    if result.changed:
        assert any(t.shape == (len(WORDS), 4) for t in result.program.constants.values())
        assert not FoldPicksIntoTables().run(result.program).changed
