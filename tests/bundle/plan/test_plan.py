"""The plan: text and binary round trips on drawn plans, invariants, frames files, the generated header."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlacompile import vocabulary
from vlacompile.bundle.format import layout
from vlacompile.bundle.format.header import c_header
from vlacompile.bundle.plan.arena import arena_offsets
from vlacompile.bundle.plan.binary import plan_bytes, read_plan
from vlacompile.bundle.plan.guard import Guard
from vlacompile.bundle.plan.plan import (
    Action,
    Binding,
    Build,
    BuildBoard,
    Carry,
    File,
    Initializer,
    Plan,
    Precision,
    Sampling,
    SourceInput,
    Stage,
    TensorType,
    Value,
    Weight,
)
from vlacompile.bundle.plan.text import parse_plan, plan_text
from vlacompile.errors import BundleError
from vlacompile.verify.frames import Expected, Frame, frames_bytes, read_frames
from vlacompile.verify.metrics import Metrics

NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)
SMALL = st.integers(0, 10**6)
TYPES = st.builds(TensorType, st.sampled_from(sorted(vocabulary.DTYPES)),
                  st.lists(st.integers(1, 64), max_size=4).map(tuple))
FLOATS = st.floats(-1e6, 1e6, width=32).map(lambda x: float(f"{x:.9g}")).map(lambda x: float(np.float32(x)))


samplings = st.none() | st.builds(Sampling, st.sampled_from(sorted(vocabulary.LOOP_FORMS)), st.integers(1, 9), NAMES,
                                  st.integers(1, 100), FLOATS.map(abs), FLOATS.map(abs))


precisions = st.lists(st.builds(Precision, NAMES, st.sampled_from(sorted(vocabulary.SCHEMES)),
                                st.sampled_from(sorted(vocabulary.DECIDERS)), st.integers(1, 9), FLOATS.map(abs),
                                FLOATS.map(abs), st.integers(0, 2**40)), max_size=3).map(tuple)


BIG = st.integers(0, 2**40)
FLAGS = st.sets(st.sampled_from(sorted(vocabulary.BUILD_FLAGS))).map(lambda s: tuple(f for f in vocabulary.BUILD_FLAGS if f in s))
builds = st.none() | st.builds(Build, FLAGS, st.integers(0, 5), st.integers(0, 7), BIG, BIG, BIG, BIG, BIG, SMALL, SMALL,
                               SMALL)
boards = st.none() | st.builds(BuildBoard, NAMES, st.integers(50, 130), NAMES, NAMES, NAMES, NAMES)


RANGE = st.lists(FLOATS, max_size=3).map(tuple)
guards = st.builds(Guard, st.just(0), RANGE, RANGE, st.sampled_from(sorted(vocabulary.GUARD_RULES)), st.booleans(),
                   BIG).map(lambda g: (g,)) | st.just(())


@st.composite
def plans(draw) -> Plan:
    rnd = random.Random(draw(st.integers(0, 2**32)))
    kinds = draw(st.lists(TYPES, min_size=3, max_size=8))
    names = draw(st.lists(NAMES, min_size=len(kinds), max_size=len(kinds), unique=True))
    offsets, arena = arena_offsets(kinds)
    values = tuple(Value(n, t, o) for n, t, o in zip(names, kinds, offsets))
    weights = tuple(Weight(f"w{i}", t, None, i * 64) for i, t in enumerate(draw(st.lists(TYPES, max_size=3))))
    pick = lambda: rnd.randrange(len(values))
    stages = tuple(
        Stage(draw(NAMES), draw(st.sampled_from(sorted(vocabulary.BACKENDS))), draw(st.none() | st.just(0)),
              draw(st.integers(1, 9)), (0,), (Binding("in", pick()), Binding("row", pick(), "row")),
              (Binding("out", pick(), "carry"),),
              tuple(Initializer(f"i{k}", k) for k in range(len(weights))), (Carry(pick(), pick(), pick(), 0, 0),),
              draw(SMALL), draw(SMALL), draw(samplings), draw(precisions), draw(builds))
        for _ in range(draw(st.integers(0, 3))))
    bounds = draw(st.lists(FLOATS, max_size=3).map(tuple))
    action = draw(st.none() | st.just(Action(1, 50, 10, 3, draw(SMALL), bounds, bounds)))
    files = (File("stages/a.onnx", "stage", draw(SMALL), draw(st.integers(0, 2**32 - 1))),)
    source = SourceInput(0, draw(st.sampled_from(sorted(vocabulary.UPDATES))), draw(st.sampled_from([0.0, 0.5, 30.0])))
    return Plan(draw(NAMES), "host", draw(NAMES), arena, files, weights, values, (source,), stages, action,
                board=draw(boards), guards=draw(guards))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(plans())
def test_text_and_binary_round_trips(plan):
    assert parse_plan(plan_text(plan)) == plan
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"plan-{zlib.crc32(plan_text(plan).encode()):08x}"
    try:
        path.write_bytes(plan_bytes(plan))
        assert read_plan(path) == plan
    finally:
        path.unlink()


@pytest.mark.parametrize("line", ["stage", 'stage 0 "a" onnxruntime', "nonsense 3", 'value %0 "a" f32[1,] arena+0',
                                  'weight @0 "a f32[1] file=0 offset=0 bytes=4', ""])
def test_a_line_that_is_not_of_a_plan_is_refused(line):
    with pytest.raises(BundleError, match="not a line of a plan") as caught:
        parse_plan('plan "a" format 1.0 target "host" recipe "r"\n' + line + "\narena 0\n")
    assert "line 2" in caught.value.where


def _small_plan() -> Plan:
    kind = TensorType("f32", (1, 2, 3))
    values = (Value("state", kind, 0), Value("action", kind, 64))
    stage = Stage("fusion", "onnxruntime", None, 1, (0,), (Binding("state", 0),), (Binding("action", 1),), (), (), 1, 0)
    return Plan("p", "host", "r", 128, (), (), values, (SourceInput(0, "observation"),), (stage,), Action(1, 2, 2, 3))


def test_a_damaged_plan_is_refused_wherever_it_is_damaged(tmp_path):
    good = plan_bytes(_small_plan())
    path = tmp_path / "plan.bin"
    rng = random.Random(0)
    for _ in range(200):
        bad = bytearray(good)
        if rng.random() < 0.5:
            at = rng.randrange(len(bad))
            bad[at] ^= 1 << rng.randrange(8)
        else:
            bad = bad[: rng.randrange(len(bad))]
        path.write_bytes(bad)
        with pytest.raises(BundleError):
            read_plan(path)


def test_another_major_version_is_refused_with_both_named(tmp_path):
    data = bytearray(plan_bytes(_small_plan()))
    struct.pack_into("<I", data, 8, layout.FORMAT_MAJOR + 1)
    struct.pack_into("<I", data, layout.HEADER.size - 4, zlib.crc32(data[: layout.HEADER.size - 4]))
    (tmp_path / "plan.bin").write_bytes(data)
    with pytest.raises(BundleError, match=f"format {layout.FORMAT_MAJOR + 1}") as caught:
        read_plan(tmp_path / "plan.bin")
    assert str(layout.FORMAT_MAJOR) in caught.value.why


def test_check_refuses_a_stage_that_reads_more_than_it_depends_on():
    plan = _small_plan()
    kind = plan.values[0].type
    values = (*plan.values, Value("noise", kind, 128))
    stage = Stage("fusion", "onnxruntime", None, 1, (0,), (Binding("state", 0), Binding("noise", 2)),
                  (Binding("action", 1),), (), (), 1, 0)
    sources = (*plan.sources, SourceInput(2, "step"))
    bad = Plan("p", "host", "r", 192, (), (), values, sources, (stage,), None)
    with pytest.raises(AssertionError, match="depends on more"):
        bad.check()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(TYPES, max_size=12))
def test_arena_values_do_not_overlap(kinds):
    offsets, total = arena_offsets(kinds)
    ends = [o + t.bytes for o, t in zip(offsets, kinds)]
    assert all(o % layout.ALIGN == 0 for o in offsets)
    assert all(end <= start for end, start in zip(ends, offsets[1:])) and all(e <= total for e in ends)


def test_frames_round_trip(tmp_path):
    limit = Metrics(0.5, 0.25, 0.75)
    frames = [Frame("first", {"state": np.arange(6, dtype=np.float32).reshape(1, 6), "on": np.array([True, False])},
                    {"action": Expected(np.ones((1, 2, 3), np.float32), limit)}),
              Frame("second", {"state": np.zeros((1, 6), np.float32)})]
    path = tmp_path / "frames.bin"
    path.write_bytes(frames_bytes(frames))
    back = read_frames(path)
    assert [f.label for f in back] == ["first", "second"]
    for a, b in zip(frames, back, strict=True):
        assert all(np.array_equal(a.writes[n], b.writes[n]) and a.writes[n].dtype == b.writes[n].dtype for n in a.writes)
        assert all(np.array_equal(a.expects[n].array, b.expects[n].array) for n in a.expects)
    assert back[0].expects["action"].limit == limit


def test_the_generated_header_is_current():
    header = Path(__file__).parents[3] / "runtime_c" / "include" / "vlart" / "vlart_layout.h"
    assert header.read_text(encoding="utf-8") == c_header(), \
        "run: python -m vlacompile.bundle.format.header > runtime_c/include/vlart/vlart_layout.h"
