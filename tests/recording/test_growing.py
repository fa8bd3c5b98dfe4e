"""A recording that is read while it is written: every event once, nothing read twice, whatever becomes of the file."""

from __future__ import annotations

import os
import shutil
import time
import zlib

import numpy as np
import pytest

import vlacompile as vc
from tests.samples import recorded_robot as robot
from vlart.bundle.format.records_recording import BLOCK
from vlart.errors import BundleError
from vlart.recording import growing
from vlart.recording.growing import MOST_READ, Growing
from vlart.recording.log import BLOCK_BYTES, Event, Log, head_bytes

IDLE = 2048  # bytes of a look at which nothing is new: the head's record, and of a few blocks theirs


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return robot.built(tmp_path_factory.mktemp("growing"))


@pytest.fixture(scope="module")
def whole(bundle, tmp_path_factory):
    """A recording of some hundred blocks, that ended."""
    path = tmp_path_factory.mktemp("growing") / "whole.vlog"
    with vc.Recorder(path, mib=2, flush_ms=1) as recorder, vc.Session(bundle, record=recorder) as session:
        for seed in range(60):
            robot.drive(session, episodes=3, seed=seed, execute=2)
    assert 100 < Log(path).info.blocks < 500
    return path


def said(events: list[Event]) -> list[tuple]:
    return [(e.track, e.sequence, e.kind, e.time_ns, e.rest) for e in events]


def looked(reader: Growing) -> list[Event]:
    found = reader.look()
    return [] if found is None else found[1]


def all_of(reader: Growing) -> list[Event]:
    found: list[Event] = []
    while (more := reader.look()) is not None:
        found += more[1]
    return found


def laid_out(path, log: Log) -> list[bytes]:
    """The blocks of the ring, in their places."""
    data = path.read_bytes()[head_bytes(log.info.plan_bytes):]
    return [data[i: i + BLOCK_BYTES] for i in range(0, len(data), BLOCK_BYTES)]


def test_every_event_comes_once_and_no_byte_twice(bundle, tmp_path):
    path = tmp_path / "a.vlog"
    reader, found, looks = Growing(path), [], 0
    with pytest.raises(FileNotFoundError):
        reader.look()
    with vc.Recorder(path, mib=4, flush_ms=1) as recorder, vc.Session(bundle, record=recorder) as session:
        for seed in range(120):
            robot.drive(session, episodes=1, seed=seed)
            found += looked(reader)
            looks += 1
    found += looked(reader)
    log = Log(path)
    assert said(found) == said(list(log)) and reader.passed_blocks == 0 and reader.cut_bytes == 0
    assert len(found) == log.info.events > 2000 and reader.recording == log.info.recording and reader.plan == log.plan
    head = head_bytes(log.info.plan_bytes)
    written = log.info.blocks * BLOCK_BYTES
    assert reader.read_bytes < 2 * (head + written) + looks * (IDLE + growing.FEW * BLOCK_BYTES + growing.PROBES * 80)
    reader.look()  # for one that does not lie where the next one belongs, once
    before = reader.read_bytes
    for _ in range(50):
        assert reader.look() is None
    assert reader.read_bytes - before < 50 * IDLE


@pytest.mark.parametrize("most", [BLOCK_BYTES, 3 * BLOCK_BYTES, 40 * BLOCK_BYTES, MOST_READ])
def test_a_look_reads_no_more_than_it_may(whole, most):
    """Also events that are larger than that come whole."""
    log, reader, found = Log(whole), Growing(whole, most_read=most), said([])
    before, head = 0, 2 * head_bytes(log.info.plan_bytes) + growing.PROBES * 160
    while True:
        found += said(looked(reader))
        assert reader.read_bytes - before <= 3 * most + growing.PROBES * 160 + IDLE + (head if not before else 0)
        before = reader.read_bytes
        if not reader.is_behind:
            break
    assert found == said(list(log)) and reader.passed_blocks == 0


def test_what_is_far_behind_is_passed_over(whole):
    log = Log(whole)
    reader = Growing(whole, most_behind=20 * BLOCK_BYTES)
    found = all_of(reader)
    assert said(found) == said(list(log))[-len(found):] and 20 < len(found) < log.info.events // 2
    assert reader.read_bytes < 2 * 20 * BLOCK_BYTES + 2 * head_bytes(log.info.plan_bytes) + growing.PROBES * 160


def test_a_ring_that_wraps_while_it_is_read(bundle, tmp_path):
    """A reader that looks rarely misses what was overwritten, says so, and gives the rest in order and once."""
    path = tmp_path / "a.vlog"
    reader, often, found, all_found = Growing(path), Growing(path), [], []
    with vc.Recorder(path, mib=1 / 8, flush_ms=1) as recorder, vc.Session(bundle, record=recorder) as session:
        for seed in range(300):
            robot.drive(session, episodes=1, replans=2, seed=seed)
            time.sleep(2e-3)
            all_found += looked(often)
            if seed in (5, 40, 280):
                found += looked(reader)
    found, all_found = found + all_of(reader), all_found + all_of(often)
    assert recorder.info().laps > 2 and reader.passed_blocks > 10
    numbers = [e.sequence for e in all_found]
    assert numbers == sorted(set(numbers))
    assert set(said(found)) <= set(said(all_found)) | set(said(list(Log(path))))
    numbers = [e.sequence for e in found]
    assert numbers == sorted(set(numbers)) and len(found) > 100
    assert said(found)[-5:] == said(list(Log(path)))[-5:]


