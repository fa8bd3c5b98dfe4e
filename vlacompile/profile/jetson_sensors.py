"""Sensors of a Jetson: current clocks, temperatures, power of its rails.

Read from sysfs in the layout of NVIDIA's kernels (L4T 36 and 39); a machine without these files gives an empty reading.
For devices without Python or without jetson-stats: vlart-run reads the same files in C. Where jtop runs,
vlacompile/profile/jetson_stats.py reads it instead. Not run on a board: the tests read a directory tree of the same
form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

GPU = ("17000000.gpu", "17000000.ga10b", "gpu.0")  # names of its devfreq node, by release


@dataclass(frozen=True)
class Reading:
    """gpu_mhz, emc_mhz, cpu_mhz (the highest core): current clocks; None: not available. celsius, watts: {zone or rail:
    value}. throttled: {cause: count since boot} of over-current events, {device: state} of cooling devices that slow
    down the processor, if not 0. memory_mb: in use on the whole machine. gpu_load, cpu_load: percent. power_mode,
    power_mode_name: of nvpmodel. jetson_clocks: whether clocks are pinned. cpu_load, the name and jetson_clocks are
    known through jtop alone."""

    gpu_mhz: float | None = None
    emc_mhz: float | None = None
    cpu_mhz: float | None = None
    celsius: dict[str, float] = field(default_factory=dict)
    watts: dict[str, float] = field(default_factory=dict)
    throttled: dict[str, int] = field(default_factory=dict)
    memory_mb: float | None = None
    gpu_load: float | None = None
    cpu_load: float | None = None
    power_mode: int | None = None
    power_mode_name: str | None = None
    jetson_clocks: bool | None = None

    @property
    def of_a_board(self) -> bool:
        """Whether the machine has such sensors; a workstation has none."""
        return self.gpu_mhz is not None or bool(self.watts)


OVER_CURRENT = "over-current"  # counted since boot, unlike the states of cooling devices, which are current


def course(before: Reading, during: Sequence[Reading], after: Reading) -> str:
    """A summary of a board's sensors during a run, for a person: clocks, power, temperature, throttling, memory; "" if
    it has no sensors. Without readings in between (an older record) those before and after are
    used."""
    seen = [r for r in during or (before, after) if r.of_a_board]
    if not seen:
        return ""
    parts = [f"{name} {_span([x for r in seen if (x := getattr(r, key))], '.0f')} MHz"
             for name, key in (("GPU", "gpu_mhz"), ("memory clock", "emc_mhz"), ("CPU", "cpu_mhz"))
             if any(getattr(r, key) for r in seen)]
    for rail in dict.fromkeys(n for r in seen for n in r.watts):
        watts = [r.watts[rail] for r in seen if rail in r.watts]
        parts.append(f"{rail} {sum(watts) / len(watts):.1f} W on average, {max(watts):.1f} at most")
    heat = [c for r in (*seen, after) for c in r.celsius.values()]
    parts += [f"at most {max(heat):.0f} C"] if heat else []
    used = [r.memory_mb for r in seen if r.memory_mb is not None]
    parts += [f"{max(used):.0f} MB in use"] if used else []
    loads = [r.gpu_load for r in seen if r.gpu_load is not None]
    parts += [f"GPU load {_span(loads, '.0f')} %"] if loads else []
    parts += [f"power mode {' and '.join(modes)}"] if (modes := _modes(seen)) else []
    parts += ["jetson_clocks on"] if any(r.jetson_clocks for r in seen) else []
    causes = _causes(before, (*seen, after))
    return ", ".join([*parts, f"throttled: {', '.join(causes)}" if causes else "not throttled"])


def _modes(readings: Sequence[Reading]) -> list[str]:
    return list(dict.fromkeys(r.power_mode_name or str(r.power_mode) for r in readings if r.power_mode is not None))


def _span(numbers: Sequence[float], form: str) -> str:
    low, high = format(min(numbers), form), format(max(numbers), form)
    return low if low == high else f"{low} to {high}"


def _causes(before: Reading, later: Sequence[Reading]) -> list[str]:
    found = []
    for name in dict.fromkeys(n for r in later for n in r.throttled):
        most, first = max(r.throttled.get(name, 0) for r in later), before.throttled.get(name, 0)
        if not name.startswith(OVER_CURRENT):
            found.append(f"{name} in state {most}")
        elif most > first:
            found.append(f"{name}, {most - first} times")
    return found


def read_sensors(root: Path = Path("/")) -> Reading:
    """root: of the file system. Files that are missing or unreadable are left out."""
    sys = root / "sys"
    gpu = next((hz for n in GPU if (hz := _number(sys / "class/devfreq" / n / "cur_freq")) is not None), None)
    emc = _number(sys / "kernel/debug/bpmp/debug/clk/emc/rate")
    cpus = [khz for p in sorted((sys / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
            if (khz := _number(p)) is not None]
    return Reading(None if gpu is None else gpu / 1e6, None if emc is None else emc / 1e6,
                   max(cpus) / 1e3 if cpus else None, dict(_temperatures(sys)), dict(_rails(sys)),
                   dict(_throttled(sys)), _memory_mb(root), _gpu_load(sys), power_mode=_power_mode(root))


def _throttled(sys: Path) -> Iterator[tuple[str, int]]:
    """Over-current events under the names of NVIDIA's Jetson Linux Developer Guide (hwmon, ocN_event_cnt), and the
    kernel's cooling devices, except fans."""
    for file in sorted((sys / "class/hwmon").glob("hwmon*/oc[0-9]_event_cnt")):
        if count := _number(file):
            yield f"{OVER_CURRENT} {file.name[2]}", int(count)
    for device in sorted((sys / "class/thermal").glob("cooling_device*")):
        kind, state = _text(device / "type"), _number(device / "cur_state")
        if state and kind and "fan" not in kind:
            yield kind, int(state)


def _gpu_load(sys: Path) -> float | None:
    """The file counts in thousandths."""
    loads = (_number(sys / "class/devfreq" / n / "device/load") for n in GPU)
    return next((load / 10 for load in loads if load is not None), None)


def _power_mode(root: Path) -> int | None:
    """The file holds e.g. pmode:0002 fmode:quiet; its number, without a name."""
    found = re.match(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    return int(found[1]) if found else None


def _memory_mb(root: Path) -> float | None:
    rows = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    try:
        return (int(rows["MemTotal"].split()[0]) - int(rows["MemAvailable"].split()[0])) * 1024 / 1e6
    except (KeyError, ValueError, IndexError):
        return None


def _temperatures(sys: Path) -> Iterator[tuple[str, float]]:
    for zone in sorted((sys / "class/thermal").glob("thermal_zone*")):
        name, value = _text(zone / "type"), _number(zone / "temp")
        if name and value is not None and name.endswith("-thermal"):
            yield name.removesuffix("-thermal"), value / 1e3


def _rails(sys: Path) -> Iterator[tuple[str, float]]:
    """INA3221: in1_label is a rail's name, in1_input its mV, curr1_input its mA."""
    for label in sorted((sys / "class/hwmon").glob("hwmon*/in[1-3]_label")):
        n = label.name[2]
        volts, amperes = _number(label.with_name(f"in{n}_input")), _number(label.with_name(f"curr{n}_input"))
        if volts is not None and amperes is not None:
            yield _text(label), volts * amperes / 1e6


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
