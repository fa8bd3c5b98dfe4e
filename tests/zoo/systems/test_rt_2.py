from __future__ import annotations

import pytest

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.pipeline import plan
from vlacompile.zoo.systems import rt_2

EVERYTHING = {"image", "tokens", "mask"}


@pytest.fixture(scope="module", params=["rt-2", "rt-2-plm"])
def built(request, tmp_path_factory):
    return build(request.param, tmp_path_factory.mktemp("rt_2"))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built, choices=True)


def test_words_that_are_no_actions_leave_the_head(built):
    """What the last step reads of the vocabulary are the rows of the actions."""
    notes = plan(built.policy).notes
    for rule in ("FoldSlicesIntoLinears", "FoldPicksIntoTables"):
        assert any(rule in n and f"{rt_2.BINS} of {rt_2.SMALL.t5.vocabulary}" in n for n in notes), rule
    stages = {s.name: s.weight_bytes for s in built.bundle.plan.stages}
    if "decode" in stages:  # behind the loop: the head for the last word
        assert stages["decode"] < 4 * rt_2.SMALL.language.width * (rt_2.BINS + 1) + 64


def test_what_the_decoder_reads_of_the_prompt_is_made_once():
    """Keys and values of the cross-attention: two products per layer, not two per word."""
    account = plan("zoo:rt-2@tiny")
    sizes, length = rt_2.SMALL.t5, rt_2.LENGTH + 4
    once = 2 * sizes.depth * 2 * length * sizes.width**2
    assert account.flops["saved"] >= (rt_2.SPOKEN - 1) * once
