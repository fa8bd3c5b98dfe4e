"""Resizing of uint8 frames as PyTorch, Pillow and OpenCV do it on the CPU, as arithmetic on whole numbers held in fp32.

A policy was trained on what these resizers give, rounding included; one grey level at an edge moves its actions more
than any other step of the compiler. They compute in fixed point, with weights rounded to a power of two: products and
sums below 2^24 are exact in fp32, so the results are the same, not close. Must not know model families.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

Size = tuple[int, int]  # height, width
SHORTS, BYTES = 1 << 15, 255.0
AREA_BITS = 11  # of OpenCV's weights
PILLOW_BITS, HALF_BITS = 22, 11  # of Pillow's weights; of each half, whose products with grey levels are exact


def resize(frame: torch.Tensor, size: Size, mode: str) -> torch.Tensor:
    """frame: whole numbers from 0 to 255 in f32 [1,C,H,W] -> the same, [1,C,*size]. mode: "bilinear" or "bicubic",
    antialiased, as torch.nn.functional.interpolate and torchvision do with uint8 (with AVX2; without it they differ
    by a grey level); "pillow": Image.resize's bicubic; "area": OpenCV's INTER_AREA."""
    if tuple(frame.shape[-2:]) == size:
        return frame
    if mode == "pillow":
        return _pillow(frame, size)
    return _area(frame, size) if mode == "area" else _antialiased(frame, size, mode)


def _antialiased(x: torch.Tensor, size: Size, mode: str) -> torch.Tensor:
    """Along rows, then along columns; whole grey levels after each (aten/native/cpu/UpSampleKernelAVXAntialias.h)."""
    if x.shape[-1] != size[1]:
        x = torch.clamp(torch.floor(x @ _shorts(x.shape[-1], size[1], mode).T + 0.5), 0.0, BYTES)
    if x.shape[-2] != size[0]:
        x = torch.clamp(torch.floor(_shorts(x.shape[-2], size[0], mode) @ x + 0.5), 0.0, BYTES)
    return x


def _shorts(length: int, wanted: int, mode: str) -> torch.Tensor:
    """[wanted, length]: weights that are multiples of the smallest power of two with which they fit 16 bits."""
    unit = torch.eye(length, dtype=torch.float64)[None, None]
    exact = F.interpolate(unit, (wanted, length), mode=mode, antialias=True, align_corners=False)[0, 0]
    top = float(exact.max())
    bits = next(b for b in range(22) if int(0.5 + top * (1 << (b + 1))) >= SHORTS)
    scaled = exact * (1 << bits)
    return (torch.where(scaled < 0, torch.ceil(scaled - 0.5), torch.floor(scaled + 0.5)) / (1 << bits)).float()


def _pillow(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Along rows, then along columns; whole grey levels after each (libImaging/Resample.c)."""
    if x.shape[-1] != size[1]:
        coarse, fine = _halves(x.shape[-1], size[1])
        x = _joined(x @ coarse.T, x @ fine.T)
    if x.shape[-2] != size[0]:
        coarse, fine = _halves(x.shape[-2], size[0])
        x = _joined(coarse @ x, fine @ x)
    return x


def _halves(length: int, wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[wanted, length] each: the upper and lower bits of weights that are multiples of 2^-PILLOW_BITS."""
    unit = torch.eye(length, dtype=torch.float64)[None, None]
    exact = F.interpolate(unit, (wanted, length), mode="bicubic", antialias=True, align_corners=False)[0, 0]
    scaled = exact * (1 << PILLOW_BITS)
    whole = torch.where(scaled < 0, torch.ceil(scaled - 0.5), torch.floor(scaled + 0.5))
    coarse = torch.floor(whole / (1 << HALF_BITS))
    return coarse.float(), (whole - coarse * (1 << HALF_BITS)).float()


def _joined(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Sums with the halves of the weights -> grey levels."""
    unit = float(1 << HALF_BITS)
    whole = coarse + torch.floor(fine / unit)
    return torch.clamp(torch.floor((whole + unit / 2) / unit), 0.0, BYTES)


def linear_matrix(length: int, wanted: int) -> torch.Tensor:
    """[wanted, length]: weights of antialiased linear resizing in floating point."""
    unit = torch.eye(length)[None, None]
    return F.interpolate(unit, (wanted, length), mode="bilinear", antialias=True, align_corners=False)[0, 0]


def _area(x: torch.Tensor, size: Size) -> torch.Tensor:
    """cv2.resize with INTER_AREA: means over rectangles if neither side grows, else linear with weights of 11 bits
    (modules/imgproc/src/resize.cpp). Means over a fractional number of pixels are summed in another order: 1 of 10,000
    pixels, near the middle between two grey levels, differs by one."""
    height, width = x.shape[-2:]
    if height < size[0] or width < size[1]:
        return _area_grown(x, size)
    means = _means(height, size[0]) @ (x @ _means(width, size[1]).T)
    halves_up = (height, width) == (2 * size[0], 2 * size[1])  # the one ratio that has whole-number code
    return torch.floor(means + 0.5) if halves_up else torch.round(means)


def _means(length: int, wanted: int) -> torch.Tensor:
    """[wanted, length]: each output is the mean of its interval of the inputs."""
    scale, out = length / wanted, torch.zeros(wanted, length, dtype=torch.float64)
    for i in range(wanted):
        low, high = i * scale, min((i + 1) * scale, length)
        for j in range(int(low), min(math.ceil(high), length)):
            share = min(high, j + 1) - max(low, j)
            out[i, j] = share / (high - low) if share > 1e-3 else 0.0  # OpenCV leaves out slivers
    return out.float()


def _area_grown(x: torch.Tensor, size: Size) -> torch.Tensor:
    low, high, shares = _linear(x.shape[-1], size[1])
    wide = x @ (shares[:, :1] * low + shares[:, 1:] * high).T  # below 2^19
    wide = torch.floor(wide / 16.0)
    low, high, shares = _linear(x.shape[-2], size[0])
    sums = _high_half(low @ wide, shares[:, :1]) + _high_half(high @ wide, shares[:, 1:])
    return torch.clamp(torch.floor((sums + 2.0) / 4.0), 0.0, BYTES)


def _high_half(x: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """floor(x * share / 2^16) of whole numbers below 2^15 and 2^12, in parts whose products stay below 2^24."""
    coarse = torch.floor(x / 32.0)
    fine, product = x - 32.0 * coarse, coarse * share
    whole = torch.floor(product / 2048.0)
    return whole + torch.floor((32.0 * (product - 2048.0 * whole) + fine * share) / 65536.0)


def _linear(length: int, wanted: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(one-hot rows [wanted, length] of the two neighbours of each output, their weights [wanted, 2] in 1/2048)."""
    inverse = wanted / length
    places, shares = [], []
    for i in range(wanted):
        place = math.floor(i * (1.0 / inverse))
        share = torch.tensor((i + 1) - (place + 1) * inverse, dtype=torch.float32)
        share = torch.zeros(()) if share <= 0 else share - torch.floor(share)
        if place >= length - 1:
            place, share = length - 1, torch.zeros(())
        places.append(place)
        shares.append(torch.stack([1.0 - share, share]))
    rows = torch.eye(length)
    low = torch.tensor(places)
    return rows[low], rows[(low + 1).clamp(max=length - 1)], torch.round(torch.stack(shares) * (1 << AREA_BITS))
