"""A board with a GPU and its software: facts, each with its source, and derived values.

Owns the dataclasses behind `[board]`, `[[mode]]` and `targets/software/*.toml`. Derived values (peaks, bandwidths) are
computed here and written in no file. Must not know recipes, stages or files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from vlart.errors import ConfigError

# Operations per SM and clock, 2 per multiply-add, dense, by compute capability; 128 CUDA cores per SM. 87: GA10B, 4
# tensor cores per SM. 89: AD102, RTX 4090: 330 TFLOPS of FP16 (accumulated in FP16) and 661 TOPS of INT8 at 2520 MHz on
# 128 SMs. 110: Thor, T5000: 2070 TFLOPS of sparse FP4 at 1575 MHz on 20 SMs, half of it dense, a quarter of that in
# FP16; INT8 is assumed to be as fast as FP8.
OPS_PER_CLOCK = {87: {"fp32": 256, "fp16": 2048, "int8": 4096}, 89: {"fp32": 256, "fp16": 1024, "int8": 2048},
                 110: {"fp32": 256, "fp16": 8192, "int8": 16384}}
MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """compute_capability: 87 is sm_87. sms: streaming multiprocessors of the module; a power mode may switch some off.
    l2_mib: None: not published. fp16_share: of the dense peak that others reached with many rows; None: Orin's."""

    compute_capability: int
    sms: int
    shared_kib_per_sm: int
    source: str
    l2_mib: float | None = None
    l2_source: str = ""
    fp16_share: float | None = None
    fp16_share_source: str = ""


@dataclass(frozen=True)
class Memory:
    """Unified memory of CPU and GPU, or a graphics card's own. visible_mib: MemTotal of Linux, or what the card has.
    os_mib: used by the system without a desktop and with nothing started. bus_bits: width of the DRAM bus.
    contiguous_mib: the largest contiguous allocation, which limits a single tensor."""

    visible_mib: int
    source: str
    os_mib: int
    os_source: str
    bus_bits: int
    bus_source: str
    contiguous_mib: int
    contiguous_source: str

    @property
    def usable_bytes(self) -> int:
        """Bytes left for the policy and its processes."""
        return (self.visible_mib - self.os_mib) * MIB


@dataclass(frozen=True)
class Board:
    """marketing_tops: sparse INT8 as advertised, including the DLAs if there are any; None: not compared."""

    module: str
    gpu: Gpu
    memory: Memory
    marketing_tops: float | None = None
    marketing_source: str = ""


@dataclass(frozen=True)
class Mode:
    """A power mode: clock caps, not guaranteed watts. gpu_mhz, emc_mhz: maximum clocks; sms: SMs switched on (the TPCs
    of the others are gated); cpus, cpu_mhz: cores switched on and their maximum clock. held_mhz: the GPU's mean clock
    under load, where over-current or temperature keep it below its maximum; None: nobody published it."""

    name: str
    gpu_mhz: float
    sms: int
    emc_mhz: float
    cpus: int
    cpu_mhz: float
    source: str
    held_mhz: float | None = None
    held_source: str = ""

    @property
    def busy_mhz(self) -> float:
        """The GPU's clock while it computes."""
        return self.held_mhz or self.gpu_mhz

    def tops(self, scheme: str, gpu: Gpu) -> float:
        """Dense peak of the GPU alone, 1e12 operations per second; int4 weights are computed in fp16."""
        ops = OPS_PER_CLOCK[gpu.compute_capability]["fp16" if scheme == "int4" else scheme]
        return self.sms * ops * self.busy_mhz * 1e6 / 1e12

    def dram_gbps(self, memory: Memory) -> float:
        """1e9 bytes per second: two transfers per EMC clock over the whole bus."""
        return self.emc_mhz * 1e6 * 2 * memory.bus_bits / 8 / 1e9


@dataclass(frozen=True)
class Software:
    """A JetPack release, or TensorRT on a PC, whose l4t is "none". compute_capabilities: of the GPUs that it is for.
    context_mb (1e6 bytes): memory of a process with CUDA and TensorRT loaded and no engine."""

    name: str
    compute_capabilities: tuple[int, ...]
    l4t: str
    cuda: str
    tensorrt: str
    python: str
    source: str
    context_mb: float
    context_source: str


def sources_of(facts: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """(place, text) of every source of a dataclass of facts, nested ones included."""
    for f in fields(facts):
        value, place = getattr(facts, f.name), f"{where}.{f.name}" if where else f.name
        if f.name == "source" or f.name.endswith("_source"):
            yield place, value
        elif hasattr(value, "__dataclass_fields__"):
            yield from sources_of(value, place)


def check_board(board: Board, modes: tuple[Mode, ...], where: str) -> None:
    """Raises ConfigError for impossible facts."""
    gpu, memory = board.gpu, board.memory
    optional = {"board.gpu.l2_source": gpu.l2_mib is not None,
                "board.gpu.fp16_share_source": gpu.fp16_share is not None,
                "board.marketing_source": board.marketing_tops is not None,
                **{f'mode "{m.name}".held_source': m.held_mhz is not None for m in modes}}
    sources = [*sources_of(board, "board"), *(s for m in modes for s in sources_of(m, f'mode "{m.name}"'))]
    checks = [(bool(text.strip()) or not optional.get(place, True), f"{place} is empty", "every fact has a source")
              for place, text in sources]
    positive: dict[str, float] = {
        "board.gpu.sms": gpu.sms, "board.gpu.shared_kib_per_sm": gpu.shared_kib_per_sm,
        "board.memory.visible_mib": memory.visible_mib, "board.memory.os_mib": memory.os_mib,
        "board.memory.bus_bits": memory.bus_bits, "board.memory.contiguous_mib": memory.contiguous_mib}
    for m in modes:
        positive |= {f'mode "{m.name}".{k}': getattr(m, k) for k in ("gpu_mhz", "sms", "emc_mhz", "cpus", "cpu_mhz")}
        if m.held_mhz is not None:
            positive[f'mode "{m.name}".held_mhz'] = m.held_mhz
    checks += [(0 < v < math.inf, f"{k} = {v:g}", "it must be positive and finite") for k, v in positive.items()]
    checks += [(m.busy_mhz <= m.gpu_mhz, f'mode "{m.name}".held_mhz = {m.held_mhz}', f"its maximum is {m.gpu_mhz:g}")
               for m in modes]
    checks += [(gpu.compute_capability in OPS_PER_CLOCK, f"board.gpu.compute_capability = {gpu.compute_capability}",
                f"rates are known of {', '.join(map(str, OPS_PER_CLOCK))}"),
               (gpu.fp16_share is None or 0 < gpu.fp16_share <= 1, f"board.gpu.fp16_share = {gpu.fp16_share}",
                "it is a part of the peak")]
    checks += [(m.sms <= gpu.sms, f'mode "{m.name}".sms = {m.sms}', f"the module has {gpu.sms}") for m in modes]
    checks += [(memory.os_mib < memory.visible_mib, f"board.memory.os_mib = {memory.os_mib}",
                f"only {memory.visible_mib} MiB are visible"),
               (bool(modes), "[[mode]] is missing", "a board has at least one power mode"),
               (len({m.name for m in modes}) == len(modes), "two modes share a name", "a mode is chosen by its name")]
    for good, what, why in checks:
        if not good:
            raise ConfigError(what, where=where, why=why, fix="correct the target")
