"""A recording as episodes: every action once, beside what it was made of and what was predicted."""

from __future__ import annotations

import numpy as np

from tests.samples import recorded_robot as robot
from vlacompile.export.predictions import predictions
from vlart.recording.timeline import cameras, episodes, picture, tick_ns


def test_episodes_and_their_actions(log):
    lines = episodes(log)
    assert [len(line.observed) for line in lines] == [2, 2, 2]
    assert [len(line.executed) for line in lines] == [8, 8, 8]
    popped = np.concatenate([e.actions for e in log if e.kind == "pop"])
    assert np.array_equal(np.stack([e.action for line in lines for e in line.executed]), popped)
    assert 1e6 < tick_ns(lines) < 1e9 and cameras(log) == {robot.CAMERA: (6, 8)}
    for line in lines:
        for o in line.observed:
            assert set(o.sources) == {robot.TOKENS, robot.STATE, robot.CAMERA} and o.status == "OK"
            assert o.time_ns < o.end_ns and o.chunk.shape == (robot.H, robot.DIM) and "fusion" in o.stages
            assert picture(o.sources[robot.CAMERA]).shape == (6, 8, 3)
        assert robot.CAMERA in line.observed[0].fresh and robot.CAMERA not in line.observed[1].fresh
        times = [e.time_ns for e in line.executed]
        assert times == sorted(times) and line.observed[0].end_ns < times[0]


def test_predictions_are_the_executed_actions_where_nothing_is_between(log):
    """Of a queue: row k of a chunk is what is executed k ticks after it, as the action's own row says."""
    for line in episodes(log):
        found = {(p.chunk, p.row): p.action for p in predictions(line, 1)}
        first = line.executed[0].chunk
        for e in line.executed:
            assert np.array_equal(found[e.chunk - first, e.row], e.action)


def test_a_prediction_ends_where_the_next_begins(log):
    line = episodes(log)[0]
    tick = tick_ns([line])
    found = list(predictions(line, tick))
    times = [p.time_ns for p in found]
    assert times == sorted(times) and {p.chunk for p in found} == {0, 1}
    assert len(list(predictions(line, 0))) == 2


def test_asynchronous_control_is_one_line(log_async):
    lines = episodes(log_async)
    assert len(lines) == 2 and {line.track for line in lines} <= {0, 1}
    executed = [e for line in lines for e in line.executed]
    assert len(executed) > 80 and {e.status for e in executed} <= {"OK", "SAFE_ACTION", "DEADLINE_MISSED"}
    assert sum(len(line.observed) for line in lines) == sum(e.kind == "step" for e in log_async)
