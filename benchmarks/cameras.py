"""From a camera's bytes to the policy's picture: libvlart beside OpenCV and Pillow, one thread, interleaved, medians.

    python -m benchmarks.cameras [--record]

Time is the thread's own. OpenCV and Pillow do what programs for robots mostly do: OpenCV converts and resizes with
INTER_AREA, Pillow resizes with BILINEAR; "difference" is the mean distance of their picture to torchvision's, which
libvlart's equals. Writes build/bench/ (--record: profiles/host/) cameras.json.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlacompile.profile import machine
from vlart.files.atomic import write_whole
from vlart.runtime.camera import Camera

ROUNDS = 60
SIZES, OUT = ((480, 640), (720, 1280)), (224, 224)
Made = Callable[[], np.ndarray]


def picture(height: int, width: int) -> np.ndarray:
    """Edges and slopes, as a room has them."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 17) + np.cos(y / 23), np.sin((x + y) / 31), np.cos((x - 2 * y) / 41)], axis=-1)
    blocks = ((x // 40 + y // 40) % 2)[..., None] * 60
    return np.clip(127 + 50 * waves + blocks, 0, 255).astype(np.uint8)


def ways(pixels: str, rgb: np.ndarray) -> tuple[dict[str, Made], np.ndarray]:
    """({who: what it does}, the picture as torchvision resizes it)"""
    import cv2
    from PIL import Image

    cv2.setNumThreads(1)
    height, width = rgb.shape[:2]
    camera = Camera(pixels, (height, width), OUT, resize="bilinear")
    small = {"interpolation": cv2.INTER_AREA}
    if pixels == "rgb8":
        found = {"libvlart": lambda: camera.convert(rgb), "OpenCV": lambda: cv2.resize(rgb, OUT, **small),
                 "Pillow": lambda: np.asarray(Image.fromarray(rgb).resize(OUT, Image.Resampling.BILINEAR))}
    elif pixels == "jpeg":
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "JPEG", quality=90)
        data = np.frombuffer(file.getvalue(), np.uint8)
        found = {"libvlart": lambda: camera.convert(data),
                 "OpenCV": lambda: cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], OUT, **small),
                 "Pillow": lambda: np.asarray(Image.open(io.BytesIO(data.tobytes())).resize(
                     OUT, Image.Resampling.BILINEAR))}
    else:
        sent, code = _coded(rgb, pixels)
        found = {"libvlart": lambda: camera.convert(sent),
                 "OpenCV": lambda: cv2.resize(cv2.cvtColor(sent, code), OUT, **small)}
    return found, _torchvision(Camera(pixels, (height, width), (height, width)).convert(
        data if pixels == "jpeg" else rgb if pixels == "rgb8" else sent))


def _coded(rgb: np.ndarray, pixels: str) -> tuple[np.ndarray, int]:
    import cv2

    height, width = rgb.shape[:2]
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    y, u, v = i420[:height], *i420[height:].reshape(2, height // 2, width // 2)
    if pixels == "nv12":
        return np.concatenate([y, np.stack([u, v], -1).reshape(height // 2, width)]), cv2.COLOR_YUV2RGB_NV12
    pairs = np.stack([y[:, ::2], np.repeat(u, 2, 0), y[:, 1::2], np.repeat(v, 2, 0)], -1)
    return pairs.reshape(height, width, 2), cv2.COLOR_YUV2RGB_YUYV


def _torchvision(rgb: np.ndarray) -> np.ndarray:
    import torch

    planes = torch.from_numpy(np.array(rgb.transpose(2, 0, 1)))[None]
    small = torch.nn.functional.interpolate(planes, size=OUT, mode="bilinear", antialias=True, align_corners=False)
    return small[0].permute(1, 2, 0).numpy()


def measure(pixels: str, size: tuple[int, int]) -> dict:
    found, want = ways(pixels, picture(*size))
    times: dict[str, list[float]] = {who: [] for who in found}
    for _ in range(ROUNDS):
        for who, make in found.items():
            began = time.thread_time_ns()
            make()
            times[who].append((time.thread_time_ns() - began) / 1e6)
    return {"pixels": pixels, "height": size[0], "width": size[1],
            "ms": {who: statistics.median(t) for who, t in times.items()},
            "difference": {who: float(np.abs(make().astype(float) - want).mean()) for who, make in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    import cv2
    import PIL

    rows = [measure(pixels, size) for pixels in ("rgb8", "yuyv", "nv12", "jpeg") for size in SIZES]
    for r in rows:
        print(f"{r['pixels']:5} {r['width']} x {r['height']}: " + ", ".join(
            f"{who} {ms:.2f} ms" + (f" (differs by {r['difference'][who]:.2f})" if r["difference"][who] else "")
            for who, ms in r["ms"].items()))
    document = {"rows": rows, "out": list(OUT), "rounds": ROUNDS, "machine": machine.describe(),
                "versions": {"OpenCV": cv2.__version__, "Pillow": PIL.__version__}}
    path = Path("profiles/host" if arguments.record else "build/bench") / "cameras.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
