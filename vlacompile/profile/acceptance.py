"""The record of a board's first day: what it measured of a bundle, beside what is modelled for it, stage by stage."""

from __future__ import annotations

import importlib.metadata
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vlacompile.deploy.acceptance import Measured
from vlacompile.deploy.device import device_of
from vlacompile.hardware.target import Target, load_target, modes_of
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
    kind_of,
)
from vlacompile.profile.jetson_sensors import OVER_CURRENT, Reading
from vlacompile.profile.kernel_work import StageWork, work_of
from vlacompile.profile.measure import Profile, Series, read_of
from vlacompile.profile.published import bands
from vlacompile.profile.roofline import Modelled, StageTime, WhatIf, model
from vlart.bundle.directory import Bundle
from vlart.bundle.engine_lock import read_lock
from vlart.errors import ConfigError
from vlart.files.atomic import write_file


def compose(bundle: Bundle, measured: Measured) -> BoardRecord:
    """Raises ConfigError if the times are of another bundle, BundleError if a file is damaged."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_file(path / "profile.json", measured.profile)
        profile = read_of(path / "profile.json", bundle)
        lock = None
        if measured.lock is not None:
            write_file(path / "lock.bin", measured.lock)
            lock = read_lock(path / "lock.bin")
    if profile.hash != bundle.hash:
        raise ConfigError("the times are of another bundle", where=str(bundle.path),
                          why=f"they are of {profile.bundle} for {profile.target}, whose files differ",
                          fix="name the bundle that is on the board")
    device, work = _device(bundle, measured.facts, profile), work_of(bundle)
    target = _target(bundle.plan.target, device)
    modelled = None if target.rates is None else model(bundle.plan, work, target, WhatIf())
    record = BoardRecord(
        FORMAT, VERSION, "", "", measured.facts["date"], importlib.metadata.version("vlacompile"), device,
        BundleOf(bundle.plan.name, bundle.hash, bundle.plan.target), measured.self_test, profile.replans,
        profile.warm_up, profile.threads, tuple(_stages(bundle, work, profile, modelled, lock)), _sensors(profile),
        _times(profile.series.get("same")), _times(profile.series.get("new")), _built(lock),
        _modelled(modelled, target))
    kind, _ = kind_of(record)
    return BoardRecord(**{**vars(record), "kind": kind, "label": KINDS[kind]})


def _device(bundle: Bundle, facts: Mapping[str, str], profile: Profile) -> Device:
    found = device_of("", [*facts.items(), ("root", ""), ("free_kib", "0")], None)
    machine, mode = profile.machine, facts.get("mode_id")
    return Device(bundle.plan.target.partition("@")[0], facts["arch"], machine["architecture"], machine["cpu"],
                  machine["cores"], float(machine["memory_gb"]), facts["kernel"], facts.get("model", "").strip(),
                  facts.get("compatible", "").strip(), found.l4t, facts.get("mode"),
                  None if mode is None else int(mode))


def _target(name: str, device: Device) -> Target:
    """The bundle's, in the power mode that the device was in."""
    board, _, rest = name.partition("@")
    _, plus, software = rest.partition("+")
    known = {m.name for m in modes_of(board)} if rest else set()
    return load_target(f"{board}@{device.mode}{plus}{software}" if device.mode in known else name)


def _times(series: Series | None) -> Times | None:
    if series is None or not series.us:
        return None
    return Times(len(series.us), series.median / 1e3, max(series.at(0.95), series.median) / 1e3, max(series.us) / 1e3)


def _stages(bundle: Bundle, work: Sequence[StageWork], profile: Profile, modelled: Modelled | None,
            lock: dict | None) -> Iterable[Stage]:
    times: dict[str, StageTime] = {} if modelled is None else {s.stage: s for s in modelled.stages}
    engines = {e["stage"]: e for e in lock["engines"]} if lock else {}
    always = {s.name for s in bundle.plan.stages} if modelled is None else {n for n, t in times.items() if t.every}
    for stage, w in zip(bundle.plan.stages, work, strict=True):
        alike = Counter((k.kind, k.scheme, k.rows, k.operations, k.stored, k.weights) for k in w.kernels)
        e = engines.get(stage.name)
        yield Stage(stage.name, stage.iterations, stage.name in always,
                    tuple(Product(count, *key) for key, count in alike.items()),
                    _times(profile.series.get(f"stage {stage.name}")),
                    times[stage.name].total / 1e3 if stage.name in times else None,
                    None if e is None else Engine(e["bytes"], e["scratch_bytes"], e["build_s"], e["build_peak_bytes"]),
                    stage.end is not None)


def _built(lock: dict | None) -> Built | None:
    return None if lock is None else Built(**{k: lock[k] for k in Built.__dataclass_fields__})


def _modelled(m: Modelled | None, target: Target) -> ModelledAs | None:
    error = None if target.board is None else bands().time
    return None if m is None else ModelledAs(m.target, m.same / 1e3, m.new / 1e3, m.memory / 1e6, error, m.watts,
                                             m.joules)


def _sensors(profile: Profile) -> Sensors:
    seen = profile.during or (profile.before, profile.after)
    every = (*seen, profile.after)
    rails = dict.fromkeys(rail for r in seen for rail in r.watts)
    heat = [c for r in every for c in r.celsius.values()]
    memory = [r.memory_mb for r in every if r.memory_mb is not None]
    return Sensors(len(profile.during), profile.sensors, *(_range([getattr(r, k) for r in seen]) for k in
                                                           ("gpu_mhz", "emc_mhz", "cpu_mhz")),
                   {rail: found for rail in rails if (found := _range([r.watts.get(rail) for r in seen])) is not None},
                   dict(profile.before.watts), max(heat, default=None), max(memory, default=None),
                   _throttled(profile.before, every))


def _throttled(before: Reading, later: Sequence[Reading]) -> dict[str, int]:
    """Events since `before`; states as they were at most."""
    found = {}
    for name in dict.fromkeys(n for r in later for n in r.throttled):
        most = max(r.throttled.get(name, 0) for r in later)
        more = most - before.throttled.get(name, 0) if name.startswith(OVER_CURRENT) else most
        if more > 0:
            found[name] = more
    return found


def _range(numbers: Sequence[float | None]) -> Range | None:
    known = [x for x in numbers if x is not None]
    return Range(min(known), statistics.median(known), max(known)) if known else None
