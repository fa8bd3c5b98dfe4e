"""The fit planner on numbers: precision as late as needed, what is loaded when, what would make it fit."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from vlacompile.cli.fit_table import print_fit
from vlacompile.cli.main import main
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.fit.choose import LOSS, Engine, Loading, choose, measure
from vlacompile.compiler.fit.engine_memory import Budget, build_peak
from vlacompile.compiler.fit.liveness import live_peak
from vlacompile.compiler.fit.planner import plan_fit
from vlacompile.compiler.fit.stage_needs import LayerNeed, Needs, Piece, StageNeed
from vlacompile.policy.policy import Policy, Source
from vlart.errors import BudgetError

FREE = ("fp16", "int8", "int4")
BITS = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.625}  # bytes per weight
RESIDENT = Loading(False, "resident", "resident")
NANO = Budget("nano", 7_002_390_528, 500_000_000, 512 << 20)
NX16 = Budget("nx 16", 15_316_549_632, 500_000_000, 2048 << 20)
TINY = "tests.samples.cli_policies:tiny"


def sized(numbers: float, schemes=("fp16", "int8", "int4")) -> dict[str, int]:
    return {s: int(numbers * BITS[s]) for s in schemes}


def stage(name: str, millions: float, task=False, schemes=("fp16", "int8", "int4"), live=20e6, **more) -> StageNeed:
    weights = sized(millions * 1e6, schemes)
    active = dict.fromkeys(weights, int(live))
    return StageNeed(name, int(millions * 1e6), weights, active, task, 1_000_000, name, **more)


def policy(*stages: StageNeed, values: int = 5_000_000) -> Needs:
    return Needs("made", stages, values, True)


def schemes(fit) -> dict[str, str]:
    return {s.stage: s.scheme for s in fit.stages}


# Bytes of weights and peak resident MB of builds that were measured (TensorRT-RTX 1.7.1, x86-64, no GPU)
@pytest.mark.parametrize(("weights", "rss"), [(175, 791), (348, 1300), (150, 699), (1265, 4500), (2822, 8638),
                                              (93, 552), (772, 2499), (49.6, 443), (793, 2700), (533, 1900),
                                              (16.8, 279)])
def test_building_takes_what_was_measured(weights, rss):
    assert build_peak(int(weights * 1e6)) / 1e6 == pytest.approx(rss, rel=0.2)


class Straight(nn.Module):
    def forward(self, x) -> dict[str, torch.Tensor]:
        a = torch.relu(x)  # 400 bytes
        b = torch.cat([a, a])  # 800
        c = torch.tanh(a.view(-1))  # 400, and a is read for the last time
        return {"y": b.sum(0) * c.sum()}  # 40 and 4; y itself is somebody else's


def graph_of(module: nn.Module, x: torch.Tensor):
    made = Policy("made", module.eval(), {"x": Source("observation")}, {"x": x}, outputs=("y",))
    return capture(made, whole=True).graph


def test_values_are_held_until_they_were_read():
    graph = graph_of(Straight(), torch.zeros(10, 10))
    assert live_peak(graph, fp16=False) == 1600 and live_peak(graph, fp16=True) == 800


def test_attention_in_fp32_holds_its_scores():
    class Attends(nn.Module):
        def forward(self, x) -> dict[str, torch.Tensor]:
            return {"y": nn.functional.scaled_dot_product_attention(x, x, x)}

    graph = graph_of(Attends(), torch.zeros(1, 2, 64, 8))
    assert live_peak(graph, fp16=False) - live_peak(graph, fp16=True) >= 2 * 64 * 64 * 4


def test_types_that_were_chosen_count_as_they_are():
    """Of a graph of fp16 and f32: no number is halved again, and only attention in f32 holds scores."""
    class Mixed(nn.Module):
        def forward(self, x) -> dict[str, torch.Tensor]:
            half = nn.functional.scaled_dot_product_attention(x, x, x)  # f16, 2048 bytes
            whole = torch.relu(half.float())  # 4096, twice
            return {"y": torch.tanh(whole)}

    graph = graph_of(Mixed(), torch.zeros(1, 2, 64, 8, dtype=torch.float16))
    assert live_peak(graph, fp16=False) == 2 * 4096


def test_everything_stays_in_fp16_where_there_is_room():
    fit = plan_fit(policy(stage("vision", 100), stage("step", 200)), NANO)
    assert set(schemes(fit).values()) == {"fp16"} and fit.fits and not fit.measures
    assert fit.spare == fit.usable - fit.peak


def test_precision_goes_as_late_as_needed():
    """1.8 G weights in one stage: its build asks int8; the others keep fp16."""
    fit = plan_fit(policy(stage("vision", 400), stage("body", 1800), stage("step", 300)), NANO)
    assert schemes(fit) == {"vision": "fp16", "body": "int8", "step": "fp16"} and fit.swap == 0
    assert any("swap" in a and "body in fp16" in a for a in fit.advice)


def test_more_swap_keeps_more_bits():
    needs = policy(stage("vision", 400), stage("body", 1800), stage("step", 300))
    fit = plan_fit(needs, Budget(NANO.name, NANO.usable, NANO.context, NANO.contiguous, swap=6_000_000_000))
    assert schemes(fit)["body"] == "fp16" and fit.fits and fit.swap > 0 and "swap" in fit.verdict


def test_files_are_mapped_where_reading_would_cost_bits():
    needs = policy(*(stage(f"s{i}", 1000) for i in range(3)))
    fit = plan_fit(needs, Budget("b", 7_000_000_000, 500_000_000, 1 << 40))
    assert fit.fits and "mapped" in fit.measures[0] and set(schemes(fit).values()) == {"fp16"}
    roomy = plan_fit(needs, Budget("b", 9_000_000_000, 500_000_000, 1 << 40))
    assert not roomy.measures


def test_language_leaves_before_bits_do():
    needs = policy(stage("language", 500, task=True), *(stage(f"s{i}", 1000) for i in range(3)))
    budget = Budget("b", 7_000_000_000, 500_000_000, 1 << 40)
    fit = plan_fit(needs, budget)
    assert fit.fits and fit.stages[0].residency == "per task" and set(schemes(fit).values()) == {"fp16"}
    known = plan_fit(needs, budget, instructions=20)
    assert known.stages[0].residency == "library" and known.library == 19 * 1_000_000 and known.stages[0].build == 0
    assert known.spare > 0 and not any("--instructions" in a for a in known.advice)


def test_engines_take_turns_only_when_nothing_else_helps():
    """Fixed in fp16: 6.5 GB of engines, of which the largest has 3.7."""
    fixed = {"schemes": ("fp16",)}
    needs = policy(stage("vision", 434, **fixed), stage("body", 1875, **fixed), stage("step", 945, **fixed))
    budget = Budget("b", 6_000_000_000, 500_000_000, 1 << 40, swap=20_000_000_000)
    fit = plan_fit(needs, budget)
    assert fit.fits and {s.residency for s in fit.stages} == {"per replan"}
    assert fit.peak < 500e6 + 3.75e9 + 100e6
    assert plan_fit(policy(stage("vision", 434), stage("body", 1875), stage("step", 945)), budget).stages[1].residency \
        == "resident", "with bits to lose nothing is loaded for every replan"


def test_a_large_product_is_split():
    head = Piece("lm_head__weight", (151936, 2048), True, sized(151936 * 2048))
    table = Piece("embedding__weight", (257152, 2048), False, sized(257152 * 2048))
    fit = plan_fit(policy(stage("body", 900, pieces=(head, table))), NANO)
    assert fit.stages[0].split == {"lm_head.weight": 2} and list(fit.stages[0].whole) == ["embedding.weight"]
    assert any("embedding.weight needs 1053 MB in one allocation" in m for m in fit.measures)
    assert any("151936" not in m and "2 products" in m for m in fit.measures)
    wide = Budget(NANO.name, NANO.usable, NANO.context, 2 << 30)
    assert plan_fit(policy(stage("body", 900, pieces=(head, table))), wide).stages[0].split == {}


def test_cameras_behind_one_encoder_are_one_engine():
    first, second = stage("vision.a", 400), stage("vision.b", 400)
    alike = policy(first, replace(second, engine="vision.a"))
    fit, apart = plan_fit(alike, NANO), plan_fit(policy(first, second), NANO)
    assert apart.peak - fit.peak > 800_000_000
    assert fit.stages[1].weights == 0 and "run by the engine of vision.a" in fit.measures[-1]


def test_what_cannot_fit_says_what_would_give():
    needs = policy(stage("language", 3000, task=True), stage("body", 55_000))
    fit = plan_fit(needs, NANO, others=(NX16,))
    assert not fit.fits and fit.spare < 0 and "short" in fit.verdict and schemes(fit)["body"] == "int4"
    assert any("no known board" in a for a in fit.advice)
    with pytest.raises(BudgetError) as caught:
        fit.require()
    assert ("body" in caught.value.why and "34375" in caught.value.why.replace(" ", "")) or "34395" in caught.value.why
    assert caught.value.reachable["memory_mb"] > 34_000
    fixed = plan_fit(policy(stage("body", 6600, schemes=("fp16",))), NX16, others=())
    assert fixed.fits and fixed.swap > 0
    fixed = plan_fit(policy(stage("body", 6600, schemes=("fp16",))), NANO, others=(NX16,))
    assert any('fixes body in fp16: leave it to "auto"' in a for a in fixed.advice) and "it fits nx 16" in fixed.advice


@pytest.mark.parametrize("seed", range(30))
def test_no_choice_loses_less(seed):
    """Against all choices of small cases."""
    draw = random.Random(seed)
    engines = tuple(Engine(f"e{i}", n := draw.randrange(50, 2500) * 1_000_000, sized(n), dict.fromkeys(sized(n), 10**7),
                           i == 0, 10**6) for i in range(3))
    budget = Budget("b", draw.randrange(2, 12) * 10**9, 5 * 10**8, 1 << 40, swap=draw.choice((0, 10**10)))
    loading = Loading(draw.random() < 0.5, draw.choice(("resident", "per task", "library")), "resident")
    best = None
    for each in itertools.product(("fp16", "int8", "int4"), repeat=3):
        chosen = measure(engines, dict(zip(("e0", "e1", "e2"), each, strict=True)), budget, 10**7, loading)
        if chosen.peak <= budget.usable and chosen.build <= budget.usable + budget.swap:
            best = min(chosen.loss, best) if best is not None else chosen.loss
    found = choose(engines, budget, 10**7, loading)
    assert (found is None) == (best is None)
    if found is not None:
        assert found.loss == pytest.approx(best) and found.peak <= budget.usable
        assert found.loss == sum(LOSS[found.schemes[e.name]] * e.numbers for e in engines)


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_plan_prints_the_fit(narrow, capsys):
    assert main(["plan", TINY, "--no-weights", "--target", "orin-nano-8gb"]) == 0
    text = capsys.readouterr().out
    assert "fits, " in text and "MB spare" in text and "modelled" in text
    assert max(map(len, text.splitlines())) <= 80
    assert main(["plan", TINY, "--no-weights", "--target", "orin-nano-8gb", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fit"]["fits"] and document["fit"]["modelled"] and document["stages"]
    assert main(["plan", TINY, "--no-weights", "--json"]) == 0
    assert "fit" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("budget", [NANO, replace(NX16, name="orin-nx-16gb@maxn-super+jetpack-7.2")])
@pytest.mark.parametrize("free", [True, False])
def test_any_fit_prints_in_80_columns(capsys, budget, free):
    """With the longest names that cameras have, shared engines, splits and instructions."""
    few = FREE if free else ("fp16",)
    same = replace(stage("vision.left_wrist", 400, schemes=few), engine="vision.right_wrist")
    head = Piece("policy__language_model__lm_head__weight", (151936, 2048), True, sized(151936 * 2048))
    needs = Needs("made",
                  (stage("vision.right_wrist", 400, schemes=few), same, stage("language", 500, True, schemes=few),
                   stage("fusion.2", 1800, schemes=few, pieces=(head,)), stage("step", 300, schemes=few)),
                  1, free)
    fit = plan_fit(needs, budget, instructions=12)
    print_fit(Console(width=80, markup=False, highlight=False), fit)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80 and "  shared" in text and "leaves" in text and "…" not in text
    assert ("the recipe fixes the precision of all stages" in text) == (not free)


def test_plan_of_what_does_not_fit_ends_with_an_error(narrow, capsys, tmp_path):
    text = Path("targets/orin-nano-4gb.toml").read_text(encoding="utf-8")
    (tmp_path / "small.toml").write_text(text.replace("visible_mib = 3337", "visible_mib = 1000"), encoding="utf-8")
    assert main(["plan", TINY, "--no-weights", "--target", str(tmp_path / "small.toml"), "--json"]) == 11
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert not document["fit"]["fits"] and document["error"] == "BudgetError" and "does not fit" in err
    assert document["reachable"]["memory_mb"] > 500


def test_options_of_boards_are_refused_elsewhere(narrow, capsys):
    assert main(["plan", TINY, "--instructions", "3"]) == 3
    assert "the target has no memory" in capsys.readouterr().err


def test_an_engine_that_is_not_read_for_the_task_alone_stays():
    """One encoder, run for the instruction and for what is seen."""
    text = stage("language", 500, task=True)
    both = replace(stage("captions", 500), engine="language")
    fit = plan_fit(policy(text, both), NANO, instructions=3)
    assert {s.residency for s in fit.stages} == {"resident"} and fit.library == 0


# equal layers as a loop

def deep(name: str, millions: float, layers: int = 17, share: float = 0.98, **more) -> StageNeed:
    """share: of its weights, that are the layers'."""
    given = stage(name, millions, **more)
    table = int(given.weights["fp16"] * share) // layers * layers
    return replace(given, by_layer=LayerNeed(layers, table, given.weights["fp16"] - table, 20_000_000))


