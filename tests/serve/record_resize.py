"""Prints what torchvision makes of frames, for tests/golden/torchvision_resize.json. To be run where torchvision is
installed and agrees with its torch: `python tests/serve/record_resize.py`."""

from __future__ import annotations

import json

import numpy as np

MODES = ("bilinear", "bicubic", "nearest", "nearest-exact")
SIZES = [((48, 64), (8, 8)), ((9, 23), (12, 10)), ((25, 15), (6, 8)), ((3, 50), (8, 8)), ((8, 6), (8, 6))]


def frame_of(number: int) -> np.ndarray:
    """u8 [H,W,3]"""
    return np.random.default_rng(number).integers(0, 256, (*SIZES[number][0], 3), dtype=np.uint8)


def record() -> dict:
    import torch
    import torchvision
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    rows = []
    for number, (_, (height, width)) in enumerate(SIZES):
        frame = torch.from_numpy(frame_of(number)).permute(2, 0, 1)
        for mode in MODES:
            interpolation = InterpolationMode(mode)
            scale = min(height / frame.shape[1], width / frame.shape[2])
            inner = [max(1, int(frame.shape[1] * scale + 1e-9)), max(1, int(frame.shape[2] * scale + 1e-9))]
            top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
            whole = functional.resize(frame, [height, width], interpolation)
            padded = functional.pad(functional.resize(frame, inner, interpolation),
                                    [left, top, width - inner[1] - left, height - inner[0] - top])
            rows += [{"frame": number, "method": method, "pixels": t.permute(1, 2, 0).flatten().tolist()}
                     for method, t in ((mode, whole), (f"{mode}-pad", padded))]
    return {"made_by": f"torchvision {torchvision.__version__}, torch {torch.__version__}", "rows": rows}


if __name__ == "__main__":
    print(json.dumps(record()))
