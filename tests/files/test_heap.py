"""What is free in the heap goes back to the system."""

from __future__ import annotations

from vlacompile.files import heap
from vlacompile.files.heap import GivenBack, give_back
from vlacompile.hardware.process_memory import anonymous_bytes

SIZE, COUNT = 64 << 10, 1024


def test_free_blocks_below_one_in_use_go_back():
    blocks = [b"x" * SIZE for _ in range(COUNT)]
    kept = blocks[-1]
    full = anonymous_bytes()
    del blocks
    give_back()
    assert full - anonymous_bytes() > SIZE * COUNT / 2 and kept[:1] == b"x"


def test_it_is_asked_after_so_many_bytes(monkeypatch):
    asked = []
    monkeypatch.setattr(heap, "give_back", lambda: asked.append(1))
    freed = GivenBack(100)
    for size in (60, 30, 20, 90, 20):
        freed.after(size)
    assert len(asked) == 2
