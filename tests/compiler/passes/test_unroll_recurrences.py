"""Recurrent layers and cells, written out per time step: PyTorch's numbers through libvlart, in every precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.unroll_recurrences import UnrollRecurrences
from vlacompile.policy.policy import Policy, Source


class Several(nn.Module):
    """Every kind of layer once, each an output."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=2, batch_first=True)
        self.projected = nn.LSTM(8, 16, proj_size=4, bidirectional=True)
        self.gru = nn.GRU(8, 16, num_layers=2, bidirectional=True, batch_first=True, bias=False)
        self.rnn = nn.RNN(8, 16, nonlinearity="relu")
        self.cells = nn.ModuleList([nn.GRUCell(8, 16), nn.LSTMCell(16, 16), nn.RNNCell(16, 16, bias=False)])

    def forward(self, state, h):
        long, (_, c) = self.lstm(state, (h, h * 0.5))
        both, (projected, _) = self.projected(state.transpose(0, 1))
        gated, last = self.gru(state)
        plain, _ = self.rnn(state[0])
        x = torch.zeros(1, 16)
        carried = (x, x)
        for t in range(state.shape[1]):
            x = self.cells[0](state[:, t], x)
            carried = self.cells[1](x, carried)
            x = self.cells[2](carried[0], x)
        return {"action": long[:, -2:], "c": c, "both": both, "projected": projected, "gated": gated, "last": last,
                "plain": plain,
                "x": x}


# PyTorch says so of its own recurrent layers.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{w}")
              for w in ("The tensor attributes self", "LSTM with projections")]
NAMES = ("action", "c", "both", "projected", "gated", "last", "plain", "x")


def several() -> Policy:
    torch.manual_seed(0)
    inputs = {"state": torch.randn(1, 5, 8), "h": torch.randn(2, 1, 16)}
    return Policy("several", Several().eval(), dict.fromkeys(inputs, Source("observation")), inputs, outputs=NAMES)


@pytest.mark.parametrize(("target", "recipe", "tolerance"), [("host", None, 1e-6), ("host", "fp16", 5e-3),
                                                             ("orin-nano-8gb+jetpack-6.2", None, 5e-3)])
def test_recurrences_give_pytorchs_numbers(target, recipe, tolerance, tmp_path):
    policy = several()
    vc.build(policy, target=target, recipe=recipe, out=tmp_path / "p.vlab")
    with vc.Session(tmp_path / "p.vlab", stand_in=target != "host") as session:
        for seed in range(2):
            random = torch.Generator().manual_seed(seed)
            inputs = {n: torch.randn(t.shape, generator=random) for n, t in policy.example_inputs.items()}
            for name, x in inputs.items():
                session.write(name, x)
            session.step()
            for name, want in policy.infer(**inputs).items():
                got = torch.from_numpy(np.asarray(session.read(name), np.float32))
                assert (got - want).abs().max() <= tolerance, name


def test_time_steps_share_their_weights():
    policy = several()
    program = capture(policy)
    result = UnrollRecurrences().run(program)
    assert result.changed and set(result.program.constants) <= set(program.constants) and not UnrollRecurrences().run(
        result.program).changed
    got, _ = execute(result.program, policy.example_inputs)
    want = policy.infer(**policy.example_inputs)
    assert all((got[n] - want[n]).abs().max() <= 1e-6 for n in NAMES)


def test_int8_reaches_the_weights(tmp_path):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 6)

        def forward(self, state):
            return {"action": self.head(self.rnn(state)[0][:, -1:])}

    torch.manual_seed(0)
    policy = Policy("wide", Wide().eval(), {"state": Source("observation")}, {"state": torch.randn(1, 4, 64)})
    (tmp_path / "r.toml").write_text('name = "r"\ndescription = "d"\n[precision]\nlayers = "auto"\nschemes = ["int8"]\n'
                                     'max_action_error = 0.9\nminimise = "bytes"\n', encoding="utf-8")
    full, small = (sum(f.stat().st_size
                       for f in (vc.build(policy, recipe=r, out=tmp_path / n).path / "stages").iterdir())
                   for r, n in ((None, "f.vlab"), (str(tmp_path / "r.toml"), "i.vlab")))
    assert small < 0.45 * full
