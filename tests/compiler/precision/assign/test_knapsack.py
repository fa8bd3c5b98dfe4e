"""The integer program against every combination, one by one."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vlacompile.compiler.precision.assign.knapsack import Limits, Option, solve, stored_once

DIMENSIONS = 2
numbers = st.integers(0, 20).map(float)


@st.composite
def problems(draw):
    shared = st.sampled_from(("a", "b", "c", "d"))
    units = []
    for _ in range(draw(st.integers(1, 4))):
        options = []
        for i in range(draw(st.integers(1, 3))):
            error = tuple(draw(st.lists(numbers | st.just(np.inf) if i else numbers, min_size=DIMENSIONS,
                                        max_size=DIMENSIONS)))
            stores = {n: 4 + ord(n) - ord("a") for n in draw(st.sets(shared, max_size=2))}
            options.append(Option(f"o{i}", error, draw(numbers), stores))
        units.append(tuple(options))
    limits = Limits(tuple(draw(st.lists(st.integers(0, 60).map(float), min_size=DIMENSIONS, max_size=DIMENSIONS))),
                    draw(st.none() | st.integers(0, 25)), draw(st.none() | st.integers(0, 50)))
    return tuple(units), limits, draw(st.sampled_from(("latency", "bytes", "error")))


def brute_force(units, limits, minimise) -> float | None:
    best = None
    for chosen in itertools.product(*units):
        squared = np.sum([o.squared for o in chosen], 0)
        time, size = sum(o.time_us for o in chosen), sum(stored_once(list(chosen)).values())
        scale = [x if x > 0 else 1.0 for x in limits.squared]
        good = np.isfinite(squared).all() and (minimise == "error" or bool((squared <= limits.squared).all()))
        good = good and (limits.bytes is None or size <= limits.bytes)
        good = good and (limits.time_us is None or time <= limits.time_us)
        value = {"latency": time, "bytes": size, "error": max(squared / scale)}[minimise]
        if good and (best is None or value < best):
            best = value
    return best


@settings(max_examples=300, deadline=None)
@given(problems())
def test_it_finds_what_trying_everything_finds(problem):
    units, limits, minimise = problem
    found, want = solve(*problem), brute_force(*problem)
    assert (found is None) == (want is None)
    if found is not None:
        assert abs(found.value - want) < 1e-6
        assert len(found.options) == len(units) and solve(*problem) == found
        chosen = [next(o for o in options if o.name == n) for options, n in zip(units, found.options, strict=True)]
        assert minimise == "error" or (np.sum([o.squared for o in chosen], 0) <= np.add(limits.squared, 1e-6)).all()


def test_a_weight_that_two_units_store_alike_counts_once():
    int8, fp32 = {"w int8": 10}, {"w fp32": 40}
    units = tuple((Option("fp32", (0.0,), 1.0, fp32), Option("int8", (1.0,), 2.0, int8)) for _ in range(2))
    one = solve(units, Limits((1.0,)), "bytes")
    assert one.options == ("fp32", "fp32") and one.value == 40  # one in int8 would store both
    assert solve(units, Limits((2.0,)), "bytes").value == 10
    assert solve(units, Limits((2.0,), bytes=39), "latency").options == ("int8", "int8")
