"""Board records made up for tests: of kind "synthetic", which no fit takes unless a test asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from vlacompile.hardware.target import load_target
from vlacompile.profile.board_record import (
    FORMAT,
    KINDS,
    VERSION,
    BoardRecord,
    Built,
    BundleOf,
    Device,
    Engine,
    ModelledAs,
    Product,
    Range,
    Sensors,
    Stage,
    Times,
)
from vlacompile.profile.kernel_work import Kernel
from vlacompile.profile.record_file import without_nothing
from vlacompile.profile.roofline import stage_us

PRODUCTS = {"vision": (Product(48, "linear", "fp16", 1024, 1_207_959_552, 1_179_648, 589_824),),
            "language": (Product(24, "linear", "fp16", 48, 56_623_104, 1_179_648, 589_824),),
            "step": (Product(80, "linear", "fp16", 50, 400_000_000, 8_000_000, 4_000_000),)}


def times(median: float, count: int = 240) -> Times:
    return Times(count, median, 1.05 * median, 1.2 * median)


def synthetic(factor: float = 1.0, bundle: str = "a" * 64, target: str = "orin-nano-8gb", mode: str = "MAXN_SUPER",
              **changes: Any) -> BoardRecord:
    """Measured is `factor` times what is modelled, whole and per stage, at the clock that the mode holds."""
    board = load_target(f"{target}@{mode.lower().replace('_', '-')}")
    assert board.power is not None
    stages = []
    for name, products in PRODUCTS.items():
        iterations = 10 if name == "step" else 1
        us = sum(p.count * sum(stage_us([Kernel("", p.kind, p.scheme, p.rows, p.operations, p.stored_bytes, 0,
                                                p.weights)], board)) for p in products)
        ms = (iterations * us + board.launch.overhead_us) / 1e3
        stages.append(Stage(name, iterations, name != "language", products, times(factor * ms), ms,
                            Engine(90_000_000, 1 << 20, 61.0, 900_000_000)))
    same, new = (sum(s.modelled_ms for s in stages if s.every or every) for every in (False, True))
    clock = board.power.busy_mhz
    record = BoardRecord(
        FORMAT, VERSION, "synthetic", KINDS["synthetic"], "2026-01-02", "0.1.0",
        Device(target, "aarch64", "aarch64", "ARMv8 Processor rev 1 (v8l)", 6, 7.8, "5.15.148-tegra",
               "NVIDIA Jetson Orin Nano Developer Kit", "nvidia,p3768-0000+p3767-0005-super nvidia,p3767-0005",
               "36.4.3", mode, 2),
        BundleOf("made-up", bundle, f"{board.name}"), "self-test passed: 3 values in 10 frames", 300, 20, 0,
        tuple(stages),
        Sensors(40, "sysfs", Range(clock - 5, clock, clock + 2), None, Range(1500, 1600, 1700),
                {"VDD_IN": Range(20.0, 22.0, 23.5)}, {"VDD_IN": 7.5}, 66.0, 3200.0, {"over-current 3": 80_000}),
        times(factor * same), times(factor * new, 60),
        Built("10.3.0.30", "12.6", "Orin", 87, 8, "passed", "passed"),
        ModelledAs(board.name, same, new, 500.0, 1.29, 23.0, 23e-3 * same), synthetic=True)
    return replace(record, **changes)


def document(record: BoardRecord, change: Callable[[dict], None] = lambda d: None) -> dict:
    """As its file has it, with a change."""
    found = without_nothing(asdict(record))
    change(found)
    return found
