"""Targets: where a bundle will run. `targets/*.toml` -> frozen dataclasses; every fact has a source."""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.bundle.layout import BACKENDS
from vlacompile.config import load_toml
from vlacompile.errors import ConfigError, nearest


@dataclass(frozen=True)
class Launch:
    """overhead_us: cost of running one more stage. gflops: rate at which a small stage computes.
    Their product is the work below which a stage is not worth a launch."""

    overhead_us: float
    gflops: float
    source: str

    @property
    def min_stage_flops(self) -> int:
        return int(self.overhead_us * 1e-6 * self.gflops * 1e9)


@dataclass(frozen=True)
class Target:
    name: str
    description: str
    backend: str
    launch: Launch


def load_target(name_or_path: str) -> Target:
    """A shipped target by name, or a .toml file. Raises ConfigError."""
    target = load_toml(Target, name_or_path, "targets")
    if target.backend not in BACKENDS:
        raise ConfigError(f'backend "{target.backend}" does not exist', where=f'target "{target.name}"',
                          why=nearest(target.backend, BACKENDS), fix="choose one of the known backends")
    return target
