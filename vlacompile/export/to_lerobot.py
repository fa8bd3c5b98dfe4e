"""A recording as a LeRobot dataset (v3.0): a row per executed action, to train on again.

The policy sees an observation per replan and acts between: rows hold the newest one, and "observation.fresh" says in
which row it is new. Images are PNG in the table, without loss. Instructions that came as text are the tasks. Format: as
lerobot 0.6.1 reads it (lerobot/datasets); its own reader is what the tests open it with.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlacompile.export.packages import require
from vlacompile.export.to_mcap import png
from vlart.errors import ConfigError, UsageError
from vlart.files.atomic import put_tree, write_tree
from vlart.recording.log import Log
from vlart.recording.timeline import EpisodeLine, Observed, cameras, episodes, picture, tick_ns
from vlart.vocabulary import NUMPY_DTYPES

DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FRESH, ACTION = "observation.fresh", "action"
INDEXES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
           "task_index": "int64"}
LIVE = ("observation", "tick")  # update classes of what a dataset holds; noise and tokens are computed anew


@dataclass(frozen=True)
class Column:
    """source: of the bundle. shape: of a row. camera: its content is an image."""

    source: str
    dtype: str
    shape: tuple[int, ...]
    camera: bool

    @property
    def feature(self) -> dict:
        if self.camera:
            return {"dtype": "image", "shape": list(self.shape), "names": ["height", "width", "channels"]}
        return {"dtype": self.dtype, "shape": list(self.shape), "names": None}


def columns(log: Log) -> dict[str, Column]:
    """{name in the dataset: where it comes from}"""
    images, found = cameras(log), {}
    for source in log.plan.sources:
        value = log.plan.values[source.value]
        if source.update not in LIVE:
            continue
        if value.name in images:
            found[_name(value.name, "observation.images.")] = Column(
                value.name, "image", (*images[value.name], 3), True)
        else:
            dtype = np.dtype(NUMPY_DTYPES[value.type.dtype]).name
            found[_name(value.name, "observation.")] = Column(value.name, dtype, (int(np.prod(value.type.dims)),),
                                                              False)
    return found


def _name(source: str, lead: str) -> str:
    return source if source.startswith("observation.") else lead + source.replace("/", ".")


def _rows(line: EpisodeLine) -> list[tuple[Observed, np.ndarray, bool]]:
    """(newest observation, action, whether the observation is new). Where nobody popped, as of a server that sends
    whole chunks, the first action of each chunk."""
    if not line.executed:
        return [(o, o.chunk[0], True) for o in line.observed if o.chunk is not None]
    found, at, last = [], -1, -1
    for e in line.executed:
        while at + 1 < len(line.observed) and line.observed[at + 1].end_ns <= e.time_ns:
            at += 1
        if at >= 0:
            found.append((line.observed[at], e.action, at != last))
            last = at
    return found


def _fps(lines: list[EpisodeLine], fps: int | None) -> int:
    """Raises UsageError where the recording does not say it."""
    tick = tick_ns(lines)
    if fps is None and not tick:
        raise UsageError("the rate of the actions is not known", where="--fps", why="fewer than two were recorded",
                         fix="say it: --fps HZ")
    return fps or max(1, round(1e9 / tick))


def dataset_files(log: Log, fps: int | None = None) -> tuple[dict[str, bytes], list[str]]:
    """({path in the dataset: content}, what of the recording it does not hold). Raises ConfigError for a recording
    without actions or observations, or with numbers that are not finite."""
    pa: Any = require("pyarrow", "recordings", "--lerobot")
    lines = [line for line in episodes(log) if _rows(line)]
    named = columns(log)
    if not lines or not log.full or log.plan.action is None:
        raise ConfigError("the recording has nothing that a dataset holds", where=str(log.path),
                          why="it has no observation with an action, or it was recorded without content",
                          fix="record a policy with actions, with content")
    rate = _fps(lines, fps)
    tasks = list(dict.fromkeys(line.text for line in lines))
    table: dict[str, list] = {name: [] for name in (*named, ACTION, FRESH, *INDEXES)}
    rows_of = []
    for index, line in enumerate(lines):
        begin = len(table["index"])
        for frame, (observed, action, fresh) in enumerate(_rows(line)):
            for name, column in named.items():
                table[name].append(observed.sources.get(column.source))
            table[ACTION].append(action)
            table[FRESH].append(fresh)
            for name, value in zip(INDEXES, (frame / rate, frame, index, len(table["index"]), tasks.index(line.text)),
                                   strict=True):
                table[name].append(value)
        rows_of.append((begin, len(table["index"])))
    left_out = []
    for name in [n for n in named if any(x is None for x in table[n])]:
        left_out.append(f"{name} (not written before the first action)")
        del table[name], named[name]
    _require_finite(log, table)
    features = {name: c.feature for name, c in named.items()} | {
        ACTION: {"dtype": "float32", "shape": [log.plan.action.action_dim], "names": None},
        FRESH: {"dtype": "bool", "shape": [1], "names": None},
        **{n: {"dtype": d, "shape": [1], "names": None} for n, d in INDEXES.items()}}
    stats = [_stats(table, named, features, *rows) for rows in rows_of]
    info = {"codebase_version": "v3.0", "robot_type": None, "total_episodes": len(lines),
            "total_frames": len(table["index"]), "total_tasks": len(tasks), "chunks_size": 1000,
            "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": rate,
            "splits": {"train": f"0:{len(lines)}"}, "data_path": DATA, "video_path": None, "features": features}
    whole = _stats(table, named, features, 0, len(table["index"]))
    files = {"meta/info.json": _json(info), "meta/stats.json": _json(whole),
            "meta/tasks.parquet": _parquet(_tasks(pa, tasks)),
            "meta/episodes/chunk-000/file-000.parquet": _parquet(_episodes(pa, lines, rows_of, stats)),
            DATA.format(chunk_index=0, file_index=0): _parquet(_data(pa, table, named, features))}
    return files, left_out


def _require_finite(log: Log, table: Mapping[str, list]) -> None:
    for name, values in table.items():
        for row, value in enumerate(values):
            if not np.isfinite(value).all():
                raise ConfigError(f'"{name}" holds a number that is not finite', where=f"{log.path}, row {row}",
                                  why="the means of the dataset would be NaN, and so would a training on it",
                                  fix="--mcap and --rerun show where it came from; record without accepting such input")


def _data(pa: Any, table: dict[str, list], named: Mapping[str, Column], features: dict[str, dict]) -> Any:
    arrays = {}
    for name, values in table.items():
        if name in named and named[name].camera:
            known: dict[int, bytes] = {}  # an observation is held for several rows
            cells = [{"bytes": known.setdefault(id(v), known.get(id(v)) or png(picture(v))), "path": None}
                     for v in values]
            arrays[name] = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        elif features[name]["shape"] == [1]:
            flat = [np.ravel(v)[0] for v in values]
            arrays[name] = pa.array(np.array(flat, features[name]["dtype"]))
        else:
            flat = np.stack([np.ravel(v) for v in values]).astype(features[name]["dtype"])
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    return pa.table(arrays)


def _stats(table: dict[str, list], named: Mapping[str, Column], features: dict[str, dict], begin: int, end: int) \
        -> dict[str, dict[str, list]]:
    """As LeRobot has them: of images per channel, in [0, 1]."""
    found = {}
    for name, values in table.items():
        some = values[begin:end]
        if name in named and named[name].camera:
            pixels = np.stack([picture(v) for v in {id(v): v for v in some}.values()]).astype(np.float64) / 255
            numbers, count = pixels.reshape(-1, 3), len(some)
        else:
            numbers = np.stack([np.ravel(v) for v in some]).astype(np.float64)
            count = len(some)
        shape = (3, 1, 1) if features[name]["dtype"] == "image" else (numbers.shape[1],)
        found[name] = {of: getattr(numbers, of)(0).reshape(shape).tolist() for of in ("min", "max", "mean", "std")}
        found[name]["count"] = [count]
    return found


def _tasks(pa: Any, tasks: list[str]) -> Any:
    """As pandas writes it: the text is the index."""
    about = {"index_columns": ["task"], "column_indexes": [], "pandas_version": "2.0.0",
             "columns": [{"name": n, "field_name": n, "pandas_type": t, "numpy_type": p, "metadata": None}
                         for n, t, p in (("task_index", "int64", "int64"), ("task", "unicode", "object"))]}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def _episodes(pa: Any, lines: list[EpisodeLine], rows_of: list[tuple[int, int]], stats: list[dict]) -> Any:
    rows = []
    for index, (line, (begin, end)) in enumerate(zip(lines, rows_of, strict=True)):
        rows.append({"episode_index": index, "tasks": [line.text], "length": end - begin, "dataset_from_index": begin,
                     "dataset_to_index": end, "data/chunk_index": 0, "data/file_index": 0,
                     "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
                    | {f"stats/{name}/{of}": value for name, found in stats[index].items()
                       for of, value in found.items()})
    return pa.Table.from_pylist(rows)


def _parquet(table: Any) -> bytes:
    parquet: Any = require("pyarrow.parquet", "recordings", "--lerobot")
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def _json(document: dict) -> bytes:
    return (json.dumps(document, indent=4) + "\n").encode()


def export_lerobot(log: Log, out: Path, fps: int | None = None) -> dict:
    """Writes the directory, which must not exist. Returns what is in it."""
    if out.exists():
        raise ConfigError(f"{out.name} exists", where=str(out), why="a dataset is written whole, into a new directory",
                          fix="choose another path, or move what is there")
    contents, left_out = dataset_files(log, fps)
    new = out.with_name(f"{out.name}.tmp{os.getpid()}")
    try:
        write_tree(new, contents)
        put_tree(new, out)
    except OSError as error:
        raise ConfigError("the dataset cannot be written", where=str(out), why=str(error.strerror),
                          fix="choose another path") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    info = json.loads(contents["meta/info.json"])
    return {"path": str(out), "bytes": sum(map(len, contents.values())), "left_out": left_out,
            **{n: info[n] for n in ("total_episodes", "total_frames", "fps")}}
