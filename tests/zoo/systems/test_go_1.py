from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import vlacompile as vc
from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.passes.pass_list import graph_passes
from vlacompile.compiler.passes.pass_manager import run_passes
from vlacompile.compiler.passes.split_tokens_by_rate import SplitTokensByRate
from vlacompile.policy.iterations import TRACED
from vlacompile.zoo import catalogue
from vlacompile.zoo.systems.go_1 import CAMERAS, HORIZON, KNOWN, SMALL, TIMES, Go1, Sizes

TEXT = {"tokens", "mask"}
SEEN = {*CAMERAS} | TEXT
EVERYTHING = SEEN | {"state", "noise"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("go-1", tmp_path_factory.mktemp("go_1"))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_language_model_and_planner_run_for_frames_and_the_expert_for_actions(built):
    assert built.table() == {
        "vision.head": ({"image.head"}, 1), "vision.left": ({"image.left"}, 1), "vision.right": ({"image.right"}, 1),
        "language": (TEXT, 1), "fusion": (SEEN, 1),
        "state": ({"state"}, 1), "step": (EVERYTHING, len(TIMES)), "decode": (EVERYTHING, 1)}


def test_keys_are_projected_and_rotated_once_and_the_solver_s_history_is_carried(built):
    policy, step = built.policy.observe, built.stage("step")
    matrices = [p for part in (policy.expert, policy.action_in, policy.action_out) for p in part.parameters()
                if p.dim() == 2]
    assert step.weight_bytes == 4 * sum(p.numel() for p in matrices)
    assert len(step.carries) == 2, "the sample, and the clean estimate of the step before"


def rows_of_queries(least_uses: float) -> set[int]:
    """Of the expert's projections to queries, when tokens that change less often leave for so many uses."""
    passes = [replace(p, least_uses=least_uses) if isinstance(p, SplitTokensByRate) else p
              for p in graph_passes(is_translated, decompositions)]
    program, _ = run_passes(capture(catalogue.load("zoo:go-1@tiny")), passes)
    return {n.meta["val"].shape[1] for n in program.graph.nodes if n.op == "call_function" and any(
        i.op == "get_attr" and ".expert." in i.target.replace("__", ".") and "q_proj" in i.target
        for i in n.all_input_nodes)}


def test_rows_of_time_rate_and_state_can_leave_the_loop_but_do_not_pay():
    """They see no action; in five steps they use a weight 15 times, of which three are traced, and to take them out is
    to read it once more."""
    uses, least = KNOWN * len(TIMES), SplitTokensByRate().least_uses
    assert KNOWN * TRACED < uses < least
    assert rows_of_queries(uses - 1.0) == {1, KNOWN - 1, HORIZON}  # the state's, time's and rate's
    assert rows_of_queries(least) == {KNOWN + HORIZON, HORIZON}  # the last layer's are not read


def test_rows_before_the_actions_see_no_action():
    model = Go1(SMALL).eval()
    policy = catalogue.load("zoo:go-1@tiny")
    count, sizes = KNOWN + HORIZON, SMALL.expert
    read = [tuple(torch.randn(1, sizes.kv_heads, 6, sizes.dim) for _ in range(2)) for _ in range(sizes.depth)]
    x = torch.randn(1, count, sizes.width)
    other = torch.cat([x[:, :KNOWN], torch.randn(1, HORIZON, sizes.width)], 1)
    own = torch.ones(count, count, dtype=torch.bool)
    own[:KNOWN, KNOWN:] = False
    visible = torch.cat([torch.ones(1, count, 6, dtype=torch.bool), own[None]], 2)
    with torch.no_grad():
        first, second = (model.expert.run(y, visible, torch.arange(count)[None], read)[0] for y in (x, other))
    assert torch.equal(first[:, :KNOWN], second[:, :KNOWN]) and not torch.allclose(first, second)
    assert policy.sources["control_rate"].update == "static"


def test_the_real_size_has_the_published_parameters():
    with torch.device("meta"):
        model = Go1(Sizes())
    parts = {n: sum(p.numel() for p in getattr(model, n).parameters()) / 1e6 for n in ("vision", "expert", "planner")}
    assert {n: round(v) for n, v in parts.items()} == {"vision": 304, "expert": 227, "planner": 227}
    head = model.language.embed_tokens.weight.numel()  # as large, and not read here
    assert abs((sum(p.numel() for p in model.parameters()) + head) / 2.65e9 - 1) < 0.02


@pytest.mark.full
def test_the_loop_reads_the_expert_alone_of_the_real_size():
    plan = vc.plan("zoo:go-1", weights=False)
    step = next(s for s in plan.stages if s.name == "step")
    assert abs(step.weight_bytes / 4 / 229e6 - 1) < 0.02