def test_blocks_that_are_missing_are_passed_over(whole, tmp_path):
    """That the disk did not take, one or many, anywhere: what libvlart reads of the whole file is what comes."""
    log, rng = Log(whole), np.random.default_rng(0)
    head, blocks = head_bytes(log.info.plan_bytes), int(log.info.blocks)
    for number in range(10):
        data = bytearray(whole.read_bytes())
        gaps = 1 + number % 4
        for _ in range(gaps):
            begin, length = int(rng.integers(0, blocks - 1)), int(rng.choice([1, 2, 30, 60]))
            length = min(length, blocks - 1 - begin)  # the newest is there
            data[head + begin * BLOCK_BYTES: head + (begin + length) * BLOCK_BYTES] = bytes(length * BLOCK_BYTES)
        path = tmp_path / f"{number}.vlog"
        path.write_bytes(data)
        reader, wanted = Growing(path), Log(path)
        found = said(all_of(reader))
        missing = set(said(list(wanted))) - set(found)
        assert set(found) <= set(said(list(wanted))) and found == sorted(found, key=lambda e: e[1])
        assert reader.passed_blocks >= wanted.info.missing_blocks > 0
        assert not missing or gaps > 1, number  # what lies between two gaps may be passed over with them
        path.unlink()


def test_a_block_that_is_written_while_it_is_read(whole, tmp_path):
    """Blocks appear in part first; no event is lost by having looked too early."""
    log, path, rng = Log(whole), tmp_path / "a.vlog", np.random.default_rng(1)
    head, blocks = head_bytes(log.info.plan_bytes), laid_out(whole, log)
    shutil.copyfile(whole, path)
    with path.open("r+b") as file:
        file.seek(head)
        file.write(bytes(len(blocks) * BLOCK_BYTES))
        file.flush()
        reader, found = Growing(path), []
        for number in range(log.info.blocks):
            for begin, end in ((0, cut := int(rng.integers(1, BLOCK_BYTES))), (cut, BLOCK_BYTES)):
                file.seek(head + number * BLOCK_BYTES + begin)
                file.write(blocks[number][begin:end])
                file.flush()
                if rng.random() < 0.5:
                    found += looked(reader)
    found += looked(reader)
    assert said(found) == said(list(log)) and reader.passed_blocks == 0


def test_a_file_that_is_cut_off_replaced_or_no_recording(whole, bundle, tmp_path):
    path = tmp_path / "a.vlog"
    shutil.copyfile(whole, path)
    reader, log = Growing(path), Log(whole)
    assert len(all_of(reader)) == log.info.events and reader.cut_bytes == 0
    size = path.stat().st_size
    os.truncate(path, size // 2)
    assert reader.look() is None and reader.cut_bytes == size - size // 2
    cut = Log(path)
    assert cut.cut_bytes == reader.cut_bytes and log.cut_bytes == 0
    for left, what in ((head_bytes(log.info.plan_bytes) // 2, "damaged"), (50, "not a recording"),
                       (0, "not a recording")):
        os.truncate(path, left)
        with pytest.raises(BundleError, match=what) as refused:
            Growing(path).look()
        assert refused.value.why and refused.value.fix
    path.unlink()
    with vc.Session(bundle, record=path) as session:
        robot.drive(session, episodes=1)
    assert said(looked(reader)) == said(list(Log(path))) and reader.recording == Log(path).info.recording
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="no regular file"):
        reader.look()
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        reader.look()


def test_a_right_block_that_contradicts_the_plan_stops_the_reader(whole, tmp_path):
    """As it stops libvlart: nobody gets past it without a word."""
    log, path = Log(whole), tmp_path / "a.vlog"
    head, data = head_bytes(log.info.plan_bytes), bytearray(whole.read_bytes())
    block = data[head: head + BLOCK_BYTES]
    block[BLOCK.size + 4] = 200  # the kind of its first event
    used = int.from_bytes(block[4:8], "little")
    block[:4] = zlib.crc32(bytes(block[4: BLOCK.size + used])).to_bytes(4, "little")
    data[head: head + BLOCK_BYTES] = block
    path.write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        Log(path)
    reader = Growing(path)
    for _ in range(3):
        with pytest.raises(BundleError, match="damaged"):
            reader.look()


def test_what_is_lost_at_the_end_is_told_once(bundle, tmp_path):
    """What a track has no room for when the recording ends is told without a number of its own."""
    path = tmp_path / "a.vlog"
    with vc.Recorder(path, track_mib=1 / 256, flush_ms=1) as recorder, vc.Session(bundle, record=recorder) as session:
        reader = Growing(path)
        robot.drive(session, episodes=1, replans=1)
        while not (found := looked(reader)):
            time.sleep(1e-3)
        while not recorder.info().lost_events:
            session.write(robot.CAMERA, np.zeros((1, 6, 8, 3), np.uint8))
    log = Log(path)
    found += all_of(reader)
    assert log.losses[0] == recorder.info().lost_events > 0
    assert said(found) == said(list(log))
