"""Frames are resized as PyTorch, Pillow and OpenCV do it, to the grey level."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlacompile.frontends.resize import resize

SIZES = [((480, 640), (256, 256)), ((230, 230), (256, 256)), ((96, 64), (64, 64)), ((58, 58), (64, 64)),
         ((256, 300), (256, 256)), ((50, 70), (64, 32))]
# crc32 of what cv2.resize(..., interpolation=cv2.INTER_AREA) of OpenCV 4.11.0 gives for `image(*size)`
OPENCV = {((243, 243), (256, 256)): 1147164205, ((243, 323), (256, 340)): 1159016396, ((50, 70), (64, 90)): 2136715241,
          ((64, 50), (64, 64)): 2559748922, ((96, 128), (48, 64)): 2072425723, ((96, 96), (32, 32)): 2119174112,
          ((60, 80), (45, 60)): 2000837353}


def image(height: int, width: int) -> np.ndarray:
    rows, columns, channels = np.ogrid[:height, :width, :3]
    return ((rows * rows * 7 + columns * columns * 13 + rows * columns * 5 + channels * 101) % 256).astype(np.uint8)


def as_frame(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size, wanted", SIZES)
@pytest.mark.skipif("AVX2" not in torch.backends.cpu.get_cpu_capability() and "AVX512" not in
                    torch.backends.cpu.get_cpu_capability(), reason="PyTorch resizes uint8 in fixed point with AVX2")
def test_antialiased_resizing_is_that_of_pytorch(size, wanted, mode):
    frame = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    want = F.interpolate(frame, wanted, mode=mode, antialias=True).float()
    assert torch.equal(resize(frame.float(), wanted, mode), want)
    loose = F.interpolate(frame.float(), wanted, mode=mode, antialias=True).clamp(0, 255).round()
    assert not torch.equal(loose, want), "without fixed point some pixels differ"


@pytest.mark.parametrize("size, wanted", SIZES)
def test_bicubic_resizing_is_that_of_pillow(size, wanted):
    pillow = pytest.importorskip("PIL.Image")
    drawn = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    want = as_frame(np.array(pillow.fromarray(drawn).resize(wanted[::-1], pillow.Resampling.BICUBIC)))
    assert torch.equal(resize(as_frame(drawn), wanted, "pillow"), want)
    assert not torch.equal(resize(as_frame(drawn), wanted, "bicubic"), want), "PyTorch rounds the weights to 16 bits"


@pytest.mark.parametrize("size, wanted", OPENCV)
def test_area_resizing_is_that_of_opencv(size, wanted):
    out = resize(as_frame(image(*size)), wanted, "area")[0].permute(1, 2, 0).to(torch.uint8)
    assert zlib.crc32(out.numpy().tobytes()) == OPENCV[size, wanted]


def test_area_resizing_by_a_fraction_is_a_mean():
    frame = torch.rand(1, 1, 60, 80, generator=torch.Generator().manual_seed(0)).mul(255).round()
    exact = F.interpolate(frame.repeat_interleave(3, -1).repeat_interleave(3, -2), scale_factor=1 / 4, mode="area")
    assert (resize(frame, (45, 60), "area") - exact).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "pillow", "area"])
def test_a_frame_of_the_wanted_size_is_unchanged(mode):
    frame = as_frame(image(8, 12))
    assert resize(frame, (8, 12), mode) is frame
