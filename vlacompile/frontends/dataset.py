"""A LeRobot dataset directory, v2.1 or v3.0 -> its frames: rows of Parquet files, images inside them or in videos.

v2.1 has files per episode, v3.0 has episodes behind each other in larger files; meta/ says which and where. Formats: as
written by lerobot 0.3 to 0.6 (lerobot/datasets). Must not know policies.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlart.errors import CalibrationError, nearest

INFO = "meta/info.json"
PACKAGES = ("pyarrow", "av", "pillow")  # the extra `dataset`
VERSIONS = ("v2.1", "v3.0")
CAMERAS = ("image", "video")
INSTALL = ("pip install 'vlacompile[dataset]'; for checkpoints that are read in an environment of their own, then "
           "`vlacompile frontends --install NAME`")
_AGAIN = "copy the dataset again, completely"
_OTHER = "give the dataset that the policy was trained on"


@dataclass(frozen=True)
class Episode:
    """length: in frames. rows: the Parquet file with its rows. videos: {camera: (file, second at which it begins)}."""

    index: int
    length: int
    rows: str
    videos: Mapping[str, tuple[str, float]]


@dataclass(frozen=True)
class Dataset:
    """features: {name: {"dtype", "shape"}}; those of dtype "image" and "video" are cameras. tasks: {task_index:
    text}."""

    path: Path
    version: str
    fps: float
    features: Mapping[str, dict]
    episodes: tuple[Episode, ...]
    tasks: Mapping[int, str] = field(repr=False)

    @property
    def length(self) -> int:
        return sum(e.length for e in self.episodes)

    def require(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """shapes: {input of a policy: shape of one observation of it}. Raises CalibrationError for an input that the
        dataset lacks or has in another shape, and if it has no frames."""
        for name, shape in shapes.items():
            feature = self.feature_of(name)
            if feature not in self.features:
                raise CalibrationError(f'the dataset has no "{name}"', where=str(self.path), why=nearest(name, [
                    n for n in self.features if n.startswith("observation")]), fix=_OTHER)
            if self.shape(feature) != shape:
                raise CalibrationError(f'"{name}" of the dataset does not fit the policy', where=str(self.path),
                                       why=f"it has shape {list(self.shape(feature))}, the policy's input "
                                           f"{list(shape)}", fix=_OTHER)
        if not self.length:
            raise CalibrationError("the dataset has no frames", where=str(self.path), why="meta/ lists none",
                                   fix="record episodes first")

    def feature_of(self, name: str) -> str:
        """The feature that holds an input of a policy: of its name, or of that with what LeRobot's begin with, as
        `vlacompile export --lerobot` writes it."""
        known = (name, *(lead + name.replace("/", ".") for lead in ("observation.images.", "observation.")))
        return next((n for n in known if n in self.features), name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a feature as `read_frames` returns it."""
        found = tuple(self.features[name]["shape"])
        if self.features[name]["dtype"] in CAMERAS and found[0] == 3 != found[-1]:  # written as [3,H,W] by some
            return (*found[1:], 3)
        return found

    def spread(self, count: int) -> list[tuple[Episode, int]]:
        """`count` frames at equal distances over all episodes, as (episode, frame in it); all if there are fewer."""
        ends, taken = np.cumsum([e.length for e in self.episodes]), min(count, self.length)
        found = []
        for k in range(taken):
            place = int((k + 0.5) * self.length / taken)
            which = int(np.searchsorted(ends, place, side="right"))
            found.append((self.episodes[which], place - int(ends[which]) + self.episodes[which].length))
        return found


