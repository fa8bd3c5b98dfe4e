"""What a recording holds, who may make one, and what is told where it cannot be made or read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import vlacompile as vc
from tests.samples import recorded_robot as robot
from vlart.errors import BundleError, ConfigError, RuntimeFailure
from vlart.recording.log import Log
from vlart.runtime.recorder import recorded_words


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return robot.built(tmp_path_factory.mktemp("recorder"))


def test_everything_is_in_it(bundle, tmp_path):
    with vc.Recorder(tmp_path / "a.vlog") as recorder, vc.Session(bundle, record=recorder) as session:
        robot.drive(session, episodes=2, replans=3)
        chunk, plan = session.chunk(), session.plan
    log = Log(tmp_path / "a.vlog")
    told = recorder.info()
    assert told.complete and told.events == log.info.events and "none lost" in recorded_words(recorder)
    assert log.plan == plan and log.full and log.losses == (0, 0) and log.info.torn_events == 0
    assert [e.sequence for e in log] == list(range(1, log.info.events + 1))
    steps = [e for e in log if e.kind == "step"]
    assert np.array_equal(steps[-1].chunk.reshape(chunk.shape), chunk)
    rows = {s.name: steps[-1].stages[i] for i, s in enumerate(plan.stages)}
    assert rows["language"]["runs"] == 2 and rows["fusion"]["runs"] == 6  # the instruction changes with the episode
    assert rows["fusion"]["ran"] and rows["fusion"]["ns"] > 0 and not rows["language"]["ran"]
    assert [int(e.fields["chunk"]) for e in log if e.kind == "pop"] == [c for c in range(1, 7) for _ in range(4)]
    seen = [e for e in log if e.kind == "source" and e.has("full") and log.content(e).dtype == np.uint8]
    assert len({e.fields["crc32"] for e in seen}) == 4 + 2 - 2  # of six observations two kept the camera's content
    assert abs(log.wall_ns(steps[0].time_ns) - (tmp_path / "a.vlog").stat().st_mtime_ns) < 60e9


def test_what_is_refused_is_told(bundle, tmp_path):
    path = tmp_path / "a.vlog"
    with vc.Session(bundle, record=path) as session, pytest.raises(RuntimeFailure):
        session.write(robot.STATE, np.full((1, robot.DIM), np.nan, np.float32))
    assert [e.kind for e in Log(path)] == ["keyframe", "refused"]
    with pytest.raises(RuntimeFailure, match="there is a file") as there:
        vc.Session(bundle, record=path)
    assert there.value.status == "IO" and "never written over" in there.value.fix
    with pytest.raises(RuntimeFailure, match="cannot be made"):
        vc.Session(bundle, record=tmp_path / "nowhere" / "a.vlog")
    for wrong in ({"mib": 0}, {"mib": "many"}, {"track_mib": -1}, {"tracks": -1}, {"flush_ms": -1}):
        with pytest.raises(ConfigError):
            vc.Recorder(tmp_path / "b.vlog", **wrong)
    with vc.Recorder(tmp_path / "c.vlog") as recorder, pytest.raises(ConfigError, match="no bundle yet"):
        recorder.record(lambda *_: 0, None)
    with pytest.raises(ConfigError, match="closed"):
        vc.Session(bundle, record=recorder)


def test_who_closes_first_does_not_matter(bundle, tmp_path):
    recorder = vc.Recorder(tmp_path / "a.vlog")
    session = vc.Session(bundle, record=recorder)
    recorder.close()
    robot.drive(session, episodes=1, replans=1)
    session.close()
    assert recorder.info().complete and Log(tmp_path / "a.vlog").info.events == recorder.info().events > 5


def test_a_recorder_is_of_one_bundle(bundle, tmp_path):
    other = robot.built(tmp_path, gain=2.0)
    with vc.Recorder(tmp_path / "a.vlog", tracks=2) as recorder, vc.Session(bundle, record=recorder):
        with pytest.raises(RuntimeFailure, match=r"misused|wrong|session_record") as refused:
            vc.Session(other, record=recorder)
        assert "another bundle" in refused.value.why
        with vc.Session(bundle, record=recorder), pytest.raises(RuntimeFailure, match="no track left"):
            vc.Session(bundle, record=recorder)


def test_files_that_are_no_recordings(tmp_path, bundle):
    for name, content, what in (("empty", b"", "not a recording"), ("text", b"hello" * 1000, "not a recording"),
                                ("plan", (bundle / "plan.bin").read_bytes(), "not a recording")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BundleError, match=what):
            Log(tmp_path / name)
    with pytest.raises(BundleError, match="cannot read"):
        Log(tmp_path / "missing")
    with vc.Session(bundle, record=tmp_path / "a.vlog") as session:
        robot.drive(session, episodes=1, replans=1)
    data = bytearray((tmp_path / "a.vlog").read_bytes())
    data[200] ^= 1
    (tmp_path / "b.vlog").write_bytes(data)
    with pytest.raises(BundleError, match="damaged") as damaged:
        Log(tmp_path / "b.vlog")
    assert "plan" in damaged.value.why


def test_a_path_that_is_no_new_file_is_refused(bundle, tmp_path):
    """And what is there stays as it was. A link is not followed, whether it leads anywhere or not."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"kept")
    os.mkfifo(tmp_path / "pipe")
    for link, to in (("link", "file"), ("dangling", "nowhere"), ("circle", "circle")):
        (tmp_path / link).symlink_to(tmp_path / to)
    there = {"folder", "file", "pipe", "link", "dangling", "circle"}
    for path, word in ([(tmp_path / name, "it exists") for name in there] + [
            ("/dev/full", "it exists"), (tmp_path / "file" / "a", "no directory"), ("/proc/a.vlog", "errno"),
            (tmp_path / ("a" * 300), "too long"), (tmp_path / "circle" / "a", "circle")]):
        with pytest.raises(RuntimeFailure) as refused:
            vc.Session(bundle, record=path)
        failure = refused.value
        assert failure.status == "IO" and word in failure.why and failure.fix, path
        assert failure.where.startswith(str(path)[:100])
    assert {entry.name for entry in tmp_path.iterdir()} == there and (tmp_path / "file").read_bytes() == b"kept"


