"""The wall clock is set while a robot is recorded: dates are right from the first event on, whatever the clock said
when the recording began, and everything that shows dates says so."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib

import pytest

from tests.recording.clock_driver import KILLED, MS, SCENARIOS, S
from tests.runtime_c.running import BUILD, ROOT, make
from tests.samples import recorded_robot as robot
from vlacompile.export.to_mcap import export_mcap, messages
from vlacompile.view.live import Live
from vlart.bundle.directory import read_bundle
from vlart.bundle.format.records_recording import BLOCK, CLOCK_EVENT, EVENT, LOG
from vlart.errors import BundleError
from vlart.recording.growing import Growing
from vlart.recording.log import BLOCK_BYTES, Log, head_bytes
from vlart.recording.replayed import replay
from vlart.recording.wall_clock import WallClock
from vlart.vocabulary import EVENT_KINDS, EVENT_ROLES

JITTER_NS = 3 * MS  # of two readings of two clocks each
WRITER = 64  # VLART_MAX_TRACKS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return robot.built(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory):
    """(the folder of the recordings, {name: what both clocks said at its end})"""
    make(f"BUILD={BUILD}", str(BUILD / "libset_clock.so"))
    folder = tmp_path_factory.mktemp("recordings")
    driver = ROOT / "tests" / "recording" / "clock_driver.py"
    done = subprocess.run([sys.executable, str(driver), str(bundle), str(folder)], capture_output=True, text=True,
                          env={**os.environ, "LD_PRELOAD": str(BUILD / "libset_clock.so"), "PYTHONPATH": str(ROOT)},
                          timeout=300, check=False)
    assert done.returncode == -9, done.stderr  # the last one is killed
    return folder, json.loads(done.stdout)


@pytest.fixture(params=SCENARIOS)
def made_one(made, request):
    """(its name, its recording, what both clocks said at its end)"""
    return request.param, Log(made[0] / f"{request.param}.vlog"), made[1][request.param]


def test_dates_are_those_of_the_clock_as_it_was_set_last(made_one):
    name, log, (wall_ns, time_ns) = made_one
    scenario = SCENARIOS[name]
    slewed_ns = 0 if scenario.told else scenario.moved_ns
    assert abs(log.wall_ns(time_ns) - (wall_ns - slewed_ns)) < JITTER_NS
    assert log.clock.changes == scenario.told
    assert abs(log.clock.moved_ns - (scenario.moved_ns - slewed_ns)) < JITTER_NS
    times = [log.wall_ns(e.time_ns) for e in log]
    assert all(wall_ns - 300 * S < t <= wall_ns + JITTER_NS for t in times)  # also before it was set
    in_order = sorted(log, key=lambda e: e.time_ns)
    assert [log.wall_ns(e.time_ns) - e.time_ns for e in in_order] == [times[0] - next(iter(log)).time_ns] * len(times)


def test_each_time_that_it_was_set_is_an_event_of_the_writers(made_one):
    name, log, _ = made_one
    scenario = SCENARIOS[name]
    told = [e for e in log if e.kind == "clock"]
    assert all(e.role == "writer" and e.track == WRITER and e.sequence and not e.rest for e in told)
    assert sorted({e.fields["changes"] for e in told}) == list(range(1, scenario.told + 1))
    before = scenario.begin_ns
    for change, ahead_ns in enumerate(scenario.sets_ns if scenario.told else (), 1):
        assert all(abs(e.fields["moved_ns"] - (ahead_ns - before)) < JITTER_NS
                   for e in told if e.fields["changes"] == change)
        before = ahead_ns
    assert log.losses == (0, 0) and log.info.torn_events == 0


def test_what_was_overwritten_is_told_again(made):
    log = Log(made[0] / "overwritten.vlog")
    laps = (log.info.last_block + 1) / log.info.block_count
    told = [e for e in log if e.kind == "clock"]
    assert laps > 4 and told[0].sequence > laps and 2 <= len(told) <= 4  # in this lap; not at every block
    assert {e.fields["changes"] for e in told} == {1}


def test_a_reader_of_a_growing_file_knows_it_too(made):
    """Whichever blocks a look finds: it was told in others."""
    log = Log(made[0] / "overwritten.vlog")
    reader, looks = Growing(log.path, most_read=BLOCK_BYTES), []
    while (found := reader.look()) is not None:
        looks.append(found)
    first = next(i for i, (part, _) in enumerate(looks) if part.info.clock_changes)
    others = [(part, events) for part, events in looks[first:] if not part.info.clock_changes]
    assert len(others) > 8 and not any(e.kind == "clock" for _, events in others for e in events)
    for part, events in others:
        assert part.clock == log.clock
        assert [part.wall_ns(e.time_ns) for e in events] == [log.wall_ns(e.time_ns) for e in events]
    assert Log(looks[-1][0].path, known_clock=Log(made[0] / "untouched.vlog").clock).clock == log.clock


@pytest.mark.parametrize("name", ["forward", "backward", "overwritten", KILLED])
def test_it_is_replayed_as_before(made, bundle, name):
    found = replay(Log(made[0] / f"{name}.vlog"), bundle)
    assert found.equal and found.clock.changes == 1
    assert found.as_dict()["clock_changes"] == 1


@pytest.mark.parametrize("name", ["untouched", "first"])
def test_an_export_has_the_right_dates(made, tmp_path, name):
    mcap = pytest.importorskip("mcap.reader", reason="pip install 'vlacompile[recordings]'")
    pytest.importorskip("PIL", reason="pip install 'vlacompile[recordings]'")
    log, (wall_ns, _) = Log(made[0] / f"{name}.vlog"), made[1][name]
    export_mcap(log, tmp_path / "run.mcap")
    with (tmp_path / "run.mcap").open("rb") as file:
        times = [m.log_time for _, _, m in mcap.make_reader(file).iter_messages()]
    assert len(times) == len(list(messages(log))) and all(wall_ns - 300 * S < t < wall_ns + JITTER_NS for t in times)
    was = log.info.wall_ns - log.info.clock_ns  # negative control: what the head alone says
    wrong = [m.time_ns + was for m in messages(log)]
    assert all(abs(t - wall_ns) < 300 * S for t in wrong) == (name == "untouched")


LINE = "the wall clock was set 1 time, by +3.2 h: dates count from its last reading"


def test_every_command_says_it(made, bundle, tmp_path, cli):
    moved, untouched = (str(made[0] / f"{name}.vlog") for name in ("forward", "untouched"))
    for log, said in ((moved, True), (untouched, False)):
        code, out, _ = cli("replay", log, str(bundle))
        assert code == 0 and (LINE in out) == said and ("wall clock" in out) == said
        code, out, _ = cli("replay", log, str(bundle), "--json")
        assert json.loads(out)["clock_changes"] == int(said) and (json.loads(out)["clock_moved_s"] > 3600) == said
        state = Live(made[0] / log, read_bundle(bundle)).read()
        assert state["wall_clock"] == (LINE if said else "") and not state["problem"]
    pytest.importorskip("mcap", reason="pip install 'vlacompile[recordings]'")
    for log, said in ((moved, True), (untouched, False)):
        code, out, _ = cli("export", log, "--mcap", str(tmp_path / "run.mcap"))
        assert code == 0 and (LINE in out) == said
        code, out, _ = cli("export", log, "--mcap", str(tmp_path / "run.mcap"), "--json")
        assert json.loads(out)["clock_changes"] == int(said)
    pytest.importorskip("rerun", reason="pip install 'vlacompile[rerun]'")
    code, out, _ = cli("view", moved, "--save", str(tmp_path / "run.rrd"))
    assert code == 0 and LINE in out


@pytest.mark.parametrize("moved_ns, changes, words", [
    (0, 0, ""), (-20 * MS, 1, "set 1 time, by -20 ms:"), (45 * S, 1, "set 1 time, by +45.0 s:"),
    (-90 * S, 2, "set 2 times, by -1.5 min in all:"), (20000 * 86400 * S, 1, "by +20000.0 d:"),
    (0, 2, "set 2 times, by +0 ms in all:")])
def test_words(moved_ns, changes, words):
    said = WallClock(5, 5 + moved_ns, changes).words()
    assert words in said if words else said == ""


def test_a_date_is_a_number_that_formats_hold():
    """Whatever a clock said: not before 1970, not behind what 64 bits hold."""
    assert WallClock(0, -10 * S, 1).wall_ns(3 * S) == 0
    assert WallClock(0, (1 << 63) - 5, 1).wall_ns(3 * S) == (1 << 63) - 1


def sealed(data: bytearray, log: Log, at: int) -> bytes:
    """With the right checksum of the block in which something was changed."""
    head = head_bytes(log.info.plan_bytes)
    begin = head + (at - head) // BLOCK_BYTES * BLOCK_BYTES
    used = BLOCK.unpack(bytes(data[begin: begin + BLOCK.size]))["used"]
    data[begin: begin + 4] = struct.pack("<I", zlib.crc32(data[begin + 4: begin + BLOCK.size + used]))
    return bytes(data)


@pytest.mark.parametrize("of, change, why", [
    (CLOCK_EVENT, {"changes": 7}, None),  # the control: a change that could be
    (EVENT, {"bytes": 16}, "wrong size"), (EVENT, {"role": 1}, "not the writer's"),
    (EVENT, {"track": 3}, "not the writer's"), (EVENT, {"track": 65}, "nobody's"),
    (EVENT, {"kind": 21}, "unknown kind"), (CLOCK_EVENT, {"changes": 0}, "not possible"),
    (CLOCK_EVENT, {"moved_ns": 0}, "not possible"),
    (CLOCK_EVENT, {"wall_ns": 1 << 63}, "not possible")])
def test_a_damaged_one_is_refused(made, tmp_path, of, change, why):
    log = Log(made[0] / "forward.vlog")
    data = bytearray(log.path.read_bytes())
    kind = struct.pack("<4I", CLOCK_EVENT.size, EVENT_KINDS["clock"], WRITER, EVENT_ROLES["writer"])
    assert data.count(kind) == 1
    at = data.index(kind) + (EVENT.size if of is CLOCK_EVENT else 0)
    data[at: at + of.size] = of.pack(**{**of.unpack(bytes(data[at: at + of.size])), **change})
    path = tmp_path / "a.vlog"
    path.write_bytes(sealed(data, log, at))
    if why is None:
        assert Log(path).clock.changes == 7
        return
    for reading in (Log, lambda file: Growing(file).look()):
        with pytest.raises(BundleError, match="damaged") as refused:
            reading(path)
        assert why in refused.value.why and refused.value.fix


def test_recordings_of_version_1_1_are_read(made, tmp_path):
    """Which are as those of today in which nobody set the clock."""
    today = Log(made[0] / "untouched.vlog")
    data = today.path.read_bytes()
    assert today.info.version_minor == 2
    record = LOG.pack(**{**LOG.unpack(data), "version_minor": 1})[:-4]
    path = tmp_path / "old.vlog"
    path.write_bytes(record + struct.pack("<I", zlib.crc32(record)) + data[LOG.size:])
    log = Log(path)
    assert log.info.version_minor == 1 and list(log) == list(today) and log.clock == today.clock
    assert log.clock.changes == log.clock.moved_ns == 0 and log.clock.words() == ""
