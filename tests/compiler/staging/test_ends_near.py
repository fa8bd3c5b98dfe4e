"""A loop whose end f32 rounding decides is told; one that ends clearly is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples.policies import EVERY_STAGE
from vlart.errors import CaptureError

SUM = 10  # steps of 0.1, which f32 sums to 1, or to a last bit beside it


class Counting(nn.Module):
    """0.1 after 0.1, up to a limit. The state decides nothing, but no value is a constant."""

    def __init__(self, limit: float, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.limit, self.dtype = limit, dtype

    def forward(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        step = (0.1 + 0.0 * state.mean().clamp(-1, 1)).to(self.dtype)

        def add(k: int, given: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            return given[0] + step, given[1] + 1

        _, count = vc.iterate(add, (torch.zeros(1, dtype=self.dtype), torch.zeros(1)), 2 * SUM,
                              until=lambda given: given[0] >= self.limit)
        return {"action": count[None] + state.tanh()}


def built(limit: float, folder, **words) -> vc.Bundle:
    recipe = folder / "every_stage.toml"
    recipe.write_text(EVERY_STAGE, encoding="utf-8")
    policy = vc.Policy("counting", Counting(limit, **words).eval(), {"state": vc.Source("observation")},
                       {"state": torch.randn(1, 4)})
    return vc.build(policy, recipe=str(recipe), out=folder / "counting.vlab")


@pytest.mark.parametrize(("limit", "near"), [(1.0, True), (0.95, False), (1.05, False)])
def test_an_end_within_rounding_is_told(tmp_path, cli, limit, near):
    bundle = built(limit, tmp_path)
    told = [note for note in bundle.manifest["provenance"]["notes"] if "within rounding" in note]
    assert bool(told) == near and all(f"after {SUM} or {SUM + 1} iterations" in note for note in told)
    code, out, _ = cli("inspect", bundle.path)
    assert code == 0 and (" ".join(told) in " ".join(out.split())) and ("within rounding" in out) == near


def test_an_end_that_float64_decides_is_refused(tmp_path):
    with pytest.raises(CaptureError, match="decided in float64") as error:
        built(0.95, tmp_path, dtype=torch.float64)
    assert "test_ends_near.py" in error.value.where and "float()" in error.value.fix
