"""The plan: what is refused, invariants, frames files, what is generated for C. Round trips: test_record_types.py."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlart import vocabulary
from vlart.bundle.format import layout
from vlart.bundle.format.generate import FILES
from vlart.bundle.plan.arena import arena_offsets
from vlart.bundle.plan.binary import plan_bytes, read_plan
from vlart.bundle.plan.plan import Action, Binding, File, Plan, SourceInput, Stage, TensorType, Value
from vlart.bundle.plan.text import parse_plan
from vlart.errors import BundleError
from vlart.verify.frames import Expected, Frame, frames_bytes, read_frames
from vlart.verify.metrics import Limit

TYPES = st.builds(TensorType, st.sampled_from(sorted(vocabulary.DTYPES)),
                  st.lists(st.integers(1, 64), max_size=4).map(tuple))


@pytest.mark.parametrize("line", ["stage", 'stage 0 "a" onnxruntime', "nonsense 3", 'value %0 "a" f32[1,] arena+0',
                                  'weight @0 "a f32[1] file=0 offset=0 bytes=4', ""])
def test_a_line_that_is_not_of_a_plan_is_refused(line):
    with pytest.raises(BundleError, match="not a line of a plan") as caught:
        parse_plan('plan "a" format 1.0 target "host" recipe "r"\n' + line + "\narena 0\n")
    assert "line 2" in caught.value.where


def _small_plan() -> Plan:
    kind = TensorType("f32", (1, 2, 3))
    values = (Value("state", kind, 0), Value("action", kind, 64))
    stage = Stage("fusion", "onnxruntime", 0, 1, (0,), (Binding("state", 0),), (Binding("action", 1),), (), (), 1, 0)
    files, sources = (File("stages/fusion.onnx", "stage", 1, 0),), (SourceInput(0, "observation"),)
    return Plan("p", "host", "r", 128, files, (), values, sources, (stage,), Action(1, 2, 2, 3))


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
    with pytest.raises(BundleError, match="another format version") as caught:
        read_plan(tmp_path / "plan.bin")
    assert f"version {layout.FORMAT_MAJOR + 1}." in caught.value.why
    assert f"reads {layout.FORMAT_MAJOR}." in caught.value.why


def _sealed(data: bytearray) -> bytes:
    struct.pack_into("<I", data, 28, zlib.crc32(data[layout.HEADER.size:]))
    struct.pack_into("<I", data, layout.HEADER.size - 4, zlib.crc32(data[: layout.HEADER.size - 4]))
    return bytes(data)


@pytest.mark.parametrize("section", layout.PLAN_SECTIONS)
@pytest.mark.parametrize("change", [{"stride": 0, "count": 1 << 31, "bytes": 0}, {"stride": 1, "count": 1 << 20},
                                    {"offset": 1 << 40}, {"bytes": (1 << 64) - 64}], ids=",".join)
def test_a_plan_takes_no_more_than_its_bytes(tmp_path, section, change):
    """Python takes apart what libvlart let pass: sections that claim to be large are refused before."""
    data = bytearray(plan_bytes(_small_plan()))
    for i in range(len(layout.PLAN_SECTIONS)):
        at = layout.HEADER.size + i * layout.SECTION.size
        row = layout.SECTION.unpack(bytes(data), at)
        if row["id"] == layout.SECTION_ID[section]:
            data[at: at + layout.SECTION.size] = layout.SECTION.pack(**row | change)
    (tmp_path / "plan.bin").write_bytes(_sealed(data))
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="damaged"):
            read_plan(tmp_path / "plan.bin")
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "plan.bin").write_bytes(b"")
    with (tmp_path / "plan.bin").open("r+b") as file:
        file.truncate(1 << 40)
    for name, why in (("pipe", "regular"), ("zeros", "symbolic link"), ("plan.bin", f"{1 << 40} bytes"),
                      ("none", "No such file")):
        with pytest.raises(BundleError, match=f"cannot read {name}") as caught:
            read_plan(tmp_path / name)
        assert why in caught.value.why


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
    ends = [o + t.bytes for o, t in zip(offsets, kinds, strict=True)]
    assert all(o % layout.ALIGN == 0 for o in offsets)
    assert all(end <= start for end, start in zip(ends, offsets[1:], strict=False)) and all(e <= total for e in ends)


def test_frames_round_trip(tmp_path):
    limit = Limit(0.5, 0.25, 0.75)
    frames = [Frame("first", {"state": np.arange(6, dtype=np.float32).reshape(1, 6), "on": np.array([True, False])},
                    {"action": Expected(np.ones((1, 2, 3), np.float32), limit)}),
              Frame("second", {"state": np.zeros((1, 6), np.float32)})]
    path = tmp_path / "frames.bin"
    path.write_bytes(frames_bytes(frames))
    back = read_frames(path)
    assert [f.label for f in back] == ["first", "second"]
    for a, b in zip(frames, back, strict=True):
        assert all(np.array_equal(a.writes[n], b.writes[n]) for n in a.writes)
        assert all(a.writes[n].dtype == b.writes[n].dtype for n in a.writes)
        assert all(np.array_equal(a.expects[n].array, b.expects[n].array) for n in a.expects)
    assert back[0].expects["action"].limit == limit


@pytest.mark.parametrize("name", FILES)
def test_what_is_generated_for_c_is_current(name):
    assert (Path(__file__).parents[3] / "runtime_c" / name).read_text(encoding="utf-8") == FILES[name](), \
        "run: python -m vlart.bundle.format.generate"
