"""What others measured on boards, from profiles/published: strictly read, so that a misspelt key is an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlacompile.files.toml import load_toml

FOLDER = Path(__file__).parents[1] / "profiles" / "published"


@dataclass(frozen=True)
class Rails:
    """W. VDD_IN: the module with its memory; the others are parts of it."""

    VDD_IN: float
    VDD_CPU_GPU_CV: float
    VDD_SOC: float


@dataclass(frozen=True)
class PublishedStage:
    """ours: what the names of our stages for the same work begin with."""

    name: str
    ms: float
    ours: tuple[str, ...]


@dataclass(frozen=True)
class PolicyRow:
    """A policy on a board. kind: of profiles/plans/board. ours: how our plan differs from what was run."""

    kind: str
    name: str
    configuration: str
    ours: str
    latency_ms: float
    preprocess_ms: float
    memory_mib: float
    joules: float
    watts: Rails
    idle_watts: Rails
    gpu_mhz: float
    cpu_mhz: float
    gpu_percent: float
    over_current_events: int
    stage: tuple[PublishedStage, ...]

    @property
    def memory_mb(self) -> float:
        return self.memory_mib * 1.048576


@dataclass(frozen=True)
class Policies:
    """*_is: what a figure includes."""

    source: str
    commit: str
    date: str
    engine: str
    target: str
    conditions: str
    latency_is: str
    memory_is: str
    power_is: str
    energy_is: str
    idle_is: str
    row: tuple[PolicyRow, ...]


@dataclass(frozen=True)
class PowerRow:
    """voltage, floor: what it is fitted to; neither: it is held out. busy: the part of the time in which the GPU
    computes; idle_watts: between. gpu_mhz: None: the mode's."""

    name: str
    target: str
    rail: str
    watts: float
    source: str
    voltage: bool = False
    floor: bool = False
    busy: float = 1.0
    idle_watts: float | None = None
    gpu_mhz: float | None = None


@dataclass(frozen=True)
class Powers:
    row: tuple[PowerRow, ...]


@dataclass(frozen=True)
class Targets:
    nano: str
    nx: str
    agx: str


@dataclass(frozen=True)
class ScaleRow:
    """The same policy on three boards, by an engine that is not TensorRT."""

    name: str
    views: int
    nano_ms: float
    nx_ms: float
    agx_ms: float
    nano_mib: float
    agx_mib: float


@dataclass(frozen=True)
class Scales:
    source: str
    date: str
    engine: str
    conditions: str
    targets: Targets
    row: tuple[ScaleRow, ...]


@dataclass(frozen=True)
class MachineRow:
    """A latency on another machine. target: "": none here describes it. plan: of profiles/plans/board. fitted: the
    target's rates follow from it. about: how what was run differs from the plan."""

    target: str
    plan: str
    scheme: str
    ms: float
    engine: str
    source: str
    about: str
    fitted: bool = False


@dataclass(frozen=True)
class Machines:
    row: tuple[MachineRow, ...]


def policies() -> Policies:
    """Raises ConfigError, as the others here."""
    return load_toml(Policies, str(FOLDER / "orin-nano-tensorrt.toml"), "profiles/published", "table")


def powers() -> tuple[PowerRow, ...]:
    return load_toml(Powers, str(FOLDER / "powers.toml"), "profiles/published", "table").row


def scales() -> Scales:
    return load_toml(Scales, str(FOLDER / "vla-cpp.toml"), "profiles/published", "table")


def machines() -> tuple[MachineRow, ...]:
    return load_toml(Machines, str(FOLDER / "other-machines.toml"), "profiles/published", "table").row
