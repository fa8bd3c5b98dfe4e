"""Whatever the wall clock said when a recording began, the times of its events are those of the steady clock, and what
is replayed and handed on does not change. Of clocks that are set meanwhile: test_wall_clock.py."""

from __future__ import annotations

import gzip
import zlib

import pytest

from tests.recording.test_version_1_0 import KEPT
from vlacompile.export.to_mcap import messages
from vlart.bundle.format.records_recording import LOG
from vlart.recording.log import Log
from vlart.recording.timeline import episodes, tick_ns

HOUR_NS = 3600 * 10**9


@pytest.fixture
def moved(tmp_path):
    """The same recording as it was, and as it would be if its clock had been wrong by so much when it began."""
    def make(by_ns: int) -> Log:
        data = gzip.decompress((KEPT / "session.vlog.gz").read_bytes())
        head = LOG.unpack(data)
        record = LOG.pack(**{**head, "wall_ns": max(0, head["wall_ns"] + by_ns)})[:-4]
        path = tmp_path / f"{by_ns}.vlog"
        path.write_bytes(record + zlib.crc32(record).to_bytes(4, "little") + data[LOG.size:])
        return Log(path)

    return make


@pytest.mark.parametrize("by_ns", [HOUR_NS, -HOUR_NS, -1 << 62], ids=["ahead", "back", "never set"])
def test_times_of_events_do_not_depend_on_it(moved, by_ns):
    there, here = moved(0), moved(by_ns)
    assert list(there) == list(here) and tick_ns(episodes(there)) == tick_ns(episodes(here)) > 0
    first, *_ = there
    by = here.wall_ns(first.time_ns) - there.wall_ns(first.time_ns)
    assert by == (by_ns if abs(by_ns) == HOUR_NS else -there.info.wall_ns)
    assert all(here.wall_ns(e.time_ns) - there.wall_ns(e.time_ns) == by for e in there)
    told = [(m.topic, m.time_ns, m.fields) for m in messages(there)]
    assert told == [(m.topic, m.time_ns, m.fields) for m in messages(here)]
