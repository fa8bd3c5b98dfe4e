"""What a machine measured of a bundle, beside what was modelled: one JSON file that anybody can contribute to
profiles/boards. Owns its fields, and what it is by its own evidence; record_file.py reads and writes it.

Units are in the names: ms, s, bytes, mb (1e6 bytes), mhz, watts, celsius. No host names, no paths. A record's `kind`
follows from its evidence (`kind_of`) and must be what the file says; only kind "board" ever counts as a board's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlacompile.deploy.device import JETPACKS, MODULES

FORMAT, VERSION = "vlacompile board record", 1
KINDS = {
    "board": "measured on a board",
    "unproven": "measured on a machine that is not shown to be a board: it counts for nothing",
    "processor": "stages ran on a processor: no figure of a board's GPU",
    "double": "a dry run on doubles of NVIDIA's libraries: its times are no board's",
    "emulator": "a dry run in an emulator: its times are no machine's",
    "synthetic": "made up for a test: nothing was measured",
}
GPU_NAMES = {87: r"(NVIDIA )?Orin( \(nvgpu\))?"}  # as CUDA says them; of another GPU any name is taken
SCHEME = Literal["fp32", "fp16", "int8", "int4"]


@dataclass(frozen=True)
class Times:
    count: int
    median_ms: float
    p95_ms: float
    max_ms: float


@dataclass(frozen=True)
class Product:
    """`count` equal kernels (vlacompile/profile/kernel_work.py) of one iteration."""

    count: int
    kind: Literal["linear", "conv", "depthwise", "attention", "embedding"]
    scheme: SCHEME
    rows: int
    operations: int
    stored_bytes: int
    weights: int


@dataclass(frozen=True)
class Engine:
    """As vlart-build recorded it. build_peak_bytes: of the process that built it."""

    bytes: int
    scratch_bytes: int
    build_s: float
    build_peak_bytes: int


@dataclass(frozen=True)
class Stage:
    """measured: of all iterations; None: it did not run. every: for every observation. ends: the data says how many of
    the iterations run."""

    name: str
    iterations: int
    every: bool
    products: tuple[Product, ...]
    measured: Times | None = None
    modelled_ms: float | None = None
    engine: Engine | None = None
    ends: bool = False


@dataclass(frozen=True)
class Device:
    """target: a name in targets/. architecture: of the system; ran_architecture: what the programs saw. power_mode:
    nvpmodel's name, as "MAXN_SUPER"."""

    target: str
    architecture: str
    ran_architecture: str
    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    model: str = ""
    compatible: str = ""
    l4t: str | None = None
    power_mode: str | None = None
    power_mode_id: int | None = None

    @property
    def mode(self) -> str | None:
        """As targets/ spell it: "MAXN_SUPER" is maxn-super, "15W" and an AGX Orin's "MODE_15W" are 15w."""
        return None if self.power_mode is None else self.power_mode.lower().replace("_", "-").removeprefix("mode-")


@dataclass(frozen=True)
class Built:
    """What built and ran the engines. golden, whole_tick: what vlart-build proved."""

    tensorrt: str
    cuda: str
    gpu: str
    compute_capability: int
    multiprocessors: int
    golden: str
    whole_tick: str


@dataclass(frozen=True)
class BundleOf:
    name: str
    hash: str
    target: str


@dataclass(frozen=True)
class Range:
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Sensors:
    """Between replans, `readings` times. idle_watts: before them. throttled: over-current events meanwhile, and states
    of cooling devices."""

    readings: int
    source: Literal["sysfs", "jtop"]
    gpu_mhz: Range | None = None
    emc_mhz: Range | None = None
    cpu_mhz: Range | None = None
    watts: Mapping[str, Range] = field(default_factory=dict)
    idle_watts: Mapping[str, float] = field(default_factory=dict)
    most_celsius: float | None = None
    most_memory_mb: float | None = None
    throttled: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelledAs:
    """For a target in one power mode. watts, joules: None: not modelled. error_factor: of nine in ten latencies on
    boards; None: of no board."""

    target: str
    same_ms: float
    new_ms: float
    memory_mb: float
    error_factor: float | None = None
    watts: float | None = None
    joules: float | None = None


@dataclass(frozen=True)
class BoardRecord:
    """same, new: replans with the instruction of the one before, and with another one. label: KINDS[kind]. synthetic:
    its figures were made up. notes: of whoever contributes it."""

    format: str
    version: int
    kind: str
    label: str
    date: str
    vlacompile: str
    device: Device
    bundle: BundleOf
    self_test: str
    replans: int
    warm_up: int
    threads: int
    stages: tuple[Stage, ...]
    sensors: Sensors
    same: Times | None = None
    new: Times | None = None
    built: Built | None = None
    modelled: ModelledAs | None = None
    synthetic: bool = False
    notes: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured over modelled, of a replan with the same instruction."""
        return None if self.same is None or self.modelled is None else self.same.median_ms / self.modelled.same_ms


def kind_of(record: BoardRecord) -> tuple[str, str]:
    """(kind, why) by what the record itself shows."""
    device, built = record.device, record.built
    if record.synthetic:
        return "synthetic", "it says so"
    if built is not None and "double" in built.gpu.lower():
        return "double", f'the GPU calls itself "{built.gpu}"'
    if device.architecture != device.ran_architecture:
        return "emulator", f"programs see {device.ran_architecture} on {device.architecture}"
    if re.search(r"qemu|dummy-virt", f"{device.model} {device.compatible}", re.IGNORECASE):
        return "emulator", f'its device tree says "{device.model or device.compatible}"'
    if built is None:
        return "processor", "no engine of TensorRT was built"
    lacks = [what for what, good in _of_a_board(record, built) if not good]
    return ("unproven", "; ".join(lacks)) if lacks else ("board", "nothing is missing")


def _of_a_board(record: BoardRecord, built: Built) -> Iterator[tuple[str, bool]]:
    """(what is missing otherwise, whether it is there)"""
    device, sensors = record.device, record.sensors
    module = next((target for part, target in MODULES.items() if part in device.compatible), None)
    yield f"the device tree names no module of {device.target}", module == device.target
    yield "it has no release of L4T", device.l4t is not None and int(device.l4t.split(".")[0]) in JETPACKS
    yield f"its processor is {device.architecture}", device.architecture == "aarch64"
    named = re.fullmatch(GPU_NAMES.get(built.compute_capability, ".*"), built.gpu) is not None
    yield f'its GPU is called "{built.gpu}"', named
    yield "no sensor gave the GPU's clock", sensors.readings > 0 and sensors.gpu_mhz is not None
    yield "no sensor gave the power of a rail", bool(sensors.watts)
    yield "its power mode has no name", device.power_mode is not None
