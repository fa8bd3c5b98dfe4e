"""What no file of an OpenVLA-OFT checkpoint says: constants of its code (prismatic/vla/constants.py at 213c5ff), chosen
there by a word of the command line, and arguments of its evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.frontends.named_settings import MOST_EVALUATIONS, choice, number, parse, row_of
from vlart.errors import ConfigError

OPTION = "--oft-config"
KEYS = ("images", "chunk", "norms", "steps", "trained_steps")
PLATFORMS = {"libero": {"chunk": "8", "norms": "q99"}, "aloha": {"chunk": "25", "norms": "bounds"},
             "bridge": {"chunk": "5", "norms": "q99"}}
CAMERAS = ("primary", "wrist", "wrist_2")  # in the order of the model's images


@dataclass(frozen=True)
class Oft:
    """images: cameras. chunk: actions per inference. bounds: statistics map minimum and maximum to [-1, 1], instead of
    the 1st and 99th percentile. steps: of denoising, of trained_steps; None: not given."""

    images: int
    chunk: int
    bounds: bool
    steps: int | None
    trained_steps: int | None


def oft_settings(text: str) -> Oft:
    """Raises ConfigError."""
    option = f"{OPTION} {text}"
    name, said = parse(text, OPTION, KEYS)
    row = ({} if name is None else row_of(name, PLATFORMS, OPTION)) | said
    missing = [k for k in ("images", "chunk", "norms") if k not in row]
    if missing:
        raise ConfigError(f"{', '.join(missing)} is not given", where=option,
                          why="no file of the checkpoint says it",
                          fix=f"give {OPTION} {name or '|'.join(PLATFORMS)},images=N"
                              + "".join(f",{k}=..." for k in missing if k != "images" and name is not None))
    images = number(row["images"], "images", option)
    if images > len(CAMERAS):
        raise ConfigError(f"images={images} is more than {len(CAMERAS)}", where=option,
                          why="the model was made for a primary camera and up to two at the wrists",
                          fix=f"give images=1 to {len(CAMERAS)}")
    steps = [number(row[k], k, option, MOST_EVALUATIONS) if k in row else None for k in ("steps", "trained_steps")]
    return Oft(images, number(row["chunk"], "chunk", option),
               choice(row["norms"], "norms", option, ("q99", "bounds")) == "bounds", steps[0], steps[1])
