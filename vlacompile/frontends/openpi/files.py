"""Names of openpi's files, and what a directory with them is. Without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

WEIGHTS, ASSETS, STATISTICS = "model.safetensors", "assets", "norm_stats.json"
CONFIG = "config.json"  # written by the conversion from JAX: a few sizes
PREFIX = "paligemma_with_expert."


def is_one(path: Path) -> bool:
    """Whether this directory has openpi's files. False if its config.json is another library's."""
    if not path.is_dir() or _is_of_others(path / CONFIG):
        return False
    return jax_files(path) is not None or bool(asset_ids(path)) or _has_its_names(path / WEIGHTS)


def jax_files(path: Path) -> Path | None:
    """The folder with weights as JAX wrote them (orbax), or None."""
    return next((p for p in (path / "params", path) if (p / "_METADATA").is_file()), None)


def asset_ids(path: Path) -> list[str]:
    """The data sets whose statistics are there, as openpi calls them: "trossen", "org/name"."""
    root = path / ASSETS
    return sorted(p.parent.relative_to(root).as_posix() for p in root.rglob(STATISTICS))


def _is_of_others(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(config, dict) or "type" in config or "model_type" in config


def _has_its_names(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        with safe_open(file, "numpy") as opened:
            return any(name.startswith(PREFIX) for name in opened.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return False
