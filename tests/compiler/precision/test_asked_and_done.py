"""What was asked of a precision and what was done stand side by side; what is named and not done is refused."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import nn

import vlacompile as vc
from vlacompile.recipe.precision_recipe import PrecisionRecipe, PrecisionRule
from vlacompile.recipe.recipe import load_recipe
from vlart.errors import BudgetError, PrecisionError


class Mlp(nn.Module):
    def __init__(self, *widths: int):
        super().__init__()
        torch.manual_seed(0)
        layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, state):
        return {"action": self.net(state)[:, None]}


def policy(*widths: int) -> vc.Policy:
    draw = torch.Generator().manual_seed(1)
    return vc.Policy("mlp", Mlp(*widths).eval(), {"state": vc.Source("observation")},
                     {"state": torch.randn(1, widths[0], generator=draw)})


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(3, 14, 4)

    def forward(self, image):
        return {"action": self.net(image).mean((2, 3)).reshape(1, 2, 7)}


def conv() -> vc.Policy:
    return vc.Policy("conv", Conv().eval(), {"image": vc.Source("observation")}, {"image": torch.rand(1, 3, 8, 8)})


def recipe(tmp_path, body: str) -> str:
    path = tmp_path / "r.toml"
    path.write_text(f'name = "r"\ndescription = ""\n[precision]\n{body}', encoding="utf-8")
    return str(path)


INT8 = 'layers = "auto"\nschemes = ["int8"]\nminimise = "bytes"\n'


def facts(bundle: vc.Bundle) -> dict:
    return bundle.manifest["provenance"]["precision"]


def schemes(bundle: vc.Bundle) -> list[str]:
    return [p.scheme for s in bundle.plan.stages for p in s.precisions]


@pytest.mark.parametrize("widths", [(16, 512, 512, 7), (16, 64, 64, 7), (16, 32, 32, 7), (8, 12)])
@pytest.mark.parametrize("name", ["int8", "int4", "fp16"])
def test_what_is_named_is_carried_out(tmp_path, name, widths):
    """Of layers that are small, or touch the action, where there are no others."""
    built = vc.build(policy(*widths), recipe=name, out=tmp_path / "p.vlab")
    row = next(r for r in facts(built)["carried_out"] if r["scheme"] == name)
    assert 0 < row["number"] <= row["of"] and 0 < row["bytes"] <= row["of_bytes"]
    assert row["line"].startswith(f"{name}: {row['number']} of {row['of']} ")
    assert name == "fp16" or name in schemes(built)
    notes = built.manifest["provenance"]["notes"]
    assert any(note == f"precision: {row['line']}" for note in notes)


def test_what_costs_too_much_is_refused_with_numbers(tmp_path):
    with pytest.raises(BudgetError) as caught:
        vc.build(policy(16, 512, 512, 7), recipe=recipe(tmp_path, INT8 + "max_action_error = 1e-5\n"),
                 out=tmp_path / "p.vlab")
    error = caught.value
    assert error.what == "int8 is applied nowhere: 0 of 3 layers, 0 of 1.1 MB" and "allowed 1e-05" in error.why
    assert "net.2 alone costs 0.0" in error.why and "optional = true" in error.fix and "max_action_error" in error.fix
    assert error.reachable["max_action_error"] > 1e-5
    assert not (tmp_path / "p.vlab").exists()


def test_a_recipe_may_say_that_the_policy_may_stay(tmp_path):
    built = vc.build(policy(16, 512, 512, 7),
                     recipe=recipe(tmp_path, INT8 + "max_action_error = 1e-5\noptional = true\n"),
                     out=tmp_path / "p.vlab")
    row, = facts(built)["carried_out"]
    assert set(schemes(built)) == {"fp32"} and (row["number"], row["bytes"]) == (0, 0)
    assert "would cost 0.0" in row["line"] and "allowed 1e-05" in row["line"]


def test_auto_with_a_choice_of_several_may_choose_none(tmp_path):
    body = 'layers = "auto"\nminimise = "bytes"\nmax_action_error = 1e-6\n'
    built = vc.build(policy(16, 512, 512, 7), recipe=recipe(tmp_path, body), out=tmp_path / "p.vlab")
    row, = facts(built)["carried_out"]
    assert row["line"] == "auto: 0 of 3 layers, 0 of 1.1 MB; no other layer gains within the allowed error"


def test_a_policy_without_a_layer_that_takes_it(tmp_path):
    with pytest.raises(PrecisionError, match="int4 is applied nowhere: 0 of 1 layers") as caught:
        vc.build(conv(), recipe="int4", out=tmp_path / "p.vlab")
    assert "no kernel for a convolution in int4" in caught.value.why
    plain = vc.Policy("sum", lambda state: {"action": state[:, None] * 2}, {"state": vc.Source("observation")},
                      {"state": torch.randn(1, 4)})
    for name, what in (("int8", "0 of 0 layers"), ("fp16", "0 of 2 operations")):
        with pytest.raises(PrecisionError, match=f"{name} is applied nowhere: {what}") as caught:
            vc.build(plain, recipe=name, out=tmp_path / "p.vlab")
        assert caught.value.exit_code == 11


def test_a_board_chooses_fp16_by_itself_and_may_do_without(tmp_path):
    plain = vc.Policy("sum", lambda state: {"action": state[:, None] * 2}, {"state": vc.Source("observation")},
                      {"state": torch.randn(1, 4)})
    built = vc.build(plain, target="orin-nano-8gb", out=tmp_path / "p.vlab")
    assert facts(built)["carried_out"][0]["number"] == 0


def test_one_layer_of_a_block_where_the_block_is_too_much(tmp_path):
    class Blocks(nn.Module):
        """A block of two layers, the second of which is followed by what cancels."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList([nn.ModuleDict({"calm": nn.Linear(64, 128), "loud": nn.Linear(128, 64)})])
            self.head = nn.Linear(64, 7)

        def forward(self, state):
            block = self.blocks[0]
            x = torch.relu(block["calm"](state))
            y = block["loud"](x)
            return {"action": self.head(x[:, :64] + 30 * (y - y.roll(1, -1)))[:, None]}

    torch.manual_seed(0)
    example = {"state": torch.randn(1, 64)}
    made = vc.Policy("blocks", Blocks().eval(), {"state": vc.Source("observation")}, example)
    whole = vc.build(made, recipe=recipe(tmp_path, INT8 + "max_action_error = 3.0\n"), out=tmp_path / "w.vlab")
    limit = 0.95 * facts(whole)["action_error"]
    apart = vc.build(made, recipe=recipe(tmp_path, INT8 + f"max_action_error = {limit}\n"), out=tmp_path / "a.vlab")
    assert facts(whole)["carried_out"][0]["number"] == 2 and facts(apart)["carried_out"][0]["number"] == 1
    assert facts(apart)["action_error"] <= limit


