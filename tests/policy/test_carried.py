"""What a policy may say of values that a step takes from the one before, and what it is told where that does not
fit."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

import vlacompile as vc
from vlart.errors import VlaError

WIDTH = 4


def adds(x: torch.Tensor, total: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"action": (total + x)[:, None], "total.next": total + x}


def grows(x: torch.Tensor, total: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"action": x[:, None], "total.next": torch.cat([total, x])}


def policy(function: Callable = adds, carried: dict | None = None) -> vc.Policy:
    kept = {"total": vc.Carried("total.next", initial=torch.zeros(1, WIDTH))} if carried is None else carried
    return vc.Policy("adds", function, {"x": vc.Source("observation")}, {"x": torch.ones(1, WIDTH)}, carried=kept)


def test_a_call_without_it_is_a_first_step():
    one, carried = policy(), {}
    for step in range(3):
        values = one.infer(x=torch.ones(1, WIDTH), **carried)
        carried = one.handed_on(values)
        assert values["action"].unique().tolist() == [step + 1.0] and list(carried) == ["total"]
    assert one.infer(x=torch.ones(1, WIDTH))["action"].unique().tolist() == [1.0]


def test_its_first_content_may_be_computed_of_what_was_written_then():
    one = policy(carried={"total": vc.Carried("total.next", initial=lambda x: 10 * x)})
    values = one.infer(x=torch.ones(1, WIDTH))
    assert values["total.next"].unique().tolist() == [11.0]
    values = one.infer(x=torch.full((1, WIDTH), 2.0), **one.handed_on(values))
    assert values["total.next"].unique().tolist() == [13.0], "not of what is written later"


REFUSED = {
    "lifetime": (lambda: vc.Carried("a", initial=torch.zeros(1), until="session"), '"session" is not a lifetime'),
    "number": (lambda: vc.Carried("a", initial=torch.tensor(0.0)), "a number without dimensions"),
    "nan": (lambda: vc.Carried("a", initial=torch.full((1,), torch.nan)), "NaN or infinity"),
    "list": (lambda: vc.Carried("a", initial=[0.0]), "list is no first content"),
    "unnamed": (lambda: vc.Carried("", initial=torch.zeros(1)), "is not a name"),
    "source": (lambda: policy(carried={"x": vc.Carried("total.next", initial=torch.zeros(1, WIDTH))}),
               '"x" is a source and carried'),
    "itself": (lambda: policy(carried={"total": vc.Carried("total", initial=torch.zeros(1, WIDTH))}),
               '"total" names an input and an output'),
    "twice": (lambda: policy(carried={n: vc.Carried("total.next", initial=torch.zeros(1)) for n in ("a", "b")}),
              '"a" and "b" take the same output'),
    "mapping": (lambda: policy(carried={"total": "total.next"}), '"total" is a str'),
    "missing": (lambda: policy(carried={"total": vc.Carried("sum", initial=torch.zeros(1, WIDTH))}).infer(
        x=torch.ones(1, WIDTH)), "returns no sum"),
    "shape": (lambda: policy(carried={"total": vc.Carried("total.next", initial=torch.zeros(1, 1))}).infer(
        x=torch.ones(1, WIDTH)), '"total.next" does not fit "total"'),
    "unknown": (lambda: policy(carried={"total": vc.Carried("total.next", initial=lambda words: words)}).infer(
        x=torch.ones(1, WIDTH)), 'computed of "words", which is no source'),
    "scalar": (lambda: policy(carried={"total": vc.Carried("total.next", initial=lambda x: x.sum())}).infer(
        x=torch.ones(1, WIDTH)), "without dimensions"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_where_it_is_said(kind):
    make, words = REFUSED[kind]
    with pytest.raises(VlaError, match=re.escape(words)) as refused:
        make()
    assert refused.value.where and refused.value.why and refused.value.fix


def test_a_cache_that_grows_is_told_to_be_a_ring():
    with pytest.raises(VlaError, match='"total.next" does not fit') as refused:
        policy(grows).infer(x=torch.ones(1, WIDTH))
    assert "float32[2, 4]" in refused.value.why and "torch.where(row, new, old)" in refused.value.fix


class Keeps(nn.Module):
    """Keeps its state in an attribute, as code that is run step by step does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("hidden", torch.zeros(1, 64))
        self.cell = nn.GRUCell(WIDTH, 64)
        self.head = nn.Linear(64, WIDTH)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.hidden = self.cell(x, self.hidden)
        return {"action": self.head(self.hidden)[:, None]}


def test_a_module_that_keeps_state_is_told_how_and_so_it_is_built(tmp_path):
    module = Keeps().eval()
    sources, example = {"x": vc.Source("observation")}, {"x": torch.ones(1, WIDTH)}
    with pytest.raises(VlaError) as refused:
        vc.build(vc.Policy("keeps", module, sources, example), out=tmp_path / "k.vlab")
    said = re.search(r"carried=(\{.*?\}\))", refused.value.fix.replace("Policy(..., ", ""))
    assert said, refused.value.fix
    carried = eval(said[1][:-1], {"vlacompile": vc, "torch": torch})  # our own message

    def step(x: torch.Tensor, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = module.cell(x, hidden)
        return {"action": module.head(hidden)[:, None], "hidden.next": hidden}

    made = vc.Policy("keeps", step, sources, example, carried=carried)
    bundle = vc.build(made, out=tmp_path / "k.vlab")
    with vc.Session(bundle.path) as session, torch.no_grad():
        hidden = torch.zeros(1, 64)
        for k in range(4):
            session.write("x", torch.full((1, WIDTH), float(k)))
            session.step()
            hidden = module.cell(torch.full((1, WIDTH), float(k)), hidden)
            torch.testing.assert_close(torch.from_numpy(session.read("hidden.next")), hidden, atol=1e-5, rtol=1e-5)
