from __future__ import annotations

import pytest

from vlacompile.frontends.lerobot import layer_patterns
from vlacompile.frontends.lerobot.layer_patterns import EndlessPatternError, matching

NAMES = ["model.encoder.q_proj", "model.encoder.v_proj", "model.head", "head"]


@pytest.mark.parametrize("pattern, want", [
    (r".*\.(q|v)_proj", NAMES[:2]), ("head", NAMES[3:]), (r"(.*\.)?(head)", NAMES[2:]), (r"(?!model).*", NAMES[3:]),
    ("(a+)+b", []), (r"\w+", NAMES[3:])])
def test_the_whole_name_is_matched(pattern, want):
    assert matching(pattern, NAMES) == set(want)


def test_a_pattern_that_backtracks_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(layer_patterns, "LONGEST_S", 1.0)
    with pytest.raises(EndlessPatternError, match="within 1 s"):
        matching("(a+)+b", ["a" * 64])
