"""Records of engines/lock.bin: what was built on a board; see layout.py."""

from __future__ import annotations

from vlacompile.bundle.format.record import record

LOCK = record(
    "lock",
    "Of engines/lock.bin, exactly one: the machine that the engines were built on, and what proved them.",
    ("memory_bytes", "u64", "of the board"),
    ("plan_crc32", "u32", "CRC-32 of plan.bin"),
    ("golden", "u32", "proof: the golden frames, stage by stage"),
    ("whole_tick", "u32", "proof: the golden frames, a whole tick as one launch"),
    ("compute_capability", "u32", "of the GPU, 87: 8.7"),
    ("multiprocessors", "u32", "of the GPU, in its power mode"),
    ("model", "u32", "string, of the device tree; unknown where the machine does not say it, as the next two"),
    ("jetpack", "u32", "string"),
    ("l4t", "u32", "string"),
    ("tensorrt", "u32", "string"),
    ("cuda", "u32", "string"),
    ("gpu", "u32", "string"),
    ("power_mode", "u32", "of nvpmodel; NONE: not known, as the clocks"),
    ("gpu_mhz", "u32", "when the engines were proved"),
    ("gpu_max_mhz", "u32", "in its power mode"),
    ("emc_mhz", "u32", "of the memory"),
    ("cpu_mhz", "u32", "when the engines were proved"),
    ("cpu_max_mhz", "u32", "in its power mode"),
    ("reserved", "u32", "zero"),
)

ENGINE = record(
    "engine",
    "An engine that was built for a stage.",
    ("bytes", "u64", "size of its file"),
    ("scratch_bytes", "u64", "of the GPU's memory, while it runs"),
    ("build_peak_bytes", "u64", "of the process that built it"),
    ("build_s", "f64", "seconds"),
    ("runs", "u64", "that were timed; 0: none"),
    ("median_ms", "f64", "of a run, all iterations"),
    ("p95_ms", "f64", "the same"),
    ("stage", "u32", "string, name of the stage"),
    ("file", "u32", "string, its path in the bundle"),
    ("crc32", "u32", "of the file"),
    ("stage_crc32", "u32", "of the stage's ONNX file"),
    ("weights_crc32", "u32", "of all weights files"),
    ("recipe_crc32", "u32", "of how it was to be built"),
    ("sha256", "u32[8]", "of the file, byte after byte"),
)
