"""A recording as a file of Rerun: cameras above, executed and predicted actions below, on one time line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vlacompile.export.packages import require
from vlacompile.export.predictions import predictions
from vlacompile.export.to_mcap import png, topic_name
from vlacompile.export.told import MOST_NUMBERS, handed_on, too_large
from vlart.files.atomic import write_whole
from vlart.recording.log import Log
from vlart.recording.timeline import EpisodeLine, cameras, picture, tick_ns

TIMELINE = "time"
EXECUTED, PREDICTED = "action/executed", "action/predicted"


def rerun_bytes(log: Log) -> bytes:
    rr: Any = require("rerun", "rerun", "--rerun")
    lines = handed_on(log)  # what is refused is before Rerun begins, whose end prints a line of its own
    stream = rr.RecordingStream("vlacompile", recording_id=f"{log.info.recording:016x}")
    memory = stream.memory_recording()
    stream.send_blueprint(_blueprint(rr, log))
    for line in lines:
        _episode(rr, stream, log, line, tick_ns(lines))
    found: bytes = memory.drain_as_bytes()
    return found


def _episode(rr: Any, stream: Any, log: Log, line: EpisodeLine, tick: int) -> None:
    def at(time_ns: int) -> np.datetime64:
        return np.datetime64(log.wall_ns(time_ns), "ns")

    def rows(path: str, found: Iterable[tuple[int, np.ndarray]]) -> None:
        """One number per dimension and time."""
        times, values = zip(*found, strict=True) if (found := list(found)) else ((), ())
        if times:
            index = rr.TimeColumn(TIMELINE, timestamp=np.array([at(t) for t in times]))
            stream.send_columns(path, [index], rr.Scalars.columns(scalars=np.stack(values).astype(np.float64).ravel())
                                .partition([values[0].size] * len(values)))

    images = cameras(log)
    stream.set_time(TIMELINE, timestamp=at(line.begin_ns))
    stream.log("episode", rr.TextLog(f"episode {line.text!r}, track {line.track}"))
    for o in line.observed:
        stream.set_time(TIMELINE, timestamp=at(o.time_ns))
        for name in o.fresh & set(images) & set(o.sources):
            stream.log(f"camera/{topic_name(name)}",
                       rr.EncodedImage(contents=png(picture(o.sources[name])), media_type="image/png"))
        stream.set_time(TIMELINE, timestamp=at(o.end_ns))
        if o.status != "OK":
            stream.log("step/status", rr.TextLog(o.status, level="WARN"))
        if o.chunk is not None:
            stream.log("chunk", rr.Tensor(o.chunk, dim_names=["row", "dimension"]))
    rows("step/ms", ((o.end_ns, np.array([(o.end_ns - o.time_ns) / 1e6])) for o in line.observed))
    for name in {n for o in line.observed for n in o.sources} - set(images):
        rows(f"observation/{topic_name(name)}",
             ((o.time_ns, o.sources[name].ravel()) for o in line.observed
              if name in o.sources and o.sources[name].size <= MOST_NUMBERS))
    rows(EXECUTED, ((e.time_ns, e.action) for e in line.executed))
    rows(PREDICTED, ((p.time_ns, p.action) for p in predictions(line, tick)))


def _blueprint(rr: Any, log: Log) -> Any:
    blueprint: Any = require("rerun.blueprint", "rerun", "--rerun")
    pictures = [blueprint.Spatial2DView(origin=f"camera/{topic_name(n)}", name=n) for n in cameras(log)]
    rows = [blueprint.TimeSeriesView(origin="action", name="actions: executed, predicted"),
            blueprint.TimeSeriesView(origin="step", name="step, ms")]
    return blueprint.Blueprint(blueprint.Vertical(*([blueprint.Horizontal(*pictures)] if pictures else []), *rows))


def export_rerun(log: Log, out: Path) -> dict:
    """Writes the file. Returns what is in it."""
    data = rerun_bytes(log)
    write_whole(out, data)
    return {"path": str(out), "bytes": len(data), "left_out": too_large(log)}