def test_what_a_recipe_names():
    named = {name: load_recipe(name).precision.named for name in ("default", "fp16", "int8", "int4", "auto")}
    assert named == {"default": (), "fp16": (), "int8": ("int8",), "int4": ("int4",), "auto": ()}
    ruled = PrecisionRecipe(base="fp16", layers="fp16", rule=(PrecisionRule("a", "int8"), PrecisionRule("b", "fp32")))
    assert ruled.named == ("int8",)
    assert PrecisionRecipe(base="fp16", layers="auto", schemes=("fp16", "int4"),
                           max_action_error=0.1).named == ("int4",)


def test_build_prints_both(tmp_path, cli, monkeypatch):
    (tmp_path / "robot_mlp.py").write_text("from tests.compiler.precision.test_asked_and_done import policy\ndef "
                                           "make():\n    return policy(16, 64, 64, 7)\n",
                                           encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, err = cli("build", "robot_mlp:make", "-r", "int8", "-o", tmp_path / "p.vlab")
    assert code == 0, err
    assert "precision int8 was asked\n" in out and "int8: 1 of 3 layers" in out and "on generated observations" in out
    code, out, err = cli("build", "robot_mlp:make", "-r", "int8", "-o", tmp_path / "p.vlab", "--json")
    document = json.loads(out)
    assert document["recipe"] == "int8" and document["precision"]["carried_out"][0]["scheme"] == "int8"
    code, out, err = cli("build", "robot_mlp:make", "-t", "orin-nano-8gb", "-r", "int8", "-o", tmp_path / "p.vlab")
    assert code == 0 and "action error not measured: no real observation was seen" in out
    assert "flash and serve refuse it without --uncalibrated" in out
