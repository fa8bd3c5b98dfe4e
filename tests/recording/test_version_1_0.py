"""Recordings of version 1.0, which the last code before 1.1 wrote (`python -m tests.samples.exact_policy DIR` there),
are read, replayed and handed on as those of today are."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.samples import exact_policy as exact
from vlacompile.export.to_lerobot import dataset_files
from vlacompile.export.to_mcap import messages
from vlart.recording.growing import Growing
from vlart.recording.log import Log
from vlart.recording.replayed import replay
from vlart.recording.timeline import episodes

KEPT = Path(__file__).parent / "version_1_0"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Built today: other files than the recorded ones, and the same numbers, which are exact."""
    folder = tmp_path_factory.mktemp("exact")
    return {name: exact.built(folder, name == "lanes") for name in ("session", "lanes")}


@pytest.fixture(params=exact.RECORDINGS)
def log(request, tmp_path) -> Log:
    path = tmp_path / f"{request.param}.vlog"
    path.write_bytes(gzip.decompress((KEPT / f"{request.param}.vlog.gz").read_bytes()))
    return Log(path)


def steps_of(log: Log) -> int:
    return sum(e.kind == "step" and e.chunk is not None for e in log)


def test_it_is_of_version_1_0_and_read(log):
    assert log.info.version_minor == 0 and log.judges_lateness and log.full and log.cut_bytes == 0
    assert log.info.torn_events == 0 and log.losses == (0, 0) and log.clock.changes == 0
    assert steps_of(log) >= 6 and sum(e.kind == "pop" for e in log) >= 8
    found = Growing(log.path).look()
    assert found is not None and [(e.track, e.sequence) for e in found[1]] == [(e.track, e.sequence) for e in log]


def test_it_is_replayed(log, bundles):
    bundle = bundles["lanes" if log.path.stem == "lanes" else "session"]
    found = replay(log, bundle, other_bundle=True)
    assert found.equal and not found.skipped and found.chunks == steps_of(log), found
    assert found.actions == sum(len(e.actions) for e in log if e.kind == "pop" and not e.fields["status"])
    aside = replay(log, bundle, other_bundle=True, against=bundle)
    assert aside.equal and aside.chunks == found.chunks
    content = log.content
    log.content = lambda event: content(event) + np.ones(1, content(event).dtype)  # negative control
    assert replay(log, bundle, other_bundle=True).parted is not None


def test_it_is_handed_on(log):
    lines = episodes(log)
    assert len(lines) == 2 and sum(len(line.observed) for line in lines) >= 6
    assert {m.topic for m in messages(log)} >= {"/episode", "/action/executed", "/chunk", "/step"}
    if log.path.stem != "lanes":  # whose camera is seen by another session than the one that acts
        assert dataset_files(log, 10)[0]["meta/info.json"]