def looped(fit) -> dict[str, int]:
    return {s.stage: s.layers for s in fit.stages}


def test_layers_become_a_loop_before_any_precision_is_given_up():
    """As one engine it is not built in 8 GB; as a loop it is, in fp16."""
    whole, by_layer = stage("prefix", 1972), deep("prefix", 1972)
    assert schemes(plan_fit(policy(whole), NANO)) == {"prefix": "int8"}
    fit = plan_fit(policy(by_layer), NANO)
    assert fit.fits and not fit.swap and schemes(fit) == {"prefix": "fp16"} and looped(fit) == {"prefix": 17}
    assert fit.rules == ()
    depth, = (s.depth for s in fit.stages)
    layer = by_layer.by_layer.table // 17
    assert depth.looped_build == build_peak(by_layer.by_layer.rest) + 2 * layer < depth.unrolled_build / 5
    assert depth.unrolled_build == build_peak(by_layer.weights["fp16"]) and depth.launches == 18
    assert depth.looped_files < depth.unrolled_files / 5
    assert depth.unrolled_resident < depth.looped_resident < 1.01 * depth.unrolled_resident
    assert any("one engine for its 17 equal layers" in m for m in fit.measures)


def test_what_fits_as_one_engine_stays_one():
    fit = plan_fit(policy(deep("prefix", 500)), NANO)
    assert fit.fits and looped(fit) == {"prefix": 0} and schemes(fit) == {"prefix": "fp16"}


