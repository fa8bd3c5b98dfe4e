"""A policy that pads its text, for several lengths in one: each answers as the longest, or it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.policy.test_text_length import LENGTH, Reader, policy
from vlacompile.policy.carried import Carried
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Fit, Text, TextBuckets
from vlacompile.policy.text_buckets import with_text_lengths
from vlart.errors import ConfigError, SourceError

LENGTHS = (4, 8, LENGTH)


class Leaking(Reader):
    """Sees its padding, a little."""

    def forward(self, tokens, mask, state):
        words = self.words(tokens)
        seen = torch.where(mask, 0.0, -5.0)[:, None, None]
        read = F.scaled_dot_product_attention(self.state(state)[:, None, None], words[:, None], words[:, None], seen)
        return {"action": torch.tanh(read[:, 0]).reshape(1, 4, 4)}


def masked(used: int, left: bool) -> torch.Tensor:
    mask = torch.arange(LENGTH)[None] < used
    return mask.flip(1) if left else mask


@pytest.mark.parametrize("left", [False, True])
def test_every_length_that_holds_a_text_answers_alike(left):
    given = policy(left)
    several = with_text_lengths(given, LENGTHS)
    assert list(several.backbones) == ["tokens_4", "tokens_8", "tokens_12"] and several.name == given.name
    assert several.sources == given.sources and several.example_inputs["tokens"].shape == (1, LENGTH)
    assert several.buckets == TextBuckets("mask", "left" if left else "right", LENGTHS)
    assert several.origin["text lengths"] == "4, 8, 12 of 12 tokens"
    for used in range(1, LENGTH + 1):
        inputs = given.example_inputs | {"mask": masked(used, left)}
        want, got = given.infer(**inputs)["action"], several.infer(**inputs)
        fits = several.buckets.fitting(inputs["mask"])
        assert LENGTHS[fits] >= used and (fits == 0 or LENGTHS[fits - 1] < used)
        for name in list(several.backbones.values())[fits:]:
            torch.testing.assert_close(got[name], want)
        for name in list(several.backbones.values())[:fits]:  # a text that is cut is another one
            assert not torch.allclose(got[name], want, atol=1e-3)


def test_lengths_below_the_maximum_shorten_the_sources():
    several = with_text_lengths(policy(), (4, 8))
    assert several.example_inputs["tokens"].shape == (1, 8) and several.buckets.lengths == (4, 8)
    assert several.origin["text lengths"] == "4, 8 of 12 tokens"


def test_one_length_is_no_bucket():
    alone = with_text_lengths(policy(), (6,))
    assert not alone.backbones and alone.buckets is None and alone.example_inputs["tokens"].shape == (1, 6)


@pytest.mark.parametrize("settings", [{"pads": True}, {"fixed": True}])
def test_a_policy_whose_answer_follows_the_length_is_refused(settings):
    with pytest.raises(SourceError, match=r"reads the padding|does not run"):
        with_text_lengths(policy(**settings), LENGTHS)


def test_padding_that_weighs_little_is_found():
    """Less than two engines in 16 bits may differ."""
    leaking = Leaking().eval()
    with torch.no_grad():
        leaking.words.weight *= 0.02
    with pytest.raises(SourceError, match="reads the padding"):
        with_text_lengths(replace(policy(), observe=leaking), LENGTHS)


@pytest.mark.parametrize("lengths", [(8, 4), (4, 4), (0, 4), (1, 2, 3, 4, 5), ()])
def test_lengths_that_are_none_are_refused(lengths):
    with pytest.raises(ConfigError, match="cannot be in one bundle"):
        with_text_lengths(policy(), lengths)


def test_a_length_beyond_the_policys_is_refused():
    with pytest.raises(ConfigError, match="out of range"):
        with_text_lengths(policy(), (4, LENGTH + 1))


def test_what_is_carried_would_be_several():
    given = policy()
    kept = Policy("kept", lambda tokens, mask, state, last: given.observe(tokens, mask, state) | {"next": state + last},
                  {**given.sources, "state": Source("observation")}, given.example_inputs,
                  carried={"last": Carried("next", initial=torch.zeros(1, 5))})
    with pytest.raises(SourceError, match="several text lengths") as refusal:
        with_text_lengths(kept, LENGTHS)
    assert "last is carried" in refusal.value.why


def test_the_calibration_set_fits_the_longest():
    given = policy()  # its text has five tokens
    recorded = replace(given, calibration=(given.example_inputs,))
    assert len(with_text_lengths(recorded, (4, 8)).calibration) == 1
    with pytest.raises(ConfigError, match="text of the calibration set"):
        with_text_lengths(recorded, (2, 4))


def test_no_text_is_cut():
    given = replace(policy(), texts={"tokens": Text("{}", "mask", Fit(0, "right", "right"))})
    for lengths in (LENGTHS, (4, 8)):
        assert with_text_lengths(given, lengths).texts["tokens"].fit == Fit(0, "right", None)
