"""A policy whose action is one number, or a few without steps, is built in every precision, run and served; what needs
a chunk of actions says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from vlacompile.compiler.staging.action_scale import ActionScale
from vlart.errors import ConfigError
from vlart.serve.policy_host import PolicyHost

OUTPUTS = {"scalar": lambda x: x.mean(), "one": lambda x: x.mean()[None], "vector": lambda x: x[0, :7]}


class Pooled(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.first, self.head, self.kind = nn.Linear(64, 64), nn.Linear(64, 64), kind

    def forward(self, state):
        return {"action": OUTPUTS[self.kind](self.head(torch.tanh(self.first(state))))}


def policy(kind: str) -> vc.Policy:
    torch.manual_seed(0)
    return vc.Policy(kind, Pooled(kind).eval(), {"state": vc.Source("observation")}, {"state": torch.randn(1, 64)})


@pytest.mark.parametrize("recipe, largest", [("default", 1e-5), ("fp16", 5e-3), ("int8", 0.1), ("int4", 0.3),
                                             ("auto", 0.3)])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_it_is_built_run_and_served(tmp_path, kind, recipe, largest):
    made = policy(kind)
    bundle = vc.build(made, recipe=recipe, out=tmp_path / "b.vlab")
    state = torch.linspace(-1, 1, 64)[None]
    with torch.no_grad():
        want = made.infer(state=state)["action"].reshape(-1).numpy()
    with vc.Session(bundle.path, threads=1) as session:
        session.write("state", state)
        session.step()
        got = session.read("action")
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=largest)
    host = PolicyHost(bundle.path, threads=1, uncalibrated=True)
    served = host.submit(host.connect(), {"state": state.numpy()}).result(10).outputs
    assert host.stop(10) and np.array_equal(served["action"], got)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_needs_a_chunk_says_so(tmp_path, kind):
    (tmp_path / "r.toml").write_text('name = "r"\ndescription = "r"\n[action]\nexecute = 1\n')
    with pytest.raises(ConfigError, match="no action chunk") as refused:
        vc.build(policy(kind), recipe=str(tmp_path / "r.toml"), out=tmp_path / "b.vlab")
    assert '"action"' in refused.value.where and "f32[" in refused.value.why and "chunk" in refused.value.fix


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (1, 4, 5)])
def test_errors_count_in_spreads_whatever_the_shape(shape):
    rng = torch.Generator().manual_seed(0)
    want = [torch.randn(shape, generator=rng) for _ in range(50)]
    scale = ActionScale.of(want)
    assert scale.spread.shape == (shape[-1] if shape else 1,)
    got = [w + 0.5 * scale.spread.float().reshape(shape[-1:]) for w in want]
    torch.testing.assert_close(scale.errors(got, want), torch.full_like(scale.spread, 0.5))
