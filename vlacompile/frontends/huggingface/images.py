"""A checkpoint's own image processor as traceable code: uint8 frames in, `pixel_values` out.

Resizing is PyTorch's antialiased one, a weighted sum along each axis, rounded to whole grey levels; the weights are
constants, one matrix per axis. torchvision's for uint8 tensors (transformers' default backend) rounds the weights as
well, and differs by at most one grey level.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from vlacompile.frontends.lerobot.files import read_json
from vlart.errors import SourceError

FILES = ("preprocessor_config.json", "processor_config.json")
MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # PIL's numbers


@dataclass(frozen=True)
class ImageSettings:
    """resize: (height, width), or the length of the shorter edge, or None. mode: "bilinear" or "bicubic". crop:
    (height, width) of a centre crop, or None. scale: factor of the bytes. mean, std: per channel, after scaling; None
    for neither. splits: the processor cuts large images into tiles, so that only frames of the tower's own size are
    supported."""

    resize: tuple[int, int] | int | None
    mode: str
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    splits: bool = False


def image_settings(path: Path) -> ImageSettings:
    """Image settings of a save_pretrained directory. Raises SourceError if there are none or they are not supported."""
    file = next((path / f for f in FILES if (path / f).is_file()), None)
    if file is None:
        raise SourceError("the checkpoint has no image processor settings", where=str(path),
                          why=f"neither {' nor '.join(FILES)} exists",
                          fix="save the image processor beside the model, or give images=ImageSettings(...)")
    table = read_json(file)
    table = table.get("image_processor", table)
    try:
        return _settings(table)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError("these image settings are not covered", where=str(file),
                          why=f"{type(error).__name__}: {error}",
                          fix="give images=ImageSettings(...) to vision_backbone()") from error


def _settings(table: dict) -> ImageSettings:
    splits = bool(table.get("do_image_splitting", False))
    resize = crop = None
    if table.get("do_resize", True) and not splits:
        size = table["size"]
        size = {k: v for k, v in size.items() if v is not None} if isinstance(size, dict) else size
        if isinstance(size, int):
            resize = (size, size)
        elif set(size) == {"height", "width"}:
            resize = (size["height"], size["width"])
        elif set(size) == {"shortest_edge"}:
            resize = size["shortest_edge"]
        else:
            raise ValueError(f"size = {size}")
    if table.get("do_center_crop", False):
        crop = (table["crop_size"]["height"], table["crop_size"]["width"])
    if table.get("do_pad", False) and not splits:
        raise ValueError("do_pad")
    if resize is not None and table.get("resample", 2) not in (2, 3):
        raise ValueError(f"resample = {table['resample']}")
    normal = table.get("do_normalize", True)
    return ImageSettings(resize, MODES[table.get("resample", 2)], crop,
                         float(table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 1.0,
                         tuple(table["image_mean"]) if normal else None, tuple(table["image_std"]) if normal else None,
                         splits)


class Preparation(torch.nn.Module):
    """uint8 frames [B,H,W,3] -> f32 [B,3,h,w]. Raises SourceError if such frames are not supported.

    frame: (H, W). `size` is (h, w).
    """

    def __init__(self, settings: ImageSettings, frame: tuple[int, int], native: int | None = None):
        super().__init__()
        if settings.splits and frame != (native, native):
            raise SourceError(f"frames of {frame[0]}x{frame[1]} are not covered", where="vision_backbone(frame=...)",
                              why="the processor cuts images into tiles; one tile has the tower's own size",
                              fix=f"give frame=({native}, {native}), and scale the camera's frames to it")
        self.settings = settings
        self.size = _target(settings.resize, frame)
        for name, n, m in (("rows", frame[0], self.size[0]), ("columns", frame[1], self.size[1])):
            self.register_buffer(name, None if n == m else resize_matrix(n, m, settings.mode))
        self.crop = settings.crop
        if self.crop is not None:
            if self.crop[0] > self.size[0] or self.crop[1] > self.size[1]:
                raise SourceError(f"a crop of {self.crop} is larger than the image",
                                  where="the image processor's crop_size",
                                  why=f"the image is {self.size} after resizing",
                                  fix="give images=ImageSettings(...)")
            self.corner, self.size = tuple((n - c) // 2 for n, c in zip(self.size, self.crop, strict=True)), self.crop
        mean, std = (torch.tensor(v or (d,), dtype=torch.float32).view(1, -1, 1, 1)
                     for v, d in ((settings.mean, 0.0), (settings.std, 1.0)))
        self.register_buffer("mean", mean), self.register_buffer("std", std)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames.permute(0, 3, 1, 2).to(torch.float32)
        if self.rows is not None or self.columns is not None:
            x = x if self.columns is None else x @ self.columns.T
            x = x if self.rows is None else self.rows @ x
            x = torch.round(torch.clamp(x, 0.0, 255.0))
        if self.crop is not None:
            (top, left), (height, width) = self.corner, self.crop
            x = x[:, :, top: top + height, left: left + width]
        return (x * self.settings.scale - self.mean) / self.std


def _target(resize: tuple[int, int] | int | None, frame: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(resize, int):
        return resize or frame
    short, long = min(frame), max(frame)
    longer = int(resize * long / short)
    return (resize, longer) if frame[0] <= frame[1] else (longer, resize)


def resize_matrix(length: int, wanted: int, mode: str) -> torch.Tensor:
    """[wanted, length]: antialiased resizing along one axis, obtained by resizing unit vectors with PyTorch."""
    unit = torch.eye(length)[None, None]
    return F.interpolate(unit, (wanted, length), mode=mode, antialias=True, align_corners=False)[0, 0].contiguous()
