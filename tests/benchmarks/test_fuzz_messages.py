"""The mutations reach what they are meant for: readers hold, and one that does not is caught."""

from __future__ import annotations

import pytest

pytest.importorskip("msgpack", reason="the server needs it: pip install 'vlacompile[serve]'")
pytest.importorskip("websockets", reason="the server needs it: pip install 'vlacompile[serve]'")

from benchmarks import fuzz_messages


@pytest.mark.parametrize("name", fuzz_messages.TARGETS)
def test_readers_hold(name, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_messages, "KEPT", tmp_path)
    row = fuzz_messages.run(name, 1.0, seed=0)
    assert row["crashes"] == [] and row["executions"] > 20 and not list(tmp_path.iterdir())
    if name != "device":  # whose lines are answers, or said
        assert 0 < row["refused"] < row["executions"]


def test_a_reader_that_fails_is_caught_and_its_input_kept(tmp_path, monkeypatch):
    """The control: a reader that takes arrays of any shape."""
    monkeypatch.setattr(fuzz_messages, "KEPT", tmp_path)
    monkeypatch.setattr(fuzz_messages.Intake, "read", lambda self, message: {
        n: a for n, a in message.items() if n in self.inputs})
    row = fuzz_messages.run("openpi", 2.0, seed=0)
    assert row["crashes"] and len(list(tmp_path.iterdir())) >= 1


def test_sources_are_named():
    assert len(fuzz_messages.sources()) == 64
