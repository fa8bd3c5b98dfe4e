"""What a tick may change is held for every action that is handed out, whatever its numbers; so are bounds, also by what
is executed where no chunk is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from vlart.errors import RuntimeFailure

H, D = 4, 2


class Rows(nn.Module):
    """Row k of a chunk: the state, and k more."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Buffer(torch.arange(H, dtype=torch.float32).reshape(1, H, 1))

    def forward(self, state):
        return {"action": state[:, None, :] + self.rows}


class Away(Rows):
    """Actions from 1 to 6, whatever the state."""

    def forward(self, state):
        return {"action": super().forward(torch.tanh(state) + 2)["action"]}


@pytest.fixture
def built(tmp_path):
    def build(*lines: str, model: type[nn.Module] = Rows) -> vc.Bundle:
        (tmp_path / "r.toml").write_text("\n".join(['name = "r"', 'description = "r"', "[action]", *lines]))
        policy = vc.Policy("rows", model().eval(), {"state": vc.Source("observation")}, {"state": torch.ones(1, D)})
        return vc.build(policy, recipe=str(tmp_path / "r.toml"), out=tmp_path / "r.vlab")
    return build


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e8, 1e30])
@pytest.mark.parametrize("most", [1e-3, 5.0])
def test_rounding_does_not_pass_a_limit(built, scale, most):
    """Numbers of an action lie up to 8 apart at 1e8: the nearest one to a limit may be beyond it."""
    rng, handed = np.random.default_rng(0), []
    with vc.Session(built(f"max_step = [{most}, {most}]", "execute = 2").path) as session:
        for tick in range(200):
            if tick % 2 == 0:
                session.write("state", (scale * (1 + rng.uniform(-1e-2, 1e-2, (1, D)))).astype(np.float32))
                session.step()
            handed.append(session.pop().astype(np.float64))
    moved = np.abs(np.diff(handed, axis=0))
    assert moved.max() <= most * (1 + 1e-6)
    if 2e-2 * scale > most and scale <= 1e3:
        assert moved.max() >= 0.9 * most  # the limit was reached


def test_a_safe_action_is_within_the_bounds(built):
    """Of what is checked on the way out, the action that is executed where no chunk is may be no exception."""
    path = built("low = [0.5, -1.0]", "high = [20.0, 20.0]", model=Away).path
    for safe, dimension in (("zero", 0), ([1.0, 21.0], 1), ([1.0, -2.0], 1)):
        with pytest.raises(RuntimeFailure, match="safe action is outside") as caught:
            vc.AsyncSession(path, safe=safe)
        assert caught.value.status == "ACTION_OUT_OF_RANGE" and f"dimension {dimension}" in str(caught.value)
    for safe in ("hold", [0.5, 20.0]):
        vc.AsyncSession(path, safe=safe).close()
    vc.AsyncSession(built().path, safe=[1e6, -1e6]).close()  # a policy without bounds


@pytest.mark.parametrize("rows, status", [(0, "BAD_ARGUMENT"), (3, "QUEUE_EMPTY"), (2**32 - 1, "QUEUE_EMPTY")])
def test_more_rows_than_there_are_are_refused(built, rows, status):
    with vc.Session(built("execute = 2").path) as session:
        session.write("state", np.ones((1, D), np.float32))
        session.step()
        with pytest.raises(RuntimeFailure) as caught:
            session.pop_rows(rows)
        assert caught.value.status == status and session.queue().remaining == 2
        assert session.pop_rows(2)[:, 0].tolist() == [1, 2]
