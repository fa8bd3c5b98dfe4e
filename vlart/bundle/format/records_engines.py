"""Records of engines/lock.bin: what was built on a board; see layout.py."""

from __future__ import annotations

from vlart.bundle.format.record import checksum, enum, number, real, record, reserved, string

LOCK = record(
    "lock",
    "Of engines/lock.bin, exactly one: the machine that the engines were built on, and what proved them.",
    number("memory_bytes", "u64", "of the board"),
    checksum("plan_crc32", "CRC-32 of plan.bin"),
    enum("golden", "proof", "the golden frames, stage by stage"),
    enum("whole_tick", "proof", "the golden frames, a whole tick as one launch"),
    number("compute_capability", "u32", "of the GPU, 87: 8.7"),
    number("multiprocessors", "u32", "of the GPU, in its power mode"),
    string("model", "of the device tree; unknown where the machine does not say it, as the next two"),
    string("jetpack"),
    string("l4t"),
    string("tensorrt"),
    string("cuda"),
    string("gpu"),
    number("power_mode", "u32", "of nvpmodel; NONE: not known, as the clocks"),
    number("gpu_mhz", "u32", "when the engines were proved"),
    number("gpu_max_mhz", "u32", "in its power mode"),
    number("emc_mhz", "u32", "of the memory"),
    number("cpu_mhz", "u32", "when the engines were proved"),
    number("cpu_max_mhz", "u32", "in its power mode"),
    reserved(),
)

ENGINE = record(
    "engine",
    "An engine that was built for a stage.",
    number("bytes", "u64", "size of its file"),
    number("scratch_bytes", "u64", "of the GPU's memory, while it runs"),
    number("build_peak_bytes", "u64", "of the process that built it"),
    real("build_s", "f64", "seconds"),
    number("runs", "u64", "that were timed; 0: none"),
    real("median_ms", "f64", "of a run, all iterations"),
    real("p95_ms", "f64", "the same"),
    string("stage", "name of the stage"),
    string("file", "its path in the bundle"),
    checksum("crc32", "of the file"),
    checksum("stage_crc32", "of the stage's ONNX file"),
    checksum("weights_crc32", "of all weights files"),
    checksum("recipe_crc32", "of how it was to be built"),
    number("sha256", "u32[8]", "of the file, byte after byte"),
)
