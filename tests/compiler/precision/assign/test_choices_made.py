"""How many choices between scores fall otherwise in a precision: counted, stated, and none where nothing is chosen."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples.policies import flow
from vlacompile.compiler.precision.assign.choices_made import CHOOSES, Changed, Choices, changed
from vlart.bundle.precision_record import error_lines


def seen(*chosen: int) -> Choices:
    found, node = Choices(), SimpleNamespace(target=next(iter(CHOOSES)))
    for number in chosen:
        found.see(SimpleNamespace(name="step"), node, torch.tensor([number]))
    return found


@pytest.mark.parametrize(("got", "want", "number", "of"), [
    ((1, 2, 3), (1, 2, 3), 0, 3), ((1, 5, 3), (1, 2, 3), 1, 3), ((1, 2), (1, 2, 3), 1, 3), ((), (7,), 1, 1)])
def test_a_loop_that_ends_elsewhere_chose_otherwise_from_there_on(got, want, number, of):
    assert changed([seen(*got), seen(*got)], [seen(*want), seen(*want)]) == Changed(2 * number, 2 * of)


class Tokens(nn.Module):
    """A state f32 [1,16] -> 12 tokens, each the largest of 64 scores, as actions."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU())
        self.heads = nn.Linear(256, 12 * 64)

    def forward(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"action": self.heads(self.body(state)).view(1, 12, 64).argmax(-1) / 63}


def tokens() -> vc.Policy:
    torch.manual_seed(0)
    states = [{"state": torch.randn(1, 16)} for _ in range(16)]
    return vc.Policy("tokens", Tokens().eval(), {"state": vc.Source("observation")}, states[0],
                     calibration=tuple(states))


def built(policy: vc.Policy, folder, scheme: str) -> dict:
    recipe = folder / f"{scheme}.toml"
    recipe.write_text(f'name = "{scheme}"\ndescription = "x"\n[precision]\nlayers = "{scheme}"\n', encoding="utf-8")
    bundle = vc.build(policy, recipe=str(recipe), out=folder / f"{scheme}.vlab")
    return bundle.manifest["provenance"]["precision"]


def test_a_bundle_states_how_many_choices_fall_otherwise(tmp_path):
    found = {scheme: built(tokens(), tmp_path, scheme) for scheme in ("int8", "int4")}
    for facts in found.values():
        assert facts["choices"]["of"] == 12 * 12 and facts["held_out_choices"]["of"] == 4 * 12
        line = next(x for x in error_lines(facts) if "choices" in x)
        assert f"{facts['choices']['number']} of 144" in line and f"{facts['held_out_choices']['number']} of 48" in line
    assert found["int4"]["choices"]["number"] > 2 * found["int8"]["choices"]["number"]


def test_a_policy_that_chooses_nothing_states_none(tmp_path):
    facts = built(flow(), tmp_path, "int8")
    assert facts["choices"] is None and not any("choices" in line for line in error_lines(facts))
