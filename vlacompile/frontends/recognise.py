"""Which frontend reads a checkpoint directory, decided from its files without reading weights."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType


def is_checkpoint(path: Path) -> bool:
    """Whether a frontend can be chosen for this directory. It may still refuse it."""
    from vlacompile.frontends.openpi import files as openpi

    return (path / "config.json").is_file() or openpi.is_one(path)


def reader_of(path: Path) -> ModuleType:
    """The module that reads this checkpoint: LeRobot's configs have a "type", transformers' a "model_type", openpi's
    and Evo-1's neither. It has open_checkpoint, environments_for, needed_weights and read_policy. Raises
    SourceError."""
    from vlacompile.frontends.evo1 import files as evo1
    from vlacompile.frontends.groot import versions as groot
    from vlacompile.frontends.lerobot.files import read_json
    from vlacompile.frontends.openpi import files as openpi

    if openpi.is_one(path):
        from vlacompile.frontends.openpi import read as of_openpi

        return of_openpi
    config = read_json(path / "config.json")
    if evo1.is_one(config):
        from vlacompile.frontends.evo1 import read as of_evo1

        return of_evo1
    if "model_type" not in config or "type" in config:
        from vlacompile.frontends.lerobot import read as of_lerobot

        return of_lerobot
    if groot.is_one(config):
        from vlacompile.frontends.groot import read as of_groot

        return of_groot
    if config["model_type"] == "openvla":
        from vlacompile.frontends.openvla import read as of_openvla

        return of_openvla
    if config["model_type"] == "xvla":
        from vlacompile.frontends.xvla import read as of_xvla

        return of_xvla
    from vlacompile.frontends.huggingface import read as of_huggingface

    return of_huggingface
