"""A transformer that computes its whole row of tokens in every denoising step is taken apart by its mask alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vlacompile as vc
from tests.samples.policies import EVERY_STAGE
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.compiler.passes.rules.attention_pattern import attentions_of
from vlacompile.compiler.passes.rules.mask_blocks import KnownBlocks
from vlacompile.compiler.passes.split_tokens_by_rate import SplitTokensByRate
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.recipe import LoopRecipe, Recipe, StagesRecipe

TEXT, IMAGE, SAMPLE, WIDTH, HEADS, STEPS = 6, 8, 5, 32, 4, 4
HOST = load_target("host")
STEPWISE = Recipe("steps", "", StagesRecipe(min_flops=0), loop=LoopRecipe(form="steps"))
CAUSAL = [0] * TEXT + [1] * IMAGE + [2] * SAMPLE  # every block sees itself and the ones before
TOGETHER = [0] * (TEXT + IMAGE) + [1] * SAMPLE  # text and image see each other
EVERYTHING = [0] * (TEXT + IMAGE + SAMPLE)


class Naive(torch.nn.Module):
    """[text | image | sample], no cache. written: attention written out, with a mask that is added."""

    def __init__(self, blocks: list[int], written: bool, layers: int = 3):
        super().__init__()
        linear = lambda a, b: torch.nn.ModuleList([torch.nn.Linear(a, b) for _ in range(layers)])
        self.q, self.k, self.v, self.o = (linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = linear(WIDTH, 2 * WIDTH), linear(2 * WIDTH, WIDTH)
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(WIDTH) for _ in range(layers)])
        self.inward, self.outward = torch.nn.Linear(7, WIDTH), torch.nn.Linear(WIDTH, 7)
        self.blocks, self.written = blocks, written

    def forward(self, text, image, noise, pad):
        block = torch.tensor(self.blocks)
        see = block[None] <= block[:, None]
        see = torch.cat([see[:, :TEXT] & pad, see[:, TEXT:]], 1)[None, None]
        x = noise
        for _ in range(STEPS):
            h = torch.cat([text, image, self.inward(x)], 1)
            for layer in range(len(self.q)):
                h = h + self.o[layer](self.attend(h, layer, see))
                h = h + self.down[layer](F.gelu(self.up[layer](self.norms[layer](h))))
            x = x + self.outward(h[:, -SAMPLE:]) / STEPS
        return {"action": x}

    def attend(self, h, layer, see):
        heads = lambda t: t.view(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
        q, k, v = (heads(p[layer](h)) for p in (self.q, self.k, self.v))
        if self.written:
            scores = torch.matmul(q, k.transpose(2, 3)) * (WIDTH // HEADS) ** -0.5 + torch.where(see, 0.0, -2.3e38)
            out = torch.softmax(scores, -1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, see)
        return out.transpose(1, 2).reshape(1, -1, WIDTH)


def policy(blocks: list[int], written: bool) -> vc.Policy:
    torch.manual_seed(0)
    model = Naive(blocks, written).eval().requires_grad_(False)
    sources = {"text": vc.Source("task"), "image": vc.Source("observation"), "noise": vc.Source("step"),
               "pad": vc.Source("task")}
    inputs = {"text": torch.randn(1, TEXT, WIDTH), "image": torch.randn(1, IMAGE, WIDTH),
              "noise": torch.randn(1, SAMPLE, 7), "pad": torch.arange(TEXT)[None] < 4}
    return vc.Policy("naive", model, sources, inputs)


@pytest.mark.parametrize("written", [False, True], ids=["fused", "written out"])
def test_the_prefix_leaves_the_loop_and_the_text_is_kept(written, tmp_path):
    """What the code computes in every step: 19 tokens. What the bundle does: 5 in every step, 8 per image, 6 per
    task."""
    made = policy(CAUSAL, written)
    (tmp_path / "every.toml").write_text(EVERY_STAGE, encoding="utf-8")
    bundle = vc.build(made, recipe=str(tmp_path / "every.toml"), out=tmp_path / "a.vlab")
    stages = {s.name: s for s in bundle.plan.stages}
    names = {s.name: [bundle.plan.values[v].name for v in s.depends] for s in bundle.plan.stages}
    assert set(names["language"]) == {"text", "pad"}
    step = next(s for s in bundle.plan.stages if s.sampling is not None)
    per_token = step.flops / SAMPLE
    fusion = sum(s.flops for s in bundle.plan.stages if s.name not in ("language", step.name))
    assert fusion / IMAGE < 1.5 * per_token and stages["language"].flops / TEXT < 1.5 * per_token
    with vc.Session(bundle.path) as session:
        for seed in range(3):
            torch.manual_seed(seed)
            seen = made.example_inputs | {"image": torch.randn(1, IMAGE, WIDTH), "noise": torch.randn(1, SAMPLE, 7)}
            for name, tensor in seen.items():
                session.write(name, tensor.numpy())
            session.step()
            assert np.abs(session.read("action") - made.infer(**seen)["action"].numpy()).max() < 1e-5
        assert session.stats().stages["language"].runs == 1
        session.write("text", -made.example_inputs["text"].numpy())
        session.step()
        assert np.abs(session.read("action") - made.infer(**seen)["action"].numpy()).max() > 1e-3


@pytest.mark.parametrize("written", [False, True], ids=["fused", "written out"])
@pytest.mark.parametrize(("blocks", "tokens"), [(CAUSAL, SAMPLE), (TOGETHER, SAMPLE), (EVERYTHING, 19)],
                         ids=["text first", "image and text", "all"])
def test_only_what_the_mask_hides_leaves_the_loop(blocks, tokens, written):
    """Where all see all, the queries, keys and values of the first layer alone do."""
    made = policy(blocks, written)
    program = EliminateCommonSubexpressions().run(capture(made)).program
    got = execute(SplitTokensByRate().run(program).program, made.example_inputs)[0]["action"]
    assert torch.allclose(got, made.infer(**made.example_inputs)["action"], atol=1e-5)
    step = next(s for s in stage(capture(made), HOST, STEPWISE).staged.stages if s.iterations == STEPS)
    per_token = 3 * 2 * 8 * WIDTH * WIDTH
    assert 0.8 * tokens * per_token < step.flops < 1.5 * tokens * per_token


def test_a_part_that_uses_its_weights_too_rarely_stays():
    program = EliminateCommonSubexpressions().run(capture(policy(CAUSAL, False))).program
    assert SplitTokensByRate(least_uses=16).run(program).changed
    assert not SplitTokensByRate(least_uses=1000).run(program).changed


def test_a_mask_that_an_input_decides_hides_nothing():
    made = policy(CAUSAL, True)
    program = EliminateCommonSubexpressions().run(capture(made)).program
    mask, known = next(iter(attentions_of(program).values())).mask, KnownBlocks(program, dependencies(program))
    sizes = [TEXT, IMAGE, SAMPLE]
    assert known.visible_keys(mask, (0, TEXT), sizes) == [0]
    assert known.visible_keys(mask, (TEXT, TEXT + IMAGE), sizes) == [0, 1]
    assert known.visible_keys(mask, (TEXT + IMAGE, sum(sizes)), sizes) == [0, 1, 2]
    assert known.visible_keys(mask, (0, TEXT + IMAGE), sizes) == [0, 1]
    assert known.block(mask, (0, TEXT), (0, TEXT)) is None, "the instruction's padding is an input"
    assert known.visible_keys(None, (0, TEXT), sizes) == [0, 1, 2]


def test_a_mask_with_one_hole_is_seen_through():
    """One image token may see one sample token: the image stays in the loop."""
    made = policy(CAUSAL, False)
    original = made.observe.forward

    class Hole(Naive):
        def attend(self, h, layer, see):
            hole = torch.zeros(see.shape[-2:], dtype=torch.bool)
            hole[TEXT, TEXT + IMAGE] = True
            return super().attend(h, layer, see | hole)

    torch.manual_seed(0)
    holed = replace(made, observe=Hole(CAUSAL, False).eval().requires_grad_(False))
    assert original is not holed.observe
    program = EliminateCommonSubexpressions().run(capture(holed)).program
    result = SplitTokensByRate().run(program)
    got = execute(result.program, made.example_inputs)[0]["action"]
    assert torch.allclose(got, holed.infer(**made.example_inputs)["action"], atol=1e-5)
    mask, known = next(iter(attentions_of(program).values())).mask, KnownBlocks(program, dependencies(program))
    assert 2 in known.visible_keys(mask, (TEXT, TEXT + IMAGE), [TEXT, IMAGE, SAMPLE])


@pytest.mark.parametrize(("steps", "leaves"), [(20, True), (12, False)])
def test_the_iterations_of_a_loop_count_whether_they_are_traced_or_not(steps, leaves):
    """One row that sees no sample is used as often as there are steps, of which three are traced."""
    torch.manual_seed(0)
    body = Naive([0] + [1] * SAMPLE, False).eval().requires_grad_(False)
    for linear in (m for m in body.modules() if isinstance(m, torch.nn.Linear)):
        linear.bias = None

    def observe(state, noise):
        x, see = noise, torch.ones(1 + SAMPLE, 1 + SAMPLE, dtype=torch.bool).tril()
        see[1:, 1:] = True
        for _ in vc.iterations(steps):
            h = torch.cat([state, body.inward(x)], 1)
            for layer in range(3):
                h = h + body.o[layer](body.attend(h, layer, see[None, None]))
                h = h + body.down[layer](F.gelu(body.up[layer](body.norms[layer](h))))
            x = x + body.outward(h[:, 1:]) / steps
        return {"action": x}

    made = vc.Policy("state", observe, {"state": vc.Source("observation"), "noise": vc.Source("step")},
                     {"state": torch.randn(1, 1, WIDTH), "noise": torch.randn(1, SAMPLE, 7)})
    staged = {}
    for whole in (False, True):
        program = capture(made, whole=whole)
        assert program.iterations == ({} if whole else {0: steps})
        split = SplitTokensByRate().run(EliminateCommonSubexpressions().run(program).program)
        assert split.changed == leaves
        staged[whole] = stage(program, HOST, STEPWISE).staged
    tables = [[(s.name, s.sources, s.iterations, s.flops) for s in staged[whole].stages] for whole in (False, True)]
    assert tables[0] == tables[1], "what is planned is what is built"
