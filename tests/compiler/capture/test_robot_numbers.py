"""Numbers that the robot alone knows, as places and as operands: what PyTorch does with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError, RuntimeFailure

TABLE = nn.Embedding(4, 5).requires_grad_(False)
HELD = torch.zeros(4, 3)
NUMBERS = torch.arange(12).reshape(4, 3)


class Row(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("row", torch.arange(4.0))

    def forward(self, x, i):
        return self.row[i] + x


class Buffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 3))

    def forward(self, x, i):
        self.seen.zero_()
        self.seen[i, 1:] = 1.0
        return x[:, :, :3] + self.seen


def set_row(x, i):
    x[i] = -1.0
    return x


def set_column(x, i):
    x[:, i] = x[0, 0, 0]
    return x


def set_rows_of_a_constant(x, i):
    pairs, index = torch.zeros(4, dtype=torch.long), i
    for k in range(3):
        pairs[index] = (k + i) % 4
        index = (index + 1) % 4
    return x[:, pairs]


def set_many(x, i):
    x[..., i, 1:3] = torch.tensor([[1.0, 2.0]])
    x[:, i - 1, None] = x[:, i]
    return x


def in_a_view(x, i):
    row = x[:, i]
    row.mul_(2)
    x[:, i][..., 1] = 3.0
    x[:, i] += row
    return x + row[:, None]


def set_slice(x, i):
    x[:, i % 3:i % 3 + 2, 1] = torch.tensor([3.0, 4.0])
    x[0, i % 2:i % 2 + 1] = x[0, 1]
    return x


def set_whole_slice(x, i):
    x[0, i % 4:i % 4 + 1] = 5
    return x


def set_beside_a_list(x, i):
    x[0, i, [0, 3]] = x[0, 1, :2].clone()
    return x


def set_slice_of_constants(x, i):
    chosen = torch.zeros(1, 4, 5)
    chosen[:, i % 4:i % 4 + 1] = 1.0
    return x * chosen


def greedy(x, i):
    """As a matching that is greedy does."""
    m, pairs = x[0, :, :4].clone(), torch.zeros(4, dtype=torch.long)
    for _ in range(4):
        best = m.argmax()
        r, c = best // 4, best % 4
        pairs[r] = c
        m[r] = -1e9
        m[:, c] = -1e9
    return x[:, pairs]


KINDS = {
    "row": lambda x, i: x[0][i], "of the second dimension": lambda x, i: x[:, i], "last": lambda x, i: x[..., i],
    "two": lambda x, i: x[0, i, i - 1], "apart": lambda x, i: x[:, i, None, 1:], "a number": lambda x, i: x[0, i, 2],
    "beside a list": lambda x, i: x[:, [0, 2]][0, i % 2], "function": lambda x, i: torch.select(x, 1, i),
    "table": lambda x, i: TABLE.weight[i] + x, "buffer": Row(), "whole numbers": lambda x, i: NUMBERS[i] + x[..., :3],
    "argmax": lambda x, i: x[:, x[0, :, 1].argmax()] * i, "highest": lambda x, i: x[:, x.max(1)[1][0, 2]] * i,
    "filled": lambda x, i: torch.full((1, 5), i) + x, "set row": lambda x, i: set_row(x[0].clone(), i),
    "set column": lambda x, i: set_column(x.clone(), i), "pairs": set_rows_of_a_constant,
    "several": lambda x, i: set_many(x.clone(), i), "into a view": lambda x, i: in_a_view(x.clone(), i),
    "slice": lambda x, i: x[:, i % 3:i % 3 + 2], "slice of two": lambda x, i: x[:, i % 3:i % 3 + 2, i % 4:i % 4 + 1],
    "slice behind a row": lambda x, i: x[0, i % 3 - 1 + 1:(i % 3) + 1, 2:], "narrow": lambda x, i: x.narrow(1, i, 1),
    "slice from the end": lambda x, i: x[:, i % 2 - 4:i % 2 - 2], "slice of whole numbers": lambda x, i:
    NUMBERS[i % 3:i % 3 + 1] + x[:, :, :3], "set slice": lambda x, i: set_slice(x.clone(), i),
    "set slice of constants": set_slice_of_constants,
    "set slice of whole numbers": lambda x, i: set_whole_slice(x.long(), i), "set beside a list": lambda x, i:
    set_beside_a_list(x.clone(), i),
    "into an input": in_a_view, "buffer that is filled": Buffer(), "greedy": greedy}


def policy_of(function) -> Policy:
    torch.manual_seed(0)
    return Policy("placed", lambda x, i: {"action": function(x, i[0])},
                  {"x": Source("observation"), "i": Source("observation")},
                  {"x": torch.randn(1, 4, 5), "i": torch.tensor([1])})


@pytest.mark.parametrize("name", KINDS)
def test_what_is_at_a_place_is_what_pytorch_reads_and_writes(name):
    program = capture(policy_of(KINDS[name]))
    for i in range(-3, 4):
        x = torch.randn(1, 4, 5)
        got, _ = execute(program, {"x": x.clone(), "i": torch.tensor([i])})
        torch.testing.assert_close(got["action"], KINDS[name](x.clone(), torch.tensor(i)), atol=1e-6, rtol=1e-5)


def of_rows(x, i):
    """As many as are there: PyTorch goes on with fewer, and hands out an action of another shape."""
    return x[0, i:i + 2].sum(0)


def set_rows(x, i):
    x[0, i:i + 2] = 3.0
    return x


@pytest.mark.parametrize("place", [3, -1, -5, 4, 100, -100])
@pytest.mark.parametrize("name", ["read", "written", "whole numbers"])
def test_a_slice_that_leaves_the_tensor_hands_out_no_action(name, place, tmp_path):
    function = {"read": of_rows, "written": lambda x, i: set_rows(x.clone(), i),
                "whole numbers": lambda x, i: x[0] + of_rows(NUMBERS.repeat(1, 2)[None, :, :5], i)}[name]
    policy = policy_of(lambda x, i: function(x, i).reshape(1, -1, 5))
    bundle = vc.build(policy, target="host", out=str(tmp_path / "sliced.vlab"))
    with vc.Session(bundle.path) as session:
        x = torch.randn(1, 4, 5)
        session.write("x", x)
        for i in (2, 0, -4, -3):
            session.write("i", torch.tensor([i]))
            session.step()
            want = policy.infer(x=x.clone(), i=torch.tensor([i]))["action"]
            torch.testing.assert_close(torch.as_tensor(session.read("action")), want, atol=1e-5, rtol=1e-5)
        with pytest.raises(RuntimeFailure):
            session.write("i", torch.tensor([place]))
            session.step()


@pytest.mark.parametrize("place", [4, -5, -8, 100])
@pytest.mark.parametrize("name", ["row", "set row", "set beside a list", "whole numbers", "set whole numbers"])
def test_a_place_that_is_none_hands_out_no_action(name, place, tmp_path):
    """Where PyTorch raises an error."""
    def whole(x, i):
        numbers = (x[0] > 9).long()
        numbers[i] = 3
        return x[0] + numbers

    function = whole if name == "set whole numbers" else KINDS[name]
    policy = policy_of(lambda x, i: function(x, i).reshape(1, -1, x.shape[-1] if name != "whole numbers" else 3))
    bundle = vc.build(policy, target="host", out=str(tmp_path / "placed.vlab"))
    with vc.Session(bundle.path) as session:
        x = torch.randn(1, 4, 5)
        session.write("x", x)
        for i in (-4, 3):
            session.write("i", torch.tensor([i]))
            session.step()
            want = policy.infer(x=x.clone(), i=torch.tensor([i]))["action"]
            torch.testing.assert_close(torch.as_tensor(session.read("action")), want, atol=1e-5, rtol=1e-5)
        with pytest.raises(RuntimeFailure):
            session.write("i", torch.tensor([place]))
            session.step()


def held(x, i):
    HELD[i].add_(1)
    return x + HELD.sum()


def seen_through_a_view(x, i):
    x = x.clone()
    row = x[0, i]
    x[:, :, 2] = 7.0
    return row


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x, i):
        self.seen[i] = self.seen[i] + 1
        return x * self.seen.sum()


REFUSED = {"shape": lambda x, i: x[:, :i], "length": lambda x, i: x[:, i:2 * i], "truncated": lambda x, i:
           x[:, (i * 0.5).long():(i * 0.5 + 1).long()], "steps": lambda x, i: x[:, i:i + 4:2],
           "branch": lambda x, i: x if i > 0 else -x,
           "list": lambda x, i: [x, -x][i], "state": Counter(), "held": held,
           "view of what changes": seen_through_a_view}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_number_decides_is_refused(name):
    with pytest.raises(CaptureError) as error:
        capture(policy_of(REFUSED[name]))
    assert "test_robot_numbers.py:" in error.value.where