SECOND = """
import sys, vlacompile as vc
from vlart.errors import RuntimeFailure
try:
    vc.Session(sys.argv[1], record=sys.argv[2])
except RuntimeFailure as failure:
    print(failure)
"""


def test_two_recorders_of_one_file(bundle, tmp_path):
    """Of one process or of two: the second is refused, and the first goes on as if nothing had been."""
    path = tmp_path / "a.vlog"
    with vc.Recorder(path) as recorder, vc.Session(bundle, record=recorder) as session:
        robot.drive(session, episodes=1, replans=1)
        with vc.Recorder(path) as other, pytest.raises(RuntimeFailure, match="there is a file"):
            vc.Session(bundle, record=other)
        done = subprocess.run([sys.executable, "-c", SECOND, str(bundle), str(path)], capture_output=True, text=True,
                              check=True)
        assert done.stdout.startswith("there is a file") and done.stdout.count("\n") == 4 and not done.stderr
        robot.drive(session, episodes=1, replans=1)
    assert recorder.info().complete and Log(path).info.events == recorder.info().events
    assert sum(e.kind == "step" for e in Log(path)) == 2


FULL = """
import resource, signal, sys
import numpy as np, vlacompile as vc
from tests.samples import recorded_robot as robot
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with vc.Recorder(sys.argv[2], mib=4, flush_ms=1) as recorder, vc.Session(sys.argv[1], record=recorder) as session:
    robot.drive(session, episodes=4)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))
    robot.drive(session, episodes=300)
    print(session.queue().chunks)
told = recorder.info()
print(told.lost_events, told.lost_blocks, told.error)
"""


def test_a_disk_that_takes_no_more_stops_nothing(bundle, tmp_path):
    """A limit on the file's size stands for a full disk: the system refuses the write in the same way."""
    path = tmp_path / "a.vlog"
    done = subprocess.run([sys.executable, "-c", FULL, str(bundle), str(path)], capture_output=True, text=True,
                          check=True)
    chunks, (events, blocks, error) = done.stdout.split()[0], done.stdout.split(maxsplit=3)[1:]
    assert int(chunks) == 304 * 4 and int(events) == 0 and int(blocks) > 10 and "arge" in error
    log = Log(path)
    assert 10 < log.info.events < 304 * 20  # what came before is there


def test_several_threads_record_at_once(bundle, tmp_path):
    with vc.Recorder(tmp_path / "a.vlog", tracks=4) as recorder:
        sessions = [vc.Session(bundle, record=recorder) for _ in range(4)]
        threads = [threading.Thread(target=robot.drive, args=(s,), kwargs={"seed": i, "episodes": 6})
                   for i, s in enumerate(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for session in sessions:
            session.close()
    log = Log(tmp_path / "a.vlog")
    assert recorder.info().complete
    for track in range(4):
        found = [e for e in log if e.track == track]
        assert [e.sequence for e in found] == list(range(1, len(found) + 1))
        assert sum(e.kind == "step" for e in found) == 24


def test_a_forked_process_leaves_it_alone(bundle, tmp_path):
    with vc.Recorder(tmp_path / "a.vlog") as recorder, vc.Session(bundle, record=recorder) as session:
        robot.drive(session, episodes=1, replans=1)
        child = os.fork()
        if child == 0:
            recorder.close()
            session.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        robot.drive(session, episodes=1, replans=1)
    assert recorder.info().complete and sum(e.kind == "step" for e in Log(tmp_path / "a.vlog")) == 2
