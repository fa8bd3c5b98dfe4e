"""Plans of systems without a build: how small stages are kept apart, and what a plan says of each."""

from __future__ import annotations

from pathlib import Path

from tests.samples.policies import EVERY_STAGE
from vlacompile.compiler.staging.stage_account import Account
from vlacompile.pipeline import plan


def every_stage(folder: Path) -> str:
    """The path of a recipe with which nothing is merged or unrolled because it is small, as nothing is at real size."""
    path = folder / "every_stage.toml"
    path.write_text(EVERY_STAGE, encoding="utf-8")
    return str(path)


def planned(name: str, folder: Path, size: str = "tiny") -> Account:
    """name: as after `zoo:`, without a size; with every stage kept apart, and without weights."""
    return plan(f"zoo:{name}@{size}", recipe=every_stage(folder), weights=False)
