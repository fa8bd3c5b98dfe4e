"""Packages as an installation leaves them, for LeRobot to find: the plugin of integrations/lerobot, the example's robot
and the environment beside this file."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROJECT = ROOT / "integrations" / "lerobot"
PLUGIN = PROJECT / "src"
OTHERS = (ROOT / "examples" / "lerobot" / "robot", Path(__file__).parent / "plugins")  # of packages of one module


def install(folder: Path) -> Path:
    """A folder for PYTHONPATH. LeRobot goes by the names in the distributions' metadata."""
    name = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    shutil.copytree(PLUGIN / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    others = [file for of in OTHERS for file in of.glob("lerobot_*.py")]
    for file in others:
        shutil.copy(file, folder)
    for of in (name, *(file.stem for file in others)):
        metadata = folder / f"{of}-0.1.0.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {of}\nVersion: 0.1.0\n", encoding="utf-8")
    return folder
