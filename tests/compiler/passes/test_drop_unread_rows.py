from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import Program, execute
from vlacompile.compiler.passes.drop_unread_rows import DropUnreadRows
from vlacompile.compiler.passes.guard_empty_rows import GuardEmptyRows
from vlacompile.policy.policy import Policy, Source

ROWS, WIDTH, HEADS = 12, 8, 2
_ATEN = torch.ops.aten
EXACT = 1e-5


class Tokens(torch.nn.Module):
    """Layers of attention and MLP over tokens [1,steps,each,8]; `reads` picks of the result."""

    def __init__(self, mask: torch.Tensor | None, reads, steps: int = 3, layers: int = 2):
        super().__init__()
        self.reads, self.steps = reads, steps
        self.register_buffer("mask", mask)
        self.qkv = torch.nn.ModuleList(torch.nn.Linear(WIDTH, 3 * WIDTH) for _ in range(layers))
        self.mlp = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers))
        self.norm = torch.nn.LayerNorm(WIDTH)

    def forward(self, x, mask=None):
        x = x.reshape(1, ROWS, WIDTH)
        for qkv, mlp in zip(self.qkv, self.mlp, strict=True):
            made = qkv(self.norm(x)).view(1, ROWS, 3, HEADS, -1).transpose(1, 3)
            q, k, v = (made[:, :, i] for i in range(3))
            seen = F.scaled_dot_product_attention(q, k, v, self.mask if mask is None else mask)
            x = x + seen.transpose(1, 2).reshape(1, ROWS, WIDTH)
            x = x + torch.relu(mlp(x))
        return {"action": self.reads(x.view(1, self.steps, ROWS // self.steps, WIDTH))}


def dropped(model: torch.nn.Module, guarded: bool = False, **extra: torch.Tensor) -> tuple[Program, bool]:
    """The program after the pass, whose action is the model's. guarded: GuardEmptyRows runs before, as in a build."""
    inputs = {"x": torch.randn(1, 3, ROWS // 3, WIDTH)} | extra
    policy = Policy("rows", model.eval(), dict.fromkeys(inputs, Source("observation")), inputs)
    program = capture(policy)
    result = DropUnreadRows().run(GuardEmptyRows().run(program).program if guarded else program)
    with torch.no_grad():
        want = policy.infer(**inputs)["action"]
    assert (execute(result.program, inputs)[0]["action"] - want).abs().max() <= EXACT
    return result.program, result.changed


def rows_of(program: Program) -> list[int]:
    """How many rows each Linear is computed for, in order."""
    return [n.meta["val"].shape[-2] for n in program.graph.nodes if n.target is _ATEN.linear.default]


def causal_with_hidden(*hidden: int) -> torch.Tensor:
    """Each row sees itself and those before it, apart from the hidden ones, which nobody sees."""
    mask = torch.ones(ROWS, ROWS, dtype=torch.bool).tril()
    mask[:, list(hidden)] = False
    return mask


def test_rows_that_a_mask_hides_leave_every_layer():
    """Queries at the end of each step are seen by nobody, and the last of them is read."""
    program, changed = dropped(Tokens(causal_with_hidden(3, 7, 11), lambda x: x[:, -1, -1]))
    # in the last layer the query is one row, which its MLP shows
    assert changed and rows_of(program) == [10, 10, 10, 1]


@pytest.mark.parametrize("mask", [None, torch.ones(ROWS, ROWS, dtype=torch.bool)])
def test_what_every_query_sees_stays_up_to_the_last_layer(mask):
    program, _ = dropped(Tokens(mask, lambda x: x[:, 0]))
    assert rows_of(program) == [ROWS, ROWS, ROWS, 4]


def test_all_rows_that_are_read_are_computed():
    _, changed = dropped(Tokens(causal_with_hidden(3), lambda x: x.sum((1, 2))))
    assert not changed


def test_a_mask_that_an_input_decides_hides_nothing_for_certain():
    program, _ = dropped(Tokens(None, lambda x: x[:, -1, -1]), mask=causal_with_hidden(3, 7, 11))
    assert rows_of(program) == [ROWS, ROWS, ROWS, 1]


class Padded(Tokens):
    """Its constant mask and what an input says of the keys; whole rows may be left nothing."""

    def forward(self, x, there):
        return super().forward(x, self.mask & there)


@pytest.mark.parametrize("there", [torch.ones(ROWS), torch.arange(ROWS) >= 5], ids=["all", "first-rows-see-nothing"])
def test_rows_leave_that_a_mask_hides_whatever_the_input_says(there):
    program, changed = dropped(Padded(causal_with_hidden(3, 7, 11), lambda x: x[:, -1, -1]), True, there=there.bool())
    dropped(Padded(causal_with_hidden(3, 7, 11), lambda x: x[:, 0]), True, there=there.bool())
    assert changed and rows_of(program) == [10, 10, 10, 1]
    masks = [n.meta["val"].shape for n in program.graph.nodes if n.target is _ATEN.scaled_dot_product_attention.default
             for n in [n.args[3]]]
    assert masks == [(10, 9), (1, 9)]


class Opened(Tokens):
    """Rows that see nothing are opened to all keys, and are read."""

    def forward(self, x, there):
        seen = self.mask & there
        return super().forward(x, seen | ~seen.any(-1, True))


def test_a_row_that_is_opened_to_every_key_sees_it():
    program, _ = dropped(Opened(causal_with_hidden(3, 7, 11), lambda x: x[:, -1, -1]), True,
                         there=torch.zeros(ROWS).bool())
    assert rows_of(program)[0] == ROWS


def test_a_row_that_sees_nothing_keeps_what_it_has():
    """Nothing is known of the softmax over an empty set."""
    mask = causal_with_hidden(0, 3, 7)
    program, _ = dropped(Tokens(torch.where(mask, 0.0, -1e38), lambda x: x[:, 0, 0]))
    assert rows_of(program)[0] == ROWS


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), steps=st.sampled_from([1, 2, 3, 4, 6]), density=st.floats(0.1, 0.9),
       kind=st.sampled_from(["boolean", "added", "with an input's"]), data=st.data())
def test_actions_stay_for_any_mask_and_any_read(seed, steps, density, kind, data):
    torch.manual_seed(seed)
    mask = (torch.rand(ROWS, ROWS) < density) | torch.eye(ROWS, dtype=torch.bool)
    each = ROWS // steps
    begin, row = data.draw(st.integers(0, steps - 1)), data.draw(st.integers(0, each - 1))
    reads = data.draw(st.sampled_from([
        lambda x: x[:, begin:, row], lambda x: x[:, :, row:].flatten(1, 2), lambda x: x[:, begin, row:],
        lambda x: torch.cat([x[:, begin, row], x[:, 0, 0]], -1), lambda x: x.transpose(1, 2)[:, row],
        lambda x: x[:, :, row:][:, begin] + x[:, begin, :1], lambda x: x.permute(2, 1, 3, 0)[row, begin]]))
    if kind == "with an input's":
        program, _ = dropped(Padded(mask, reads, steps), True, there=torch.rand(ROWS) < density)
    else:
        program, _ = dropped(Tokens(torch.where(mask, 0.0, -torch.inf) if kind == "added" else mask, reads, steps))
    again = DropUnreadRows().run(program)
    assert not again.changed
