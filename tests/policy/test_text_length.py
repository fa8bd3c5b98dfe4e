"""A policy that pads its text, compiled for fewer tokens: the same actions, or a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Fit, Text
from vlacompile.policy.text_length import with_text_length
from vlart.errors import ConfigError, SourceError

LENGTH, WIDTH = 12, 16


class Reader(torch.nn.Module):
    """Attends to the text; `pads`: its padding as well. fixed: it has positions for all tokens."""

    def __init__(self, pads: bool = False, fixed: bool = False):
        super().__init__()
        self.words, self.state = torch.nn.Embedding(40, WIDTH), torch.nn.Linear(5, WIDTH)
        self.pads, self.places = pads, torch.nn.Parameter(torch.randn(LENGTH, WIDTH)) if fixed else None

    def forward(self, tokens, mask, state):
        words = self.words(tokens)
        words = words if self.places is None else words + self.places
        seen = None if self.pads else mask[:, None, None]
        query = self.state(state)[:, None, None]
        read = F.scaled_dot_product_attention(query, words[:, None], words[:, None], seen)
        return {"action": torch.tanh(read[:, 0]).reshape(1, 4, 4)}


def policy(left: bool = False, **settings) -> Policy:
    torch.manual_seed(0)
    mask = torch.arange(LENGTH)[None] < 5
    inputs = {"tokens": torch.randint(1, 40, (1, LENGTH)), "mask": mask.flip(1) if left else mask,
              "state": torch.randn(1, 5)}
    sources = {"tokens": Source("task"), "mask": Source("task"), "state": Source("observation")}
    return Policy("reader", Reader(**settings).eval(), sources, inputs)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("length", [1, 5, LENGTH])
def test_actions_stay_and_padding_leaves(left, length):
    given = policy(left)
    shorter = with_text_length(given, length)
    assert shorter.example_inputs["tokens"].shape == shorter.example_inputs["mask"].shape == (1, length)
    assert (length < LENGTH) == ("text length" in shorter.origin)
    if length < 5:
        return
    side = slice(-length, None) if left else slice(None, length)
    inputs = given.example_inputs
    cut = inputs | {n: inputs[n][:, side] for n in ("tokens", "mask")}
    torch.testing.assert_close(shorter.infer(**cut)["action"], given.infer(**inputs)["action"])


def test_a_policy_that_reads_its_padding_is_refused():
    with pytest.raises(SourceError, match="reads the padding"):
        with_text_length(policy(pads=True), 6)
    assert with_text_length(policy(pads=True), 6, run=False).example_inputs["tokens"].shape == (1, 6)


def test_a_policy_of_one_length_is_refused():
    with pytest.raises(SourceError, match="does not run with 6 tokens"):
        with_text_length(policy(fixed=True), 6)


@pytest.mark.parametrize("length", [0, LENGTH + 1])
def test_lengths_out_of_range_are_refused(length):
    with pytest.raises(ConfigError, match="out of range"):
        with_text_length(policy(), length)


def test_no_text_of_the_calibration_set_is_cut():
    given = policy()
    recorded = replace(given, calibration=(given.example_inputs,))
    with pytest.raises(ConfigError, match="text of the calibration set"):
        with_text_length(recorded, 4)
    assert with_text_length(recorded, 5).calibration[0]["mask"].shape == (1, 5)


def test_a_tokenizer_refuses_what_it_would_have_cut():
    fit = Fit(0, "right", "right")
    given = replace(policy(), texts={"tokens": Text("{}", "mask", fit)})
    assert with_text_length(given, 6).texts["tokens"].fit == replace(fit, truncate=None)
    own = replace(given, texts={"tokens": Text("{}", "mask")})
    with pytest.raises(ConfigError, match="does not apply to this tokenizer"):
        with_text_length(own, 6)


def test_a_policy_without_such_a_text_is_refused():
    given = policy()
    alone = replace(given, sources={"state": given.sources["state"]}, observe=lambda state: {"action": state[:, None]},
                    example_inputs={"state": given.example_inputs["state"]})
    with pytest.raises(ConfigError, match="0 pairs"):
        with_text_length(alone, 6)