def test_loops_do_not_help_where_running_takes_too_much():
    """Weights are as many either way."""
    fit = plan_fit(policy(deep("prefix", 4000)), NANO)
    assert fit.fits and schemes(fit)["prefix"] != "fp16" and looped(fit) == {"prefix": 0}


def test_a_recipe_that_fixes_fp16_is_built_by_layers():
    needs = replace(policy(deep("prefix", 1972, schemes=("fp16",))), open=False)
    fit = plan_fit(needs, NANO)
    assert fit.fits and not fit.swap and looped(fit) == {"prefix": 17}
    assert plan_fit(replace(policy(stage("prefix", 1972, schemes=("fp16",))), open=False), NANO).swap > 4e9


def test_every_moment_is_told():
    fit = plan_fit(policy(deep("prefix", 1972), stage("head", 300), stage("words", 500, task=True)), NANO)
    moments = dict(fit.moments)
    built = {m: size for m, size in moments.items() if m.startswith("building ")}
    assert {*built} == {"building prefix", "building head", "building words"}
    assert max(built.values()) == fit.build
    assert max(size for m, size in moments.items() if m not in built) == moments[fit.moment] == fit.peak
    assert all(size <= fit.usable for size in moments.values())
    assert json.loads(json.dumps(fit.as_dict()))["moments"]
