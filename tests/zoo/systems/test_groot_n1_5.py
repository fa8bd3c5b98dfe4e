from __future__ import annotations

import json

import pytest
import torch

import vlacompile as vc
from tests.samples.shapes import compact
from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.zoo.blocks.groot import ACTION, FUTURE, HORIZON, TEXT, Groot
from vlacompile.zoo.systems.groot_n1_5 import NAMES, REAL, SMALL

SEEN = {"tokens", "mask", "image.ego"}
EVERYTHING = SEEN | {"state", "noise"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("groot-n1-5", tmp_path_factory.mktemp("groot"))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_the_backbone_runs_for_a_frame_and_the_loop_for_the_actions_alone(built):
    assert built.table() == {
        "vision.ego": ({"image.ego"}, 1), "fusion.1": (SEEN, 1),
        "fusion.2": (SEEN | {"state"}, 1), "step": (EVERYTHING, 4), "decode": (EVERYTHING, 1)}


def test_the_loop_reads_neither_keys_of_what_is_seen_nor_modulations_nor_other_embodiments(built):
    head, width, hidden = built.policy.observe.action_head, SMALL.width, SMALL.hidden
    left = 0
    for i, block in enumerate(head.model.transformer_blocks):
        up, _, down = block.ff["net"]
        parts = [block.attn1.to_q, block.attn1.to_out[0], up.proj, down]
        parts += [block.attn1.to_k, block.attn1.to_v] if i % 2 else []
        left += sum(p.weight.numel() for p in parts)
    # of one embodiment, the encoder: a product of its first two matrices without the time, and the third
    left += ACTION * width + width * width
    left += width * hidden + hidden * ACTION  # its decoder, the first matrix with the DiT's last
    assert built.stage("step").weight_bytes == 4 * left


def test_rows_of_state_and_future_tokens_leave_the_first_layer_and_the_last(built):
    """They see no action before the second layer, and only the actions' rows are read at the end: the loop computes 16
    of 49 rows in the first and the last of its four layers."""
    width, rows = SMALL.width, 1 + FUTURE + HORIZON
    up, _, down = built.policy.observe.action_head.model.transformer_blocks[0].ff["net"]
    square, mlp, seen = 2 * width * width, 2 * (up.proj.weight.numel() + down.weight.numel()), 2 * 2 * width
    text = len(SMALL.before) + (SMALL.vision.rows // SMALL.shuffle) ** 2 + TEXT
    across = [HORIZON, rows]  # queries of the layers that see the backbone
    flops = sum(n * (2 * square + mlp + seen * text) for n in across)
    flops += HORIZON * 3 * square + rows * (square + mlp + seen * rows)  # the others are projected before the loop
    flops += rows * 2 * square + HORIZON * (2 * square + mlp + seen * rows)
    flops += HORIZON * 2 * (ACTION * width + width * width + width * SMALL.hidden + ACTION * SMALL.hidden)
    assert abs(built.stage("step").flops / flops - 1) < 0.02


def test_the_real_size_has_the_original_s_names_and_shapes():
    from tests.environments.lerobot.record_n15 import RECORDED

    names = json.loads(RECORDED.read_text(encoding="utf-8"))["real"]["weights"]
    with torch.device("meta"):
        model = Groot(REAL, NAMES)
    assert compact({n: p.shape for n, p in model.named_parameters()}) == {
        n: s for n, s in names.items() if ".vision_model.head." not in n}  # its pooling is not read
    assert round(sum(p.numel() for p in model.action_head.parameters()) / 1e6, 1) == 1068.8


@pytest.mark.full
def test_one_embodiment_s_weights_remain_of_the_real_size():
    plan = vc.plan("zoo:groot-n1-5", weights=False)
    step = next(s for s in plan.stages if s.name == "step")
    assert 415e6 < step.weight_bytes / 4 < 420e6 and sum(s.weight_bytes for s in plan.stages) / 4 < 2.0e9
