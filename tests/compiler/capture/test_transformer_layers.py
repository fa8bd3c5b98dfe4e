"""PyTorch's transformer layers, which in eval mode have fused kernels and pack padded rows: as they compute, whatever
is padded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.samples.live import worst
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.policy.policy import Policy, Source

NAMES = ("action", "weights")


class Encoded(nn.Module):
    """An encoder of padded words, and who looks at what of them. nested: PyTorch packs the words that are none."""

    def __init__(self, norm_first: bool, nested: bool):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first, activation="gelu")
        self.words, self.state, self.out = nn.Embedding(9, 16), nn.Linear(4, 16), nn.Linear(16, 7)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.look = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, tokens, shown, state):
        memory = self.encoder(self.words(tokens), src_key_padding_mask=~shown)
        seen, weights = self.look(self.state(state)[:, None], memory, memory, key_padding_mask=~shown)
        return {"action": self.out(seen), "weights": weights}


class Decoded(nn.Module):
    """A causal decoder of learnt queries; the last key, of the state, is always shown."""

    def __init__(self, norm_first: bool, nested: bool = False):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.words, self.state, self.out = nn.Embedding(9, 16), nn.Linear(4, 16), nn.Linear(16, 7)
        self.queries = nn.Parameter(torch.randn(1, 3, 16))
        self.register_buffer("causal", nn.Transformer.generate_square_subsequent_mask(3))

    def forward(self, tokens, shown, state):
        memory = torch.cat([self.words(tokens), self.state(state)[:, None]], 1)
        hidden = torch.cat([~shown, torch.zeros(1, 1, dtype=torch.bool)], 1)
        y = self.decoder(self.queries, memory, tgt_mask=self.causal, memory_key_padding_mask=hidden)
        return {"action": self.out(y), "weights": y.mean(1)}


def policy(kind, *how) -> Policy:
    draw = torch.Generator().manual_seed(1)
    inputs = {"tokens": torch.arange(6)[None], "shown": torch.arange(6)[None] < 4,
              "state": torch.randn(1, 4, generator=draw)}
    return Policy("layers", kind(*how).eval(), {n: Source("observation" if n == "state" else "task") for n in inputs},
                  inputs, outputs=NAMES)


def shown(count: int) -> dict[str, torch.Tensor]:
    return {"shown": torch.arange(6)[None] < count}


class Shown(nn.Module):
    """At least one word is: of none, PyTorch itself gives no number."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, tokens, shown, state):
        return self.inner(tokens, shown | (torch.arange(6)[None] < 1), state)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(("kind", "nested"), [(Encoded, False), (Encoded, True), (Decoded, False)])
def test_layers_give_pytorchs_numbers(tmp_path, kind, norm_first, nested):
    make = lambda: policy(lambda *how: Shown(kind(*how)), norm_first, nested)
    assert worst(make, tmp_path / "p.vlab", extra=(shown(1), shown(6))) < 2e-6


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # once per process, whatever comes first
def test_in_fp16_on_a_board(tmp_path):
    make = lambda: policy(lambda *how: Shown(Encoded(*how)), False, True)
    assert worst(make, tmp_path / "p.vlab", target="orin-nano-8gb", extra=(shown(1), shown(6))) < 1e-2


@pytest.mark.parametrize("how", ["packed", "packed, with a norm", "not packed", "with a mask", "masked by floats"])
@pytest.mark.parametrize("gap", [False, True])
def test_what_an_encoder_gives_for_padded_words(how, gap):
    """Zeros where it packs them, and it packs those alone behind which no word comes."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(16, bias=True) if "norm" in how else None
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, norm,
                                    enable_nested_tensor=how != "not packed").eval()
    causal = torch.ones(6, 6, dtype=torch.bool).triu(1) if how == "with a mask" else None

    def observe(x, hidden):
        floats = torch.zeros(1, 6).masked_fill(hidden, float("-inf"))
        return {"action": encoder(x, causal, floats if how == "masked by floats" else hidden)}

    def words(count: int) -> torch.Tensor:
        hidden = torch.arange(6)[None] >= count
        return hidden & (torch.arange(6)[None] != 5) if gap else hidden

    inputs = {"x": torch.randn(1, 6, 16), "hidden": words(3)}
    made = Policy("encoder", observe, {"x": Source("observation"), "hidden": Source("task")}, inputs)
    program = capture(made)
    for count in (1, 3, 5, 6):
        now = {"x": torch.randn(1, 6, 16), "hidden": words(count)}
        with torch.no_grad():
            want = observe(**now)["action"]
        torch.testing.assert_close(execute(program, now)[0]["action"], want, rtol=1e-5, atol=1e-5)
        if count == 3 and how == "packed":
            assert bool((want[:, 3:] == 0).all()) != gap
