from __future__ import annotations

import pytest
import torch

import vlacompile as vc
from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.zoo.blocks.groot import ACTION, HORIZON, STATES, TEXT, Groot
from vlacompile.zoo.systems.groot_n1 import NAMES, REAL, SMALL

SEEN = {"tokens", "mask", "image.ego"}
EVERYTHING = SEEN | {"state", "noise"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("groot-n1", tmp_path_factory.mktemp("groot"))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_the_backbone_runs_for_a_frame_and_the_loop_for_the_actions_alone(built):
    assert built.table() == {
        "state": ({"state"}, 1), "vision.ego": ({"image.ego"}, 1), "fusion": ({"image.ego", "tokens"}, 1),
        "language": ({"mask"}, 1), "step": (EVERYTHING, 4),
        "decode": (EVERYTHING, 1)}


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


def test_the_row_of_the_state_stays_in_the_loop_s_first_layer_and_leaves_its_last(built):
    """It sees no action in the first, but four iterations of one row do not pay for reading the weights once more."""
    width, rows = SMALL.width, 1 + HORIZON
    assert built.stage("state").weight_bytes == 4 * (STATES * SMALL.hidden + SMALL.hidden * width)
    up, _, down = built.policy.observe.action_head.model.transformer_blocks[0].ff["net"]
    square, mlp, seen = 2 * width * width, 2 * (up.proj.weight.numel() + down.weight.numel()), 2 * 2 * width
    text = len(SMALL.before) + (SMALL.vision.rows // SMALL.shuffle) ** 2 + TEXT
    flops = 2 * rows * (2 * square + mlp + seen * text) + rows * (4 * square + mlp + seen * rows)
    flops += rows * 2 * square + HORIZON * (2 * square + mlp + seen * rows)
    flops += HORIZON * 2 * (2 * ACTION * width + width * width + width * SMALL.hidden + ACTION * SMALL.hidden)
    flops -= HORIZON * 2 * ACTION * width
    assert abs(built.stage("step").flops / flops - 1) < 0.02


def test_the_real_size_has_the_published_parameters():
    with torch.device("meta"):
        model = Groot(REAL, NAMES)
    assert round(sum(p.numel() for p in model.backbone.parameters()) / 1e9, 2) == 1.34
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 1) == 2.2


@pytest.mark.full
def test_one_embodiment_s_weights_remain_of_the_real_size():
    plan = vc.plan("zoo:groot-n1", weights=False)
    assert sum(s.weight_bytes for s in plan.stages) / 4 < 1.9e9
