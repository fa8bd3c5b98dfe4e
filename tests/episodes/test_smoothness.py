"""Jerk and jumps of executed actions, by their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from vlacompile.episodes.smoothness import Smoothness


def test_a_chunk_that_begins_apart_from_the_last_one_is_a_jump():
    """By its definition: a third difference of 1 per frame at 10 frames per second is 1000 per second cubed."""
    frames = np.arange(8, dtype=float)
    smooth = Smoothness.of([frames**3 / 6], [(0,)], 1.0, 10.0)
    assert smooth.jerk == pytest.approx(1000) and smooth.jump is None
    apart = frames + 5.0 * (frames >= 4)
    smooth = Smoothness.of([apart], [(0, 4)], 2.0, 10.0)
    assert smooth.jump == 3.0 and smooth.step == 0.5 and smooth.jerk > 0
    assert Smoothness.of([frames], [(0, 4)], 2.0, 10.0) == Smoothness(0.0, 0.5, 0.5)
    gaps = np.where(frames == 4, np.nan, apart)
    assert Smoothness.of([gaps], [(0, 4)], 2.0, 10.0).jump is None
    assert Smoothness.of([np.array([1.0])], [(0,)], 1.0, 10.0) == Smoothness(None, None, None)
