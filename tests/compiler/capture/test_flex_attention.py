"""flex_attention is refused, and what is to be written instead of it compiles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CAUSAL = create_block_mask(lambda b, h, i, j: i >= j, None, None, 6, 6, device="cpu")
SLOPES = torch.tensor([0.5, 0.25])


@pytest.fixture(autouse=True)
def compiled_anew():
    """PyTorch compiles flex_attention when it is called; what a trace has seen is not what it finds then."""
    torch.compiler.reset()


KINDS = {
    "plain": lambda x: flex_attention(x, x, x),
    "a score": lambda x: flex_attention(  # one that holds a number, which the exporter makes a tensor of the function
        x, x, x, score_mod=lambda s, b, h, i, j: torch.where(i >= j, s - 0.1 * (i - j), -float("inf"))),
    "slopes": lambda x: flex_attention(x, x, x, score_mod=lambda s, b, h, i, j: s + SLOPES[h] * (j - i)),
    "a block mask": lambda x: flex_attention(x, x, x, block_mask=CAUSAL)}


def policy_of(function) -> Policy:
    torch.manual_seed(0)
    return Policy("flex", lambda x: {"action": function(x)}, {"x": Source("observation")},
                  {"x": torch.randn(1, 2, 6, 4)})


@pytest.mark.parametrize("name", KINDS)
def test_it_is_refused_with_its_line(name):
    with pytest.raises(CaptureError) as error:
        capture(policy_of(KINDS[name]))
    assert "flex_attention" in error.value.what and "test_flex_attention.py:" in error.value.where
    assert "scaled_dot_product_attention" in error.value.fix


def test_what_is_said_instead_compiles_to_the_same():
    rows = torch.arange(6)
    added = torch.where(rows[:, None] >= rows, -0.1 * (rows[:, None] - rows), -torch.inf)
    policy = policy_of(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=added))
    got, _ = execute(capture(policy), dict(policy.example_inputs))
    want = KINDS["a score"](policy.example_inputs["x"])
    torch.testing.assert_close(got["action"], want, atol=1e-5, rtol=1e-4)
