"""A recording as an MCAP file with JSON messages, which Foxglove shows as it is.

Topics: /camera/NAME (foxglove.CompressedImage), /observation/NAME, /action/executed, /action/predicted, /chunk, /step,
/episode. Times are the recording's, as nanoseconds since 1970.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlacompile.export.packages import require
from vlacompile.export.predictions import predictions
from vlacompile.export.told import MOST_NUMBERS, handed_on, too_large
from vlart.files.atomic import write_whole
from vlart.recording.log import Log
from vlart.recording.timeline import Observed, cameras, picture, tick_ns

_TIME = {"type": "object", "title": "time", "properties": {"sec": {"type": "integer", "minimum": 0},
                                                           "nsec": {"type": "integer", "minimum": 0}}}
_NUMBERS = {"type": "array", "items": {"type": ["number", "null"]}}  # null: not finite, for which JSON has no word
_COUNT = {"type": "integer"}


def _json_schema(**properties: dict) -> dict:
    return {"type": "object", "properties": {"timestamp": _TIME} | properties}


SCHEMAS = {
    "foxglove.CompressedImage": _json_schema(frame_id={"type": "string"}, format={"type": "string"},
                                        data={"type": "string", "contentEncoding": "base64"}),
    "vlart.Numbers": _json_schema(values=_NUMBERS, fresh={"type": "boolean"}),
    "vlart.Executed": _json_schema(values=_NUMBERS, status={"type": "string"}, observation=_COUNT, chunk=_COUNT,
                                   row=_COUNT),
    "vlart.Predicted": _json_schema(values=_NUMBERS, chunk=_COUNT, row=_COUNT),
    "vlart.Chunk": _json_schema(actions={"type": "array", "items": _NUMBERS}, observation=_COUNT),
    "vlart.Step": _json_schema(status={"type": "string"}, ms={"type": "number"}, observation=_COUNT,
                          stages={"type": "object", "additionalProperties": {"type": "number"}}),
    "vlart.Episode": _json_schema(index=_COUNT, track=_COUNT, instruction={"type": "string"}),
}


@dataclass(frozen=True)
class Message:
    """time_ns: of the recording's clock."""

    time_ns: int
    topic: str
    schema: str
    fields: dict


def png(array: np.ndarray) -> bytes:
    """u8[H, W, 3] without loss."""
    image = require("PIL.Image", "recordings", "export")
    out = io.BytesIO()
    image.fromarray(np.ascontiguousarray(array)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def numbers(array: np.ndarray) -> list[float | None]:
    """In their order; None: not finite."""
    return [float(v) if math.isfinite(v) else None for v in array.ravel()]


def topic_name(source: str) -> str:
    return source.replace(".", "/")


def messages(log: Log) -> Iterator[Message]:
    """Episode by episode; within one by kind."""
    lines = handed_on(log)
    images, tick = cameras(log), tick_ns(lines)
    for index, line in enumerate(lines):
        yield Message(line.begin_ns, "/episode", "vlart.Episode",
                      {"index": index, "track": line.track, "instruction": line.text})
        for observed in line.observed:
            yield from _observed(observed, images)
        for e in line.executed:
            yield Message(e.time_ns, "/action/executed", "vlart.Executed", {
                "values": numbers(e.action), "status": e.status, "observation": e.observation, "chunk": e.chunk,
                "row": e.row})
        for p in predictions(line, tick):
            yield Message(p.time_ns, "/action/predicted", "vlart.Predicted",
                          {"values": numbers(p.action), "chunk": p.chunk, "row": p.row})


def _observed(o: Observed, images: dict[str, tuple[int, int]]) -> Iterator[Message]:
    for name, array in o.sources.items():
        if name in images:
            if name in o.fresh:
                yield Message(o.time_ns, f"/camera/{topic_name(name)}", "foxglove.CompressedImage", {
                    "frame_id": name, "format": "png", "data": base64.b64encode(png(picture(array))).decode()})
        elif array.size <= MOST_NUMBERS:
            yield Message(o.time_ns, f"/observation/{topic_name(name)}", "vlart.Numbers",
                          {"values": numbers(array), "fresh": name in o.fresh})
    yield Message(o.end_ns, "/step", "vlart.Step", {"status": o.status, "ms": (o.end_ns - o.time_ns) / 1e6,
                                                    "observation": o.name, "stages": dict(o.stages)})
    if o.chunk is not None:
        yield Message(o.end_ns, "/chunk", "vlart.Chunk", {"actions": [numbers(row) for row in o.chunk],
                                                          "observation": o.name})


def mcap_bytes(log: Log) -> bytes:
    writer_of = require("mcap.writer", "recordings", "--mcap").Writer
    out = io.BytesIO()
    writer = writer_of(out)
    writer.start(profile="", library="vlacompile")
    schemas = {name: writer.register_schema(name, "jsonschema", json.dumps(schema).encode())
               for name, schema in SCHEMAS.items()}
    channels: dict[str, int] = {}
    for count, m in enumerate(sorted(messages(log), key=lambda m: m.time_ns)):
        if m.topic not in channels:
            channels[m.topic] = writer.register_channel(m.topic, "json", schemas[m.schema])
        at = log.wall_ns(m.time_ns)
        stamp = {"timestamp": {"sec": at // 10**9, "nsec": at % 10**9}}
        writer.add_message(channels[m.topic], at, json.dumps(stamp | m.fields, allow_nan=False).encode(), at, count)
    writer.add_metadata("bundle", {"name": log.plan.name, "plan_sha256": log.bundle_hash})
    writer.finish()
    return out.getvalue()


def export_mcap(log: Log, out: Path) -> dict:
    """Writes the file. Returns what is in it."""
    data = mcap_bytes(log)
    write_whole(out, data)
    return {"path": str(out), "bytes": len(data), "left_out": too_large(log)}


