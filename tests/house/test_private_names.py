"""Tests go through public names: what a test must reach into is not tested by what it does."""

from __future__ import annotations

import pytest

from tests.house.layers import ROOT
from tests.house.private_names import defined, uses


def test_tests_touch_no_private_names():
    private = defined()
    assert len(private) > 500
    found = [u for path in sorted((ROOT / "tests").rglob("*.py")) for u in uses(path, private)]
    assert not found, "private names in tests:\n" + "\n".join(found)


@pytest.mark.parametrize("line", ["from vlacompile.pipeline import _inner", "session._inner()", "x = host.y._inner",
                                  "monkeypatch.setattr(session, '_inner', 1)", "getattr(session, '_inner')",
                                  "import vlacompile.pipeline as p; p._inner",
                                  "patch('vlart.files.atomic._inner')"])
def test_each_way_to_touch_one_is_found(tmp_path, line):
    (tmp_path / "test_x.py").write_text(f"def test_x():\n    {line}\n")
    assert len(uses(tmp_path / "test_x.py", {"_inner"})) == 1


def test_what_is_ones_own_is_not(tmp_path):
    text = ("class Double:\n    def __init__(self):\n        self._inner = "
            "1\n\n\nDouble()._inner\nself._other\ntorch._other\n")
    (tmp_path / "test_x.py").write_text(text)
    assert uses(tmp_path / "test_x.py", {"_inner", "_other"}) == []
