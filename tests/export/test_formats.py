"""Exports, read by the libraries that people read them with: the same numbers, pixels and times."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.samples import recorded_robot as robot
from vlacompile.export.to_lerobot import export_lerobot
from vlacompile.export.to_mcap import export_mcap, messages
from vlacompile.export.to_rerun import export_rerun
from vlacompile.export.told import missing, too_large
from vlacompile.frontends.dataset import open_dataset, read_frames
from vlart.errors import ConfigError, RuntimeFailure, UsageError
from vlart.recording.log import Log
from vlart.recording.timeline import episodes

INSTALL = "pip install 'vlacompile[recordings]'"


def unpacked(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def test_mcap(log, tmp_path):
    mcap = pytest.importorskip("mcap.reader", reason=INSTALL)
    pytest.importorskip("PIL", reason=INSTALL)
    written = export_mcap(log, tmp_path / "run.mcap")
    found: dict[str, list[tuple[int, dict]]] = {}
    with (tmp_path / "run.mcap").open("rb") as file:
        reader = mcap.make_reader(file)
        for schema, channel, message in reader.iter_messages():
            assert schema.encoding == "jsonschema" and json.loads(schema.data)["type"] == "object"
            found.setdefault(channel.topic, []).append((message.log_time, json.loads(message.data)))
        metadata = next(iter(reader.iter_metadata())).metadata
    assert written["bytes"] == (tmp_path / "run.mcap").stat().st_size
    assert metadata == {"name": log.plan.name, "plan_sha256": log.bundle_hash}
    lines = episodes(log)
    executed = [e for line in lines for e in line.executed]
    assert [t for t, _ in found["/action/executed"]] == [log.wall_ns(e.time_ns) for e in executed]
    assert np.array_equal(np.float32([m["values"] for _, m in found["/action/executed"]]),
                          np.stack([e.action for e in executed]))
    chunks = [o for line in lines for o in line.observed]
    assert np.array_equal(np.float32([m["actions"] for _, m in found["/chunk"]]), np.stack([o.chunk for o in chunks]))
    images = [(o, o.sources[robot.CAMERA][0]) for o in chunks if robot.CAMERA in o.fresh]
    pictures = found["/camera/observation/images/wrist"]
    assert len(pictures) == len(images) == 3
    for (at, m), (o, image) in zip(pictures, images, strict=True):
        assert at == log.wall_ns(o.time_ns) == m["timestamp"]["sec"] * 10**9 + m["timestamp"]["nsec"]
        assert np.array_equal(unpacked(base64.b64decode(m["data"])), image)
    assert len(found["/step"]) == 6 and len(found["/episode"]) == 3 and found["/action/predicted"]


def test_rerun(log, tmp_path):
    """Rerun's own program reads every message, and lists what the viewer shows."""
    pytest.importorskip("rerun", reason="pip install 'vlacompile[rerun]'")
    export_rerun(log, tmp_path / "run.rrd")
    rerun = [sys.executable, "-m", "rerun", "rrd"]
    home = os.environ | {"HOME": str(tmp_path)}  # it writes settings there
    subprocess.run([*rerun, "verify", "run.rrd"], cwd=tmp_path, env=home, check=True, capture_output=True)
    listed = subprocess.run([*rerun, "print", "-v", "run.rrd"], cwd=tmp_path, env=home, check=True, capture_output=True,
                            text=True).stdout
    for entity in ("/action/executed", "/action/predicted", "/camera/observation/images/wrist", "/chunk", "/step/ms"):
        assert entity in listed, entity