def read_info(path: Path) -> dict:
    """The content of meta/info.json. Raises CalibrationError for a directory that is no dataset, or of another
    version."""
    try:
        info = json.loads((path / INFO).read_text(encoding="utf-8"))
        version = info["codebase_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_dataset(path, error) from error
    if version not in VERSIONS:
        raise CalibrationError(f"a dataset of version {version} is not read", where=str(path / INFO),
                               why=f"{' and '.join(VERSIONS)} are", fix="convert it with LeRobot's own script")
    return info


def open_dataset(path: Path) -> Dataset:
    """Reads meta/. Raises CalibrationError."""
    info = read_info(path)
    try:
        version, features = info["codebase_version"], info["features"]
        cameras = [n for n, f in features.items() if f["dtype"] == "video"]
        episodes, tasks = (_of_lines if version == "v2.1" else _of_tables)(path, info, cameras)
        return Dataset(path, version, float(info["fps"]), features, tuple(episodes), tasks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_dataset(path, error) from error


def _no_dataset(path: Path, error: Exception) -> CalibrationError:
    return CalibrationError(f"{path} is no LeRobot dataset", where=str(path / "meta"),
                            why=f"{type(error).__name__}: {error}",
                            fix="give a directory with meta/, data/ and, of videos, videos/")


def _of_lines(path: Path, info: dict, cameras: list[str]) -> tuple[list[Episode], dict[int, str]]:
    def lines(file: str) -> Iterator[dict]:
        return (json.loads(line) for line in (path / "meta" / file).read_text(encoding="utf-8").splitlines() if line)

    episodes = []
    for row in lines("episodes.jsonl"):
        place = {"episode_index": row["episode_index"], "episode_chunk": row["episode_index"] // info["chunks_size"]}
        episodes.append(Episode(row["episode_index"], row["length"], info["data_path"].format(**place), {
            c: (info["video_path"].format(video_key=c, **place), 0.0) for c in cameras}))
    return episodes, {row["task_index"]: row["task"] for row in lines("tasks.jsonl")}


def _of_tables(path: Path, info: dict, cameras: list[str]) -> tuple[list[Episode], dict[int, str]]:
    episodes = []
    for file in sorted((path / "meta" / "episodes").rglob("*.parquet")):
        for row in _table(file, without="stats/"):
            videos = {c: (info["video_path"].format(video_key=c, chunk_index=row[f"videos/{c}/chunk_index"],
                                                    file_index=row[f"videos/{c}/file_index"]),
                          float(row[f"videos/{c}/from_timestamp"])) for c in cameras}
            episodes.append(Episode(row["episode_index"], row["length"], info["data_path"].format(
                chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]), videos))
    # the text is the index of the table that pandas wrote, under a name of its own or none
    return sorted(episodes, key=lambda e: e.index), {
        row.pop("task_index"): next(v for v in row.values() if isinstance(v, str))
        for row in _table(path / "meta" / "tasks.parquet")}


def read_frames(dataset: Dataset, episode: Episode, numbers: Sequence[int], names: Sequence[str]) \
        -> tuple[dict[str, np.ndarray], str]:
    """{name: values of these frames [n,...]}, and the task's text. names: of features or inputs. Cameras are uint8
    [n,H,W,3]. Raises CalibrationError for files that are missing, damaged or do not fit meta/."""
    features = {n: dataset.feature_of(n) for n in names}
    inside = [f for f in features.values() if dataset.features[f]["dtype"] != "video"]
    file = dataset.path / episode.rows
    rows = {row["frame_index"]: row for row in _table(
        file, [*inside, "frame_index", "timestamp", "task_index"],
        filters=[("episode_index", "=", episode.index), ("frame_index", "in", sorted({*numbers}))])}
    missing = sorted({*numbers} - {*rows})
    if missing:
        raise CalibrationError(f"frame {missing[0]} of episode {episode.index} is missing", where=str(file),
                               why=f"meta/ says that it has {episode.length} frames", fix=_AGAIN)
    taken = [rows[k] for k in numbers]
    found = {}
    for name, feature in features.items():
        kind, shape = dataset.features[feature]["dtype"], tuple(dataset.features[feature]["shape"])
        if kind == "video":
            video, begin = episode.videos[feature]
            found[name] = _decode(dataset.path / video, [begin + row["timestamp"] for row in taken], dataset.fps)
        elif kind == "image":
            found[name] = np.stack([_image(dataset.path, row[feature], file) for row in taken])
        else:
            found[name] = np.stack([np.asarray(row[feature], kind).reshape(shape) for row in taken])
    return found, dataset.tasks[taken[0]["task_index"]]


def _table(file: Path, columns: Sequence[str] = (), without: str | None = None,
           filters: list[tuple] | None = None) -> list[dict[str, Any]]:
    """Rows as dicts. columns: of these; none: of all whose names do not begin with `without`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise _not_installed("pyarrow") from error
    try:
        if not columns:
            columns = [c for c in pq.read_schema(file).names if without is None or not c.startswith(without)]
        return pq.read_table(file, columns=list(columns), filters=filters).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise CalibrationError(f"{file.name} cannot be read", where=str(file), why=str(error), fix=_AGAIN) from error


def _image(dataset: Path, cell: Mapping, file: Path) -> np.ndarray:
    """[H,W,3] of a PNG or JPEG, which is in the cell or in a file that it names."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise _not_installed("pillow") from error
    try:
        content = cell["bytes"] or (dataset / cell["path"]).read_bytes()
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except (OSError, UnidentifiedImageError, TypeError, KeyError) as error:
        raise CalibrationError("an image cannot be read", where=str(file), why=str(error), fix=_AGAIN) from error


def _decode(file: Path, times_s: Sequence[float], fps: float) -> np.ndarray:
    """The frames [n,H,W,3] shown at these times. A frame is that of a time if it begins less than half a frame from
    it."""
    try:
        import av
    except ImportError as error:
        raise _not_installed("av") from error
    found = []
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            for time_s in times_s:
                container.seek(max(int((time_s - 0.5 / fps) / stream.time_base), 0), stream=stream)  # the key frame
                frame = next((f for f in container.decode(stream) if f.time > time_s - 0.5 / fps), None)
                if frame is None or frame.time > time_s + 0.5 / fps:
                    raise CalibrationError("a video has no frame at a time of the rows", where=str(file),
                                           why=f"none at {time_s:.3f} s", fix=_AGAIN)
                found.append(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, IndexError) as error:
        raise CalibrationError(f"{file.name} cannot be decoded", where=str(file), why=str(error), fix=_AGAIN) from error
    return np.stack(found)


def _not_installed(package: str) -> CalibrationError:
    return CalibrationError(f"{package} is needed to read this dataset", where="this Python environment",
                            why="it is not installed", fix=INSTALL)
