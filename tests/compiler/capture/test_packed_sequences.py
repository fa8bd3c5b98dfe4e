"""Packed sequences with lengths that the robot sends: recurrent layers end where the sequence does."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError

STEPS, LAYERS = 5, {
    "LSTM": lambda: nn.LSTM(4, 8, num_layers=2, bidirectional=True),
    "GRU": lambda: nn.GRU(4, 8, num_layers=2, batch_first=True, bias=False),
    "RNN": lambda: nn.RNN(4, 8, nonlinearity="relu", bidirectional=True, batch_first=True)}


def policy_of(function, lengths=(3,), source="observation", **layers) -> Policy:
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            for name, layer in layers.items():
                self.add_module(name, layer())

        def forward(self, **inputs):
            return {"action": function(self, **inputs)}

    return Policy("packed", Encoder().eval(), {"x": Source("observation"), "lengths": Source(source)},
                  {"x": torch.randn(len(lengths), STEPS, 4), "lengths": torch.tensor(lengths)})


def packed(x, lengths, layer: nn.RNNBase, **how):
    return pack_padded_sequence(x if layer.batch_first else x.transpose(0, 1), lengths, batch_first=layer.batch_first,
                                **how)


@pytest.mark.parametrize("lengths", [[1], [3], [STEPS], [2, 4, 1], [STEPS, 3, 3]], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_states_and_outputs_are_those_of_pytorch(kind, lengths):
    """Of a program that was captured with other lengths."""
    def function(module, x, lengths):
        layer = module.layer
        rows, state = layer(packed(x, lengths, layer, enforce_sorted=False))
        h, c = state if isinstance(state, tuple) else (state, state[..., :1])
        long, counted = pad_packed_sequence(rows, layer.batch_first, padding_value=-2.0, total_length=STEPS + 1)
        return torch.cat([h.flatten(), c.flatten(), long.flatten(), counted])[None]

    policy = policy_of(function, lengths=(4, 2, 3)[:len(lengths)], layer=LAYERS[kind])
    inputs = policy.example_inputs | {"lengths": torch.tensor(lengths)}
    got, _ = execute(capture(policy), inputs)
    torch.testing.assert_close(got["action"], policy.infer(**inputs)["action"], atol=1e-6, rtol=1e-6)


def test_the_state_that_a_sequence_begins_with():
    def function(module, x, lengths):
        begin = torch.stack([x[:, 0], x[:, 1]], 1)[None, ..., 0].repeat(1, 1, 4)  # of each sequence its own
        return module.layer(packed(x, lengths, module.layer), begin)[1]

    policy = policy_of(function, lengths=(4, 2), layer=lambda: nn.GRU(4, 8, batch_first=True))
    inputs = policy.example_inputs | {"lengths": torch.tensor([3, 3])}
    got, _ = execute(capture(policy), inputs)
    torch.testing.assert_close(got["action"], policy.infer(**inputs)["action"], atol=1e-6, rtol=1e-6)


def test_lengths_that_never_change():
    """PyTorch's own packing, whose shapes are known."""
    def function(module, x, lengths):
        return pad_packed_sequence(module.layer(packed(x, lengths, module.layer))[0], batch_first=True)[0]

    policy = policy_of(function, lengths=(3,), source="static", layer=LAYERS["GRU"])
    got, _ = execute(capture(policy), policy.example_inputs)
    assert got["action"].shape == (1, 3, 8)
    torch.testing.assert_close(got["action"], policy.infer(**policy.example_inputs)["action"], atol=1e-6, rtol=1e-6)


def test_a_bundle_names_what_it_does_not_check(tmp_path):
    def function(module, x, lengths):
        return module.layer(packed(x, lengths, module.layer, enforce_sorted=False))[1][-1][:, None]

    policy = policy_of(function, layer=LAYERS["GRU"])
    bundle = vc.build(policy, out=tmp_path / "p.vlab")
    unchecked = f"1 <= lengths of a packed sequence <= {STEPS}"
    assert any(unchecked in note for note in bundle.manifest["provenance"]["notes"])
    with vc.Session(bundle.path) as session:
        for length in range(1, STEPS + 1):
            inputs = {"x": torch.randn(1, STEPS, 4), "lengths": torch.tensor([length])}
            session.write_all(inputs)
            session.step()
            want = policy.infer(**inputs)["action"].detach()
            torch.testing.assert_close(torch.from_numpy(session.read("action").copy()), want, atol=1e-5, rtol=1e-5)


def read(x, lengths, layer):
    return layer(packed(x, lengths, layer))[0]


REFUSED = {
    "rows": (lambda module, x, lengths: read(x, lengths, module.layer).data.mean(0)[None], "torch.arange"),
    "the last row": (lambda module, x, lengths: read(x, lengths, module.layer).data[-1:], "torch.arange"),
    "counts": (lambda module, x, lengths: x * packed(x, lengths, module.layer).batch_sizes[1], "torch.arange"),
    "another layer": (lambda module, x, lengths: module.head(packed(x, lengths, module.layer).data), "torch.arange"),
    "the longest of the moment": (
        lambda module, x, lengths: pad_packed_sequence(read(x, lengths, module.layer))[0], "total_length")}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_depends_on_how_many_rows_there_are_is_refused(kind):
    function, fix = REFUSED[kind]
    policy = policy_of(function, layer=LAYERS["GRU"], head=lambda: nn.Linear(4, 2))
    with pytest.raises(CaptureError, match="rows of a packed sequence are read") as raised:
        capture(policy)
    assert "test_packed_sequences.py" in raised.value.where and fix in raised.value.fix
