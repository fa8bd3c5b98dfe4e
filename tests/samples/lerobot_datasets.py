"""Tiny LeRobot datasets as lerobot writes them, v2.1 and v3.0, with cameras as PNG, as JPEG or as video.

Every number says where it is from: frame k of episode e has the state and the action [e, k], and grey levels of
`grey(e, k)`.
"""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np

FPS, HEIGHT, WIDTH = 10, 32, 48
TOP, STATE = "observation.images.top", "observation.state"
TASKS = ("put the cube into the box", "close the box")


def grey(episode: int, frame: int) -> int:
    return 20 + (60 * episode + 8 * frame) % 200


def picture(episode: int, frame: int) -> np.ndarray:
    """uint8 [H,W,3], darker in its right half, so that sides are not swapped."""
    out = np.full((HEIGHT, WIDTH, 3), grey(episode, frame), np.uint8)
    out[:, WIDTH // 2:] //= 2
    return out


def write(folder: Path, version: str, camera: str, lengths: tuple[int, ...] = (6, 4)) -> Path:
    """camera: "png", "jpeg", or "video". Episode e has lengths[e] frames and the task TASKS[e % 2]."""
    video = camera == "video"
    features = {TOP: {"dtype": "video" if video else "image", "shape": [HEIGHT, WIDTH, 3],
                      "names": ["height", "width", "channels"]},
                STATE: {"dtype": "float32", "shape": [2], "names": ["episode", "frame"]},
                "action": {"dtype": "float32", "shape": [2], "names": None}}
    info = {"codebase_version": version, "fps": FPS, "features": features, "chunks_size": 1000,
            "total_episodes": len(lengths), "total_frames": sum(lengths)}
    (folder / "meta").mkdir(parents=True)
    (_write_episodes if version == "v2.1" else _write_files)(folder, info, camera, lengths)
    (folder / "meta" / "info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def _write_episodes(folder: Path, info: dict, camera: str, lengths: tuple[int, ...]) -> None:
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    _lines(folder / "meta" / "tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(TASKS)])
    _lines(folder / "meta" / "episodes.jsonl", [
        {"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in enumerate(lengths)])
    for e, n in enumerate(lengths):
        place = {"episode_chunk": 0, "episode_index": e, "video_key": TOP}
        _parquet(folder / info["data_path"].format(**place), _rows(e, n, camera))
        if camera == "video":
            _video(folder / info["video_path"].format(**place), [picture(e, k) for k in range(n)])


def _write_files(folder: Path, info: dict, camera: str, lengths: tuple[int, ...]) -> None:
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    place = {"chunk_index": 0, "file_index": 0, "video_key": TOP}
    _parquet(folder / "meta" / "tasks.parquet", [{"task_index": i, "__index_level_0__": t}
                                                 for i, t in enumerate(TASKS)])
    rows, begin = [], 0
    for e, n in enumerate(lengths):
        rows.append({"episode_index": e, "tasks": [TASKS[e % 2]], "length": n, "data/chunk_index": 0,
                     "data/file_index": 0, "dataset_from_index": begin, "dataset_to_index": begin + n,
                     "stats/action/mean": [0.0, 0.0]} | ({} if camera != "video" else {
                         f"videos/{TOP}/chunk_index": 0, f"videos/{TOP}/file_index": 0,
                         f"videos/{TOP}/from_timestamp": begin / FPS, f"videos/{TOP}/to_timestamp": (begin + n) / FPS}))
        begin += n
    _parquet(folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet", rows)
    _parquet(folder / info["data_path"].format(**place),
             [row for e, n in enumerate(lengths) for row in _rows(e, n, camera)])
    if camera == "video":
        _video(folder / info["video_path"].format(**place),
               [picture(e, k) for e, n in enumerate(lengths) for k in range(n)])


def _rows(episode: int, length: int, camera: str) -> list[dict]:
    return [{STATE: [float(episode), float(k)], "action": [float(episode), float(k)], "timestamp": k / FPS,
             "frame_index": k, "episode_index": episode, "index": k, "task_index": episode % 2}
            | ({} if camera == "video" else {TOP: {"bytes": _encoded(picture(episode, k), camera), "path": None}})
            for k in range(length)]


def _encoded(image: np.ndarray, kind: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **({"quality": 100} if kind == "jpeg" else {}))
    return out.getvalue()


def _video(path: Path, frames: list[np.ndarray]) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(FPS), options={"qscale": "1", "g": "3"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _parquet(path: Path, rows: list[dict]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
