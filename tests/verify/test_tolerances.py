"""Limits follow the unit of the value: what passes in radians passes in ticks, and so for what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlart.verify.frames import Expected, Frame, frames_bytes, read_frames
from vlart.verify.metrics import Limit, Metrics, compare, examine
from vlart.verify.tolerances import (
    CHANCE,
    F32,
    ROUNDING_SHARE,
    Errors,
    Scale,
    Seen,
    beside_policy,
    columns_of,
    tolerance,
    within_precision,
)

# Scale and offset of actions: radians, radians * 1e-3, degrees, millimetres, ticks, a small spread far from zero.
UNITS = {"radians": (0.5, 0.0), "milliradians": (5e-4, 0.0), "degrees": (60.0, 0.0), "millimetres": (150.0, 400.0),
         "ticks": (600.0, 2048.0), "far": (1.0, 3e4), "nanometres": (1e-9, 3e-9)}
CHUNK = (1, 16, 6)


def frames(seed: int, scale, offset, count: int = 6) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [(draw.standard_normal(CHUNK) * scale + offset).astype(np.float32) for _ in range(count)]


def judged(want: np.ndarray, got: np.ndarray, scale: Scale):
    return examine(got.astype(np.float32), want, tolerance("f32", "chunk").limit(want, scale))


@pytest.mark.parametrize("unit", UNITS)
def test_a_rounding_passes_and_a_small_share_of_the_spread_does_not(unit):
    spread, offset = UNITS[unit]
    every = frames(0, spread, offset)
    scale, draw = Scale.of(every, CHUNK[-1]), np.random.default_rng(1)
    last = 2 * F32 * (abs(offset) + spread)
    assert all(judged(w, w + last * draw.uniform(-1, 1, CHUNK), scale).passed for w in every)
    for share in (2e-2, -2e-2):
        wrong = every[0].copy()
        wrong[0, 3, 2] += np.float32(share * spread)
        found = judged(every[0], wrong, scale)
        assert not found.passed and found.column == 2


def test_what_f32_cannot_resolve_is_not_refused_and_what_it_can_is():
    """A spread of 1 at 1e7: neighbours in f32 are 1 apart."""
    every = frames(0, 1.0, 1e7)
    scale = Scale.of(every, CHUNK[-1])
    assert judged(every[0], every[0] + 2.0, scale).passed
    assert not judged(every[0], every[0] + 8.0, scale).passed


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.floats(-6, 6), st.floats(-3, 3), st.floats(-2, 2))
def test_a_unit_changes_no_verdict(seed, exponent, offset, error):
    """Scaled by a power of two nothing is rounded: the verdict is the same, whatever the offset and the error."""
    unit = 2.0 ** round(exponent * 3.3)
    every = frames(seed, 1.0, offset)
    got = every[0] + np.float32(10.0 ** (error - 4)) * np.random.default_rng(seed).standard_normal(CHUNK)
    got = got.astype(np.float32)
    one = judged(every[0], got, Scale.of(every, 6))
    scaled = [f * np.float32(unit) for f in every]
    other = judged(scaled[0], got * np.float32(unit), Scale.of(scaled, 6))
    assert one.passed == other.passed and one.column == other.column


def test_columns_have_units_of_their_own():
    """Six joints in radians beside a gripper in ticks: an error of the size of the gripper's rounding is a fault in a
    joint."""
    scale, offset = np.array([0.3] * 5 + [600.0]), np.array([0.0] * 5 + [2048.0])
    every = frames(2, scale, offset)
    unit = Scale.of(every, 6)
    for column, passes in ((0, False), (4, False), (5, True)):
        got = every[0].copy()
        got[0, 7, column] += np.float32(0.02)
        found = judged(every[0], got, unit)
        assert found.passed == passes, column
        assert passes or (found.column == column and f"in column {column}" in found.text())


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("level", ["stage", "chunk"])
def test_every_float_has_a_limit_and_integers_are_exact(dtype, level):
    want = np.linspace(-1, 2, 24).reshape(1, 4, 6).astype(dtype)
    name = {np.float64: "f64", np.float32: "f32", np.float16: "f16"}[dtype]
    limit = tolerance(name, level).limit(want)
    assert limit.max_abs > 0 and limit.rel_l2 > 0 and limit.cosine < 1
    assert not examine(want + dtype(0.5), want, limit).passed
    ids = np.arange(6)
    for integer in ("i64", "i32", "u8", "bool"):
        assert not examine(ids + 1, ids, tolerance(integer, level).limit(ids)).passed


def test_a_constant_column_is_held_to_its_magnitude_and_a_silent_one_to_the_others():
    every = frames(3, np.array([1, 1, 1, 1, 0, 0]), np.array([0, 0, 0, 0, 7.0, 0]))
    limit = tolerance("f32", "chunk").limit(every[0], Scale.of(every, 6)).columns
    assert 0 < limit[4] < 1e-5 and limit[5] == pytest.approx(max(limit[:4]), rel=0.5)


def test_infinities_of_masks_and_empty_values_have_limits():
    mask = np.array([[0.0, -np.inf, 2.0, -np.inf]], np.float32)
    limit = tolerance("f32", "stage").limit(mask, Scale.of([mask, mask]))
    assert examine(mask, mask, limit).passed and np.isfinite(limit.max_abs)
    assert not examine(np.array([[0.0, -np.inf, 2.0, 0.0]], np.float32), mask, limit).passed
    assert tolerance("f32", "chunk").limit(np.zeros((1, 0), np.float32)) == Limit(0.0, 0.0, 1.0)
    assert columns_of((1, 16, 6), True) == 6 and columns_of((1, 16, 6), False) == 1
    assert columns_of((7,), True) == 7
    assert columns_of((), True) == columns_of((1, 0), True) == columns_of((1, 96, 4096), True) == 1


def test_frames_files_keep_the_limits_of_columns(tmp_path):
    want = np.ones((1, 2, 3), np.float32)
    given = {"action": Expected(want, Limit(3.0, 0.5, 0.25, (1.0, 2.0, 3.0))),
             "context": Expected(want, Metrics(4.0, 0.5, 0.25))}
    path = tmp_path / "golden.bin"
    beside = {"action": Expected(want, Limit(7.0, 1.0, 0.5, (7.0,) * 3))}
    path.write_bytes(frames_bytes([Frame("one", {}, given, beside)]))
    (frame,) = read_frames(path)
    assert frame.expects["action"].limit == given["action"].limit
    assert frame.expects["context"].limit == Limit(4.0, 0.5, 0.25)
    assert frame.references["action"].limit.columns == (7.0,) * 3


@pytest.mark.parametrize("numbers", [1, 2, 7, 1000])
@pytest.mark.parametrize("correlated", [False, True])
def test_few_numbers_are_not_refused_by_chance(numbers, correlated):
    """Two right engines round independently, and the errors of a chunk may all be one error. What a single frame shows
    of one number is chance; runs that round anew are not. An engine whose steps are far coarser is refused."""
    draw = np.random.default_rng(0)

    def errors(coarse: float, count: int = 6) -> np.ndarray:
        drawn = draw.standard_normal((count, 1 if correlated else numbers)) * coarse * 1e-3
        return np.broadcast_to(drawn, (count, numbers))

    def refused(coarse: float) -> float:
        bad = 0
        for _ in range(300):
            full = draw.standard_normal((6, numbers)).astype(np.float32)
            mine, other = full + errors(1.0), full + errors(coarse)
            runs = [[m + e for e in errors(math.sqrt(2), 5)] for m in mine]  # as far as two roundings are apart
            scale = Scale.of(list(full))
            moved = [Seen.of(m, f, 1) for m, f in zip(mine, full, strict=True)]
            apart = [[Seen.of(r, m, 1) for r in rs] for rs, m in zip(runs, mine, strict=True)]
            usual = Errors([], moved), Errors([], [a for every in apart for a in every])
            limits = [within_precision(tolerance("f32", "chunk").limit(f, scale), scale.beside(f), mine[i],
                                       Errors([moved[i]], usual[0].usual), Errors(apart[i], usual[1].usual))
                      for i, f in enumerate(full)]
            bad += not all(examine(other[i], mine[i], limits[i]).passed for i in range(6))
        return bad / 300

    assert refused(1.0) <= 0.01
    assert refused(20.0) > 0.5


def test_the_limits_beside_the_policy_add_what_the_precision_moved():
    want = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 4, 6)
    scale, mine = Scale.of([want], 6), (want + 0.01).astype(np.float32)
    moved, apart = Seen.of(mine, want, 6), Seen.of(want + 0.001, want, 6)
    errors = Errors([moved], [moved]), Errors([apart], [apart])
    within = within_precision(tolerance("f32", "chunk").limit(want, scale), scale, mine, *errors)
    assert examine(mine, want, beside_policy(within, scale, want, errors[0])).passed
    assert not examine(want + np.float32(0.2), want, beside_policy(within, scale, want, errors[0])).passed
    share = ROUNDING_SHARE * (1 + CHANCE / np.sqrt(48)) * compare(mine, want).rel_l2
    assert within.rel_l2 == pytest.approx(share, rel=0.1)


def test_integers_and_zeros_have_no_errors_of_precision():
    zeros = np.zeros((1, 4), np.float32)
    scale, seen = Scale.of([zeros, zeros]), Seen.of(zeros, zeros, 1)
    none = Errors([seen], [seen])
    limit = within_precision(tolerance("f32", "stage").limit(zeros, scale), scale, zeros, none, none)
    assert limit == Limit(0.0, 0.0, 0.99999) and not examine(zeros + np.float32(1e-9), zeros, limit).passed
