"""What cannot be true of a board record: figures without sense, in another unit, beyond what the board can do, or of
another machine than the label says. One check each; the first that fails is the refusal, in four lines."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from dataclasses import asdict

from vlacompile.files.toml import shipped
from vlacompile.hardware.board import OPS_PER_CLOCK, Mode
from vlacompile.hardware.target import Target, load_target, modes_of
from vlacompile.profile.board_record import KINDS, BoardRecord, Stage, Times, kind_of
from vlart.errors import ConfigError

MOST_TEXT = 300  # characters of one text, a device tree's list of names the longest
AS_BOARD = ("board", "synthetic")  # kinds whose figures must be possible on the board
OTHER_UNIT = 100.0  # measured over modelled, either way: milli or micro, no model is so far off
SLACK = 0.9  # of the least time that a board needs for weights and products, which are counted, not measured
# {sensor: (least, most, the unit it should have, what it may be instead)}
SENSOR_RANGES = {"mhz": (1.0, 6000.0, "MHz", "kHz or Hz"), "watts": (0.0, 300.0, "W", "mW"),
                 "celsius": (-40.0, 130.0, "degrees Celsius", "thousandths of a degree"),
                 "mb": (1.0, 2e6, "MB (1e6 bytes)", "kB or bytes")}


def check_record(record: BoardRecord, where: str) -> None:
    """Raises ConfigError."""
    for checks in (_texts, _label, _times, _sensors, _board):
        for good, what, why in checks(record):
            if not good:
                raise refusal(where, what, why)


def refusal(where: str, what: str, why: str,
            fix: str = "contribute the file as `flash --acceptance` wrote it, or measure again") -> ConfigError:
    return ConfigError(f"a board record is refused: {what}", where=where, why=why, fix=fix)


Check = tuple[bool, str, str]  # whether it holds; otherwise what, and why


def _texts(record: BoardRecord) -> Iterator[Check]:
    texts = [("notes", record.notes), ("self_test", record.self_test), ("bundle.name", record.bundle.name),
             *((f"device.{k}", v) for k, v in asdict(record.device).items() if isinstance(v, str)),
             *((f"stages.{i}.name", s.name) for i, s in enumerate(record.stages))]
    for key, text in texts:
        yield len(text) <= MOST_TEXT and text.isprintable(), f'"{key}" is no short line of text', repr(text[:60])
    try:
        dt.date.fromisoformat(record.date)
        dated = True
    except ValueError:
        dated = False
    yield dated, f'"{record.date}" is no date', "YYYY-MM-DD is one"
    passed = record.self_test.startswith("self-test passed")
    yield passed, "the self-test did not pass", record.self_test or "it says nothing"
    yield bool(record.stages), "it has no stage", "there is nothing to compare"
    names = [s.name for s in record.stages]
    yield len({*names}) == len(names), "a stage is there twice", ", ".join(names)


def _label(record: BoardRecord) -> Iterator[Check]:
    kind, why = kind_of(record)
    said = f'it says that it is of kind "{record.kind}"'
    yield record.kind == kind, f'it is of kind "{kind}"', f"{said}; {why}"
    yield record.label == KINDS[kind], f'its label is not that of kind "{kind}"', f'"{record.label}"'


def _times(record: BoardRecord) -> Iterator[Check]:
    series = [("same", record.same), ("new", record.new), *((f'stage "{s.name}"', s.measured) for s in record.stages)]
    for name, t in series:
        if t is not None:
            good = t.count > 0 and 0 < t.median_ms <= t.p95_ms <= t.max_ms < math.inf
            yield good, f"the times of {name} are not in order", f"0 < median <= p95 <= max does not hold: {asdict(t)}"
    yield record.same is not None or record.new is not None, "no replan was timed", "neither same nor new is there"
    positive = [("replans", record.replans), ("device.memory_gb", record.device.memory_gb),
                *((f"stages.{s.name}.iterations", s.iterations) for s in record.stages),
                *((f"stages.{s.name}.modelled_ms", s.modelled_ms) for s in record.stages if s.modelled_ms is not None),
                *((f"modelled.{k}", v) for k, v in asdict(record.modelled or record.sensors).items()
                  if record.modelled is not None and isinstance(v, float))]
    for key, number in positive:
        yield 0 < number < math.inf, f"{key} = {number}", "it is positive and finite"
    for s in record.stages:
        for p in s.products:
            good = min(p.count, p.rows) > 0 and min(p.operations, p.stored_bytes, p.weights) >= 0
            yield good, f'a product of stage "{s.name}" has no size', str(asdict(p))
    longest = max((t.max_ms for t in (record.same, record.new) if t is not None), default=0.0)
    for s in record.stages:
        if s.measured is not None:
            yield (s.measured.median_ms <= 1.01 * longest, f'stage "{s.name}" takes longer than a replan',
                   f"{s.measured.median_ms:g} ms in the median, and no replan took more than {longest:g} ms")


def _sensors(record: BoardRecord) -> Iterator[Check]:
    s = record.sensors
    ranges = [(f"sensors.{k}", r) for k in ("gpu_mhz", "emc_mhz", "cpu_mhz") if (r := getattr(s, k)) is not None]
    ranges += [(f"sensors.watts.{rail}", r) for rail, r in s.watts.items()]
    for key, r in ranges:
        yield r.low <= r.median <= r.high, f"{key} is not in order", f"low <= median <= high does not hold: {asdict(r)}"
    numbers = [(k, "watts" if ".watts." in k else "mhz", x) for k, r in ranges for x in (r.low, r.high)]
    numbers += [(f"sensors.idle_watts.{rail}", "watts", x) for rail, x in s.idle_watts.items()]
    numbers += [(f"sensors.most_{unit}", unit.removeprefix("memory_"), x) for unit in ("celsius", "memory_mb")
                if (x := getattr(s, f"most_{unit}")) is not None]
    for key, of, x in numbers:
        least, most, unit, instead = SENSOR_RANGES[of]
        why = f"{least:g} to {most:g} can be; is it in {instead}?"
        yield least <= x <= most, f"{key} = {x:g} is not in {unit}", why


def _board(record: BoardRecord) -> Iterator[Check]:
    """Only of what stands for a board: a double may take any time."""
    name, mode = record.device.target, record.device.mode
    if record.kind not in AS_BOARD:
        return
    modes = {m.name: m for m in modes_of(name)} if name in shipped("targets") else {}
    yield bool(modes), f'"{name}" is no board', f"those in targets/ are: {', '.join(shipped('targets'))}"
    yield (mode is None or mode in modes, f'{name} has no power mode "{record.device.power_mode}"',
           f"it has {', '.join(modes)}")
    yield (record.built is None or record.built.golden == "passed", "its engines did not pass their golden frames",
           f"vlart-build says {record.built.golden if record.built else ''}")
    if record.modelled is not None and record.same is not None:
        yield from _unit(record, "a replan", record.same, record.modelled.same_ms)
    for s in record.stages:
        if s.measured is not None and s.modelled_ms is not None and s.modelled_ms > 1.0:
            yield from _unit(record, f'stage "{s.name}"', s.measured, s.modelled_ms)
    target = load_target(f"{name}@{mode}" if mode else name)
    fastest = [modes[mode]] if mode else list(modes.values())
    yield from _clocks(record, fastest)
    for s in record.stages:
        if s.measured is not None:
            least, by = _least_ms(s, target, fastest)
            yield (s.measured.median_ms >= SLACK * least, f'stage "{s.name}" is faster than the board can be',
                   f"{s.measured.median_ms:g} ms in the median; {by} take {least:.3g} ms at its peak")


def _unit(record: BoardRecord, name: str, times: Times, modelled_ms: float) -> Iterator[Check]:
    ratio = times.median_ms / modelled_ms
    unit = "us" if ratio > 1 else "s"
    yield (1 / OTHER_UNIT < ratio < OTHER_UNIT, f"the times of {name} are not in ms",
           f"{times.median_ms:g} where {modelled_ms:.3g} ms are modelled; are they in {unit}?")


def _clocks(record: BoardRecord, modes: list[Mode]) -> Iterator[Check]:
    gpu, most = record.sensors.gpu_mhz, max(m.gpu_mhz for m in modes)
    yield (gpu is None or gpu.high <= 1.02 * most, "the GPU's clock is higher than its power mode allows",
           f"{gpu.high if gpu else 0:g} MHz; {', '.join(m.name for m in modes)} allows {most:g}")
    used, usable = record.sensors.most_memory_mb, record.device.memory_gb * 1e3
    yield used is None or used <= usable, "more memory is in use than there is", f"{used or 0:g} of {usable:g} MB"


def _least_ms(stage: Stage, target: Target, modes: list[Mode]) -> tuple[float, str]:
    """(ms, what takes them): the products at the GPU's dense peak, or the weights beyond its cache at the memory's."""
    assert target.board is not None
    gpu, memory = target.board.gpu, target.board.memory
    times = 1 if stage.ends else stage.iterations
    ops = OPS_PER_CLOCK[gpu.compute_capability]
    peaks = {scheme: max(m.sms * m.gpu_mhz for m in modes) * 1e6 * ops["fp16" if scheme == "int4" else scheme]
             for scheme in ("fp32", "fp16", "int8", "int4")}
    peaks["fp32"] = peaks["fp16"] / 2  # products in TF32 use tensor cores
    arithmetic = 1e3 * times * sum(p.count * p.operations / peaks[p.scheme] for p in stage.products)
    cache = (gpu.l2_mib or 8.0) * (1 << 20)
    stored = max(0.0, sum(p.count * p.stored_bytes for p in stage.products) - cache)
    reading = 1e3 * times * stored / (max(m.dram_gbps(memory) for m in modes) * 1e9)
    return max((arithmetic, "its products"), (reading, "its weights"))
