"""What stages ask of a board, from their graphs: with and without weights, as emitted, and as the recipe says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.fit.stage_needs import needs_of
from vlacompile.compiler.precision.assign.set_precision import set_precision
from vlacompile.compiler.staging.identical_stages import identical_stages
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.pipeline import plan_on_board
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.precision_recipe import PrecisionRecipe, PrecisionRule
from vlacompile.recipe.recipe import load_recipe

NANO = load_target("orin-nano-8gb")


class Wide(nn.Module):
    """Two cameras behind one encoder, an instruction, layers that are worth quantising."""

    def __init__(self, width: int = 256):
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.ReLU(), nn.Conv2d(width, width, 1))
        self.read, self.mix = nn.Embedding(1000, width), nn.Linear(width, width)
        self.fuse = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, 70)

    def forward(self, base, wrist, tokens) -> dict[str, torch.Tensor]:
        seen = [self.see(i.permute(0, 3, 1, 2).float() / 255).flatten(2).mean(-1) for i in (base, wrist)]
        return {"action": self.head(self.fuse(sum(seen) + self.mix(self.read(tokens)).mean(1))).view(1, 10, 7)}


def wide() -> Policy:
    torch.manual_seed(0)
    frame = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    seen = Source("observation")
    return Policy("wide", Wide().eval(), {"base": seen, "wrist": seen, "tokens": Source("task")},
                  {"base": frame, "wrist": frame.clone(), "tokens": torch.arange(5)[None]})



@pytest.fixture
def apart(tmp_path):
    """A recipe that merges no stages."""
    path = tmp_path / "apart.toml"
    path.write_text('name = "apart"\ndescription = ""\n[stages]\nmin_flops = 0\n', encoding="utf-8")
    return str(path)


@pytest.fixture
def staged(apart):
    return stage(capture(wide(), whole=True), NANO, load_recipe(apart)).staged


def by_name(needs):
    return {s.name: s for s in needs.stages}


def test_with_and_without_weights(apart):
    with weightless():
        empty = wide()
    a, b = (plan_on_board(p, "orin-nano-8gb", apart)[1].fit for p in (wide(), empty))
    assert a == b and a.fits


def test_what_is_open_and_what_is_fixed(staged):
    free = needs_of(staged, PrecisionRecipe())
    assert free.open and by_name(free)["fusion"].schemes == ("fp16", "int8", "int4")
    fixed = needs_of(staged, PrecisionRecipe(layers="int8"))
    assert not fixed.open and by_name(fixed)["fusion"].schemes == ("int8",)
    half = by_name(needs_of(staged, PrecisionRecipe(base="fp16", layers="fp16")))["fusion"]
    full = by_name(needs_of(staged, PrecisionRecipe(base="fp16", layers="fp32")))["fusion"]
    assert full.weights["fp32"] > 1.7 * half.weights["fp16"], "but biases and the head, which touches actions"
    auto = PrecisionRecipe(base="fp16", layers="auto", max_action_error=0.1, schemes=("int8",),
                           rule=(PrecisionRule("fusion/*", "int4"),))
    ruled = by_name(needs_of(staged, auto))
    assert ruled["fusion"].schemes == ("int4",) and ruled["language"].schemes == ("fp16", "int8")


def test_fewer_bits_are_fewer_bytes(staged):
    for s in needs_of(staged, PrecisionRecipe()).stages:
        sizes = [s.weights[k] for k in s.schemes]
        assert sizes == sorted(sizes, reverse=True)
    fusion = by_name(needs_of(staged, PrecisionRecipe()))["fusion"]
    assert fusion.weights["int8"] / fusion.weights["fp16"] == pytest.approx(0.6, abs=0.05), "the head stays"


def test_one_encoder_is_one_engine(staged):
    owners = identical_stages(staged.stages)
    assert owners["vision.wrist"] == owners["vision.base"] == "vision.base" and owners["fusion"] == "fusion"
    class Two(Wide):
        def forward(self, base, wrist, tokens):
            mean = lambda net, i: net(i.permute(0, 3, 1, 2).float() / 255).flatten(2).mean(-1)
            seen = mean(self.see, base) + mean(self.other, wrist)
            return {"action": self.head(self.fuse(seen + self.mix(self.read(tokens)).mean(1))).view(1, 10, 7)}

    two = Two()
    two.other = nn.Sequential(nn.Conv2d(3, 256, 8, 8), nn.ReLU(), nn.Conv2d(256, 256, 1))
    made = Policy("two", two.eval(), wide().sources, wide().example_inputs)
    owners = identical_stages(stage(capture(made, whole=True), NANO, load_recipe(None)).staged.stages)
    assert len(set(owners.values())) == len(owners)


def test_task_stages_may_leave(staged):
    found = by_name(needs_of(staged, PrecisionRecipe()))
    assert found["language"].task_only and not found["fusion"].task_only and found["language"].outputs == 256 * 4


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_planned_bytes_are_those_of_the_emitted_stages(scheme, staged):
    """Rendered for TensorRT: what the initialisers of a stage take; what lies in the model is small."""
    policy = wide()
    recipe = PrecisionRecipe(layers=scheme, rule=(PrecisionRule("*", scheme),))
    precise = set_precision(staged, policy, recipe, NANO, lambda phase: None).staged
    planned = by_name(needs_of(staged, recipe))
    for s in precise.stages:
        arrays = emit_onnx(s, "tensorrt").initializers.values()
        bits = [a.nbytes // (2 if a.dtype.name in ("int4", "uint4") else 1) for a in arrays]
        assert sum(bits) == pytest.approx(planned[s.name].weights[planned[s.name].schemes[0]], rel=0.1, abs=12_000)


def test_the_rules_that_a_plan_gives_are_a_recipe_for_it(apart, tmp_path):
    """On a board with hardly any memory; what the plan says to write, written, is planned alike."""
    text = Path("targets/orin-nano-4gb.toml").read_text(encoding="utf-8")
    board = tmp_path / "small.toml"
    board.write_text(text.replace("visible_mib = 3337", "visible_mib = 1674"), encoding="utf-8")  # 781.2 MB are usable
    free = plan_on_board(wide(), str(board), apart)[1].fit
    chosen = {s.stage: s.scheme for s in free.stages}
    assert free.fits and {"fp16"} < set(chosen.values()) and free.rules
    rules = "".join(f'[[precision.rule]]\nlayers = "{x}"\nscheme = "{s}"\n' for x, s in free.rules)
    recipe = tmp_path / "written.toml"
    recipe.write_text(Path(apart).read_text(encoding="utf-8") + f'[precision]\nbase = "fp16"\nlayers = "fp16"\n{rules}',
                      encoding="utf-8")
    fixed = plan_on_board(wide(), str(board), str(recipe))[1].fit
    assert {s.stage: s.scheme for s in fixed.stages} == chosen and fixed.fits and all(s.fixed for s in fixed.stages)
    assert not fixed.rules


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.lm_head = nn.Linear(2048, 151936, bias=False)

    def forward(self, x):
        return {"action": self.lm_head(x)}


def test_a_vocabulary_is_built_in_pieces_that_the_board_grants():
    """What the plan says of a board is what the stages of that board are; a host needs no pieces."""
    with weightless():
        policy = Policy("head", Head().eval(), {"x": Source("observation")}, {"x": torch.zeros(1, 4, 2048)})
    account, planned = plan_on_board(policy, "orin-nano-8gb")
    fit = planned.fit
    assert any("151936 outputs in 2 products" in note for note in account.notes)
    assert all(not s.split for s in fit.stages) and account.parameters["in_stages"] == 2048 * 151936
    staged = stage(capture(policy), NANO, load_recipe(None)).staged
    most = NANO.board.memory.contiguous_mib << 20
    sizes = [2 * t.numel() for s in staged.stages for t in s.constants.values()]
    assert len(sizes) == 2 and max(sizes) <= most < sum(sizes)
    host = stage(capture(policy), load_target("host"), load_recipe(None)).staged
    assert sum(len(s.constants) for s in host.stages) == 1
