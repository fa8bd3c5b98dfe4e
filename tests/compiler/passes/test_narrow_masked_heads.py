"""Heads of which only some outputs can be chosen: the same choice, from the rows that can be chosen alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vlacompile as vc
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import Program, execute
from vlacompile.compiler.passes.fold_slices_into_linears import FoldSlicesIntoLinears
from vlacompile.compiler.passes.narrow_masked_heads import NarrowMaskedHeads
from vlacompile.frontends.decoding import drawn_by_inversion, drawn_with_gumbel

WORDS, WIDTH = 40, 6
IDS = torch.tensor([3, 4, 9, 20, 21, 38])
ALLOWED = torch.zeros(WORDS, dtype=torch.bool).index_fill(0, IDS, True)
ADDED = torch.where(ALLOWED, 0.0, -torch.inf)
UP_TO_A_NUMBER = torch.where(ALLOWED, 0.0, torch.finfo(torch.float32).min)


class Chooser(torch.nn.Module):
    def __init__(self, how, bias: bool = True):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.head = how, torch.nn.Linear(WIDTH, WORDS, bias=bias)
        with torch.no_grad():  # equal rows: the first of them is chosen
            self.head.weight[20] = self.head.weight[4] = self.head.weight[5]
            if bias:
                self.head.bias[20] = self.head.bias[4] = self.head.bias[5]

    def forward(self, x, uniform):
        return {"action": self.how(self.head(x), uniform)}


def choosing(how, bias: bool = True) -> vc.Policy:
    inputs = {"x": torch.randn(1, 3, WIDTH), "uniform": torch.rand(1, 3, WORDS)}
    return vc.Policy("choosing", Chooser(how, bias).eval().requires_grad_(False),
                     {"x": vc.Source("observation"), "uniform": vc.Source("step")}, inputs)


def rows_of_heads(program: Program) -> set[int]:
    return {program.constants[n.args[1].target].shape[0] for n in program.graph.nodes
            if n.target is torch.ops.aten.linear.default}


CHOICES = {
    "where": lambda y, u: torch.where(ALLOWED, y, -torch.inf).argmax(-1),
    "masked_fill": lambda y, u: y.masked_fill(~ALLOWED, -torch.inf).argmax(-1),
    "an added mask": lambda y, u: (y + ADDED).argmax(-1),
    "twice": lambda y, u: torch.where(ALLOWED, y.masked_fill(torch.arange(WORDS) > 37, -torch.inf),
                                      -torch.inf).argmax(-1),
    "with a temperature": lambda y, u: (torch.where(ALLOWED, y, -torch.inf) / 0.7).argmax(-1),
    "a softmax": lambda y, u: torch.softmax(y.masked_fill(~ALLOWED, -torch.inf), -1).argmax(-1),
    "noise": lambda y, u: drawn_with_gumbel(torch.where(ALLOWED, y, -torch.inf) / 1.3, u),
    "with the dimension": lambda y, u: torch.where(ALLOWED, y, -torch.inf).argmax(-1, keepdim=True),
    "a bias for every word": lambda y, u: (
        torch.where(ALLOWED, y, -torch.inf) + torch.linspace(0, 2, WORDS)).argmax(-1),
}


def seen(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(1, 3, WIDTH, generator=draw), "uniform": torch.rand(1, 3, WORDS, generator=draw)}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", CHOICES)
def test_only_what_can_be_chosen_leaves_the_head(how, bias):
    policy = choosing(CHOICES[how], bias)
    result = NarrowMaskedHeads().run(capture(policy))
    assert result.changed and rows_of_heads(result.program) == {5 if how == "twice" else 6}
    assert not NarrowMaskedHeads().run(result.program).changed
    chosen = set()
    for seed in range(30):
        want = policy.infer(**seen(seed))["action"]
        assert torch.equal(execute(result.program, seen(seed))[0]["action"], want)
        chosen |= set(want.flatten().tolist())
    assert chosen <= set(IDS.tolist()) and len(chosen) > 3 and 5 not in chosen, "4 and 20 are equal to the hidden 5"


LEFT = {
    "nothing is hidden": lambda y, u: y.argmax(-1),
    "a large number is not infinite": lambda y, u: (y + UP_TO_A_NUMBER).argmax(-1),
    "what is hidden depends on an input": lambda y, u: torch.where(u > 0.5, y, -torch.inf).argmax(-1),
    "all are hidden": lambda y, u: torch.where(ALLOWED & ~ALLOWED, y, -torch.inf).argmax(-1),
    "the numbers are read, too": lambda y, u: torch.where(ALLOWED, y, -torch.inf).argmax(-1) + y.sum(-1),
    "it is the smallest": lambda y, u: (-torch.where(ALLOWED, y, -torch.inf)).argmax(-1),
    "rows are compared": lambda y, u: torch.where(ALLOWED, y, -torch.inf).argmax(1),
    "they change their order": lambda y, u: torch.where(ALLOWED, y, -torch.inf).flip(-1).argmax(-1),
}


@pytest.mark.parametrize("why", LEFT)
def test_a_head_whose_choice_is_another_is_left(why):
    assert not NarrowMaskedHeads().run(capture(choosing(LEFT[why]))).changed


def test_logits_of_constant_ids_are_those_alone():
    def how(y, u):
        chosen = y[..., IDS]
        return IDS[(chosen / 0.8).argmax(-1)] + drawn_by_inversion(y[..., IDS.flip(0)[:4]], u[..., :1]) * 100

    policy = choosing(how)
    result = FoldSlicesIntoLinears().run(capture(policy))
    assert result.changed and rows_of_heads(result.program) == {6}
    for seed in range(30):
        want = policy.infer(**seen(seed))["action"]
        assert torch.equal(execute(result.program, seen(seed))[0]["action"], want)


@pytest.mark.parametrize("draw", [drawn_by_inversion, drawn_with_gumbel])
def test_drawn_tokens_have_their_probabilities(draw):
    torch.manual_seed(0)
    logits = torch.tensor([0.3, -torch.inf, 1.5, -0.4, -torch.inf, 0.9])
    uniform = torch.rand(40000, 1 if draw is drawn_by_inversion else 6).clamp(1e-6)
    found = torch.bincount(draw(logits.expand(40000, 6), uniform), minlength=6) / 40000
    assert torch.allclose(found, torch.softmax(logits, -1), atol=0.01) and found[1] == 0
    if draw is drawn_by_inversion:  # the ends
        hidden = torch.tensor([-torch.inf, 0.0, 1.0])
        assert draw(hidden, torch.tensor([0.0])) == 1 and draw(hidden, torch.tensor([1.0])) == 2


def test_tokens_are_drawn_in_libvlart_as_in_pytorch(tmp_path):
    def how(y, u):
        a = drawn_with_gumbel(torch.where(ALLOWED, y, -torch.inf) / 0.9, u)
        b = drawn_by_inversion(F.linear(y[..., IDS], torch.eye(6)), u[..., :1])
        return torch.stack([a.float(), IDS[b].float()], -1)

    policy, said = choosing(how), set()
    bundle = vc.build(policy, out=tmp_path / "c.vlab")
    with vc.Session(bundle.path) as session:
        for seed in range(12):
            for name, tensor in seen(seed).items():
                session.write(name, tensor)
            session.step()
            want = policy.infer(**seen(seed))["action"]
            assert torch.equal(torch.from_numpy(session.read("action")), want)
            said |= set(want.flatten().tolist())
    assert len(said) > 3