def test_lerobot(log, tmp_path):
    pytest.importorskip("pyarrow", reason=INSTALL)
    pytest.importorskip("PIL", reason=INSTALL)
    written = export_lerobot(log, tmp_path / "set", fps=30)
    dataset = open_dataset(tmp_path / "set")
    lines = episodes(log)
    assert written["total_frames"] == dataset.length == sum(len(line.executed) for line in lines)
    assert dataset.fps == 30 and dataset.shape(robot.CAMERA) == (6, 8, 3) and len(dataset.episodes) == 3
    for episode, line in zip(dataset.episodes, lines, strict=True):
        names = ["action", robot.STATE, robot.CAMERA, "observation.fresh", "timestamp"]
        rows, task = read_frames(dataset, episode, range(episode.length), names)
        assert task == "" and np.array_equal(rows["action"], np.stack([e.action for e in line.executed]))
        assert rows["observation.fresh"].ravel().tolist() == [i % robot.EXECUTE == 0 for i in range(8)]
        for i in range(episode.length):
            seen = line.observed[i // robot.EXECUTE].sources
            assert np.array_equal(rows[robot.STATE][i], seen[robot.STATE][0])
            assert np.array_equal(rows[robot.CAMERA][i], seen[robot.CAMERA][0])
        assert np.allclose(rows["timestamp"].ravel(), np.arange(8) / 30)
    with pytest.raises(ConfigError, match="exists"):
        export_lerobot(log, tmp_path / "set")


def test_the_rate_is_the_recorded_one(log, tmp_path):
    pytest.importorskip("pyarrow", reason=INSTALL)
    pytest.importorskip("PIL", reason=INSTALL)
    written = export_lerobot(log, tmp_path / "set")
    assert 1 <= written["fps"] <= 500  # pops 2 ms apart, at least


def test_what_cannot_be_exported(bundle, tmp_path):
    import vlacompile as vc

    pytest.importorskip("pyarrow", reason=INSTALL)
    with vc.Session(bundle, record=tmp_path / "one.vlog") as session:
        robot.drive(session, episodes=1, replans=1, execute=1)
    with pytest.raises(UsageError, match="rate"):
        export_lerobot(Log(tmp_path / "one.vlog"), tmp_path / "set")
    with vc.Session(bundle, record=tmp_path / "none.vlog"):
        pass
    with pytest.raises(ConfigError, match="nothing that a dataset holds"):
        export_lerobot(Log(tmp_path / "none.vlog"), tmp_path / "set")


def test_what_is_not_finite(bundle, tmp_path):
    """Accepted input of a robot: MCAP says null, a dataset refuses it by its row."""
    import vlacompile as vc

    with vc.Session(bundle, record=tmp_path / "a.vlog", accept=["not finite"]) as session:
        robot.drive(session, episodes=1, replans=2, execute=2)
        session.write(robot.STATE, np.array([[1.0, np.nan, np.inf]], np.float32))
        with contextlib.suppress(RuntimeFailure):  # what is made of it is refused; the last chunk goes on
            session.step()
        session.pop()
    log = Log(tmp_path / "a.vlog")
    found = [m.fields["values"] for m in messages(log) if m.topic == "/observation/observation/state"]
    assert found[-1] == [1.0, None, None] and all(None not in values for values in found[:-1])
    for m in messages(log):
        json.dumps(m.fields, allow_nan=False)
    pytest.importorskip("pyarrow", reason=INSTALL)
    pytest.importorskip("PIL", reason=INSTALL)
    with pytest.raises(ConfigError, match=f'"{robot.STATE}" holds a number that is not finite') as refused:
        export_lerobot(log, tmp_path / "set", fps=30)
    assert "row 4" in refused.value.where and not (tmp_path / "set").exists()


def test_what_an_export_leaves_out_is_said(log):
    assert too_large(log) == [] and missing(log) == {}


def test_nothing_is_not_handed_on(bundle, tmp_path):
    import vlacompile as vc

    with vc.Session(bundle, record=tmp_path / "none.vlog"):
        pass
    with pytest.raises(ConfigError, match="nothing to hand on") as refused:
        list(messages(Log(tmp_path / "none.vlog")))
    assert "none of its 1 events" in refused.value.why
