"""Measures bundles on this machine, replan by replan through libvlart and per stage, and compares two records.

Owns the protocol (a new observation per replan, a new instruction every fifth; several bundles in alternating rounds,
so
that other load on the machine affects all of them equally) and the record `profile.json`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from scipy import stats

from vlacompile.profile import machine
from vlacompile.profile.jetson_sensors import Reading, course
from vlacompile.profile.jetson_stats import SYSFS, Sensors, open_sensors
from vlart.bundle.directory import GOLDEN_FILE, Bundle
from vlart.bundle.plan.plan import Plan
from vlart.errors import BundleError, RuntimeFailure
from vlart.files.atomic import write_file
from vlart.runtime.session import RECORDED, Session
from vlart.verify.frames import Frame, read_frames
from vlart.vocabulary import NOT_ENDED

NEW_INSTRUCTION = 5  # replans per instruction
READING_EVERY_S, MOST_READINGS = 0.5, 64
ROUND = 10  # replans of one bundle per round: each round has equally many new instructions
VERSION = 1


@dataclass(frozen=True)
class Series:
    """Latencies in us, in the order of measurement."""

    us: tuple[float, ...]

    def at(self, share: float) -> float:
        """The quantile: the smallest latency that this share does not exceed."""
        ordered = sorted(self.us)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def median(self) -> float:
        return statistics.median(self.us)


@dataclass(frozen=True)
class Profile:
    """One measurement. series: "same" and "new" (replans with the same, with a new instruction), "write" (input copy),
    "pop" (one action), and "stage NAME" (all iterations of a loop). unchanged: sources whose content could not be
    varied, so that stages depending on them alone did not run again. before, after: sensor readings, if available;
    during: readings between replans, at least READING_EVERY_S apart. iterations: {stage whose loop the data ends: how
    many ran, in the mean}. sensors: what the readings are from, "sysfs" or "jtop"."""

    bundle: str
    hash: str
    target: str
    machine: dict
    threads: int
    warm_up: int
    replans: int
    series: Mapping[str, Series]
    unchanged: tuple[str, ...]
    before: Reading
    after: Reading
    alternated: bool = False  # measured in rounds with other bundles
    during: tuple[Reading, ...] = ()
    version: int = VERSION
    iterations: Mapping[str, float] = field(default_factory=dict)
    sensors: str = SYSFS

    def fared(self) -> str:
        """Summary of a board's sensors during the measurement, for a person; "" without sensors."""
        return course(self.before, self.during, self.after)

    def as_dict(self) -> dict:
        return asdict(self) | {"series": {n: [round(x, 2) for x in s.us] for n, s in self.series.items()}}


def measure(bundle: Bundle, *, replans: int = 200, warm_up: int = 20, threads: int = 1, native_code: bool = False,
            power_mode: str | None = None, jetson_clocks: bool | None = None,
            progress: Callable[[int], None] = lambda done: None) -> Profile:
    """Replan `warm_up` + `replans` times; the rest as measure_together's."""
    return measure_together([bundle], replans=replans, warm_up=warm_up, threads=threads, native_code=native_code,
                            power_mode=power_mode, jetson_clocks=jetson_clocks, progress=progress)[0]


def measure_together(bundles: Sequence[Bundle], *, replans: int = 200, warm_up: int = 20, threads: int = 1,
                     native_code: bool = False, power_mode: str | None = None, jetson_clocks: bool | None = None,
                     progress: Callable[[int], None] = lambda done: None) -> tuple[Profile, ...]:
    """Replan each `warm_up` + `replans` times, all sessions open, in rounds of ROUND replans each; the order is
    reversed from round to round. threads, native_code: as Session's. power_mode, jetson_clocks: of a Jetson, set
    before and set back at the end. progress: called with the number of all replans done. Raises RuntimeFailure with
    libvlart's message, ConfigError if the board does not take mode or clocks."""
    with contextlib.ExitStack() as stack:
        read_sensors = stack.enter_context(open_sensors())
        stack.enter_context(read_sensors.power(power_mode, jetson_clocks))
        sessions = [stack.enter_context(Session(b.path, threads=threads, accept=RECORDED, native_code=native_code))
                    for b in bundles]
        runs = [MeasuredSession(b, session, warm_up) for b, session in zip(bundles, sessions, strict=True)]
        before, total, done = read_sensors(), warm_up + replans, 0
        readings = _Readings(read_sensors)
        for number, first in enumerate(range(0, total, ROUND)):
            for run in runs if number % 2 == 0 else runs[::-1]:
                for _ in range(min(ROUND, total - first)):
                    run.replan()
                    done += 1
                    progress(done)
                    if run.count > warm_up:
                        readings.take()
        after, ran = read_sensors(), [r.iterations() for r in runs]
    about = machine.describe()
    return tuple(Profile(r.bundle.plan.name, r.bundle.hash, r.bundle.plan.target, about, threads, warm_up, replans,
                         {n: Series(tuple(us)) for n, us in r.found.items() if us}, r.unchanged, before, after,
                         len(runs) > 1, tuple(readings.kept), iterations=i,
                         sensors=read_sensors.source) for r, i in zip(runs, ran, strict=True))


class _Readings:
    """Sensor readings between replans, of bounded number: when full, every other one is dropped and the interval is
    doubled."""

    def __init__(self, read_sensors: Sensors) -> None:
        self.kept: list[Reading] = []
        self._read_sensors = read_sensors
        self._every, self._next = READING_EVERY_S, 0.0

    def take(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        if len(self.kept) == MOST_READINGS:
            del self.kept[1::2]
            self._every *= 2
        self.kept.append(self._read_sensors())
        self._next = now + self._every


class MeasuredSession:
    """A session being measured, with its latencies so far."""

    def __init__(self, bundle: Bundle, session: Session, warm_up: int):
        self.bundle, self.session, self.warm_up, self.count = bundle, session, warm_up, 0
        if bundle.plan.backbones:
            session.select(bundle.plan.backbones[0].name)
        self.contents, self.unchanged = _contents(bundle, read_frames(bundle.path / GOLDEN_FILE))
        self.tasks = {bundle.plan.values[s.value].name for s in bundle.plan.sources if s.update == "task"}
        self.found: dict[str, list[float]] = {n: [] for n in ("same", "new", "write", "pop")}
        self.found |= {f"stage {s.name}": [] for s in bundle.plan.stages}

    def replan(self) -> None:
        timed = _replan(self.session, self.contents, self.tasks, self.count)
        if self.count >= self.warm_up:
            for name, us in timed:
                self.found[name].append(us)
        self.count += 1

    def iterations(self) -> dict[str, float]:
        """As Profile's; of all replans."""
        ran = self.session.stats().stages
        return {s.name: ran[s.name].mean_iterations for s in self.bundle.plan.stages if s.end is not None}


def _contents(bundle: Bundle, frames: Sequence[Frame]) -> tuple[dict[str, list[np.ndarray]], tuple[str, ...]]:
    """Per source, the distinct contents written by the golden frames; a single float content is perturbed to get a
    second."""
    found: dict[str, list[np.ndarray]] = {}
    own = set(bundle.plan.source_names())  # with several backbones, those of the one that is run
    for frame in frames:
        for name, array in ((n, _fitting(bundle.plan, n, a)) for n, a in frame.writes.items() if n in own):
            if not any(np.array_equal(array, seen) for seen in found.setdefault(name, [])):
                found[name].append(array)
    for arrays in found.values():
        if len(arrays) == 1 and np.issubdtype(arrays[0].dtype, np.floating):
            arrays.append(arrays[0] + arrays[0].dtype.type(1e-3))
    return found, tuple(n for n, arrays in found.items() if len(arrays) == 1)


def _fitting(plan: Plan, name: str, array: np.ndarray) -> np.ndarray:
    """Of the mask of a policy at several lengths of its text, what this length reads: longer texts run in another."""
    if not plan.buckets or name != plan.values[plan.buckets[0].mask].name:
        return array
    bucket, place = plan.buckets[0], np.arange(array.shape[1])
    return array & ((place if bucket.side == "right" else place[::-1]) < bucket.length)


def _replan(session: Session, contents: Mapping[str, list[np.ndarray]], tasks: set[str],
            i: int) -> list[tuple[str, float]]:
    """(series, us) of one replan: write the inputs, step, pop the first action."""
    begin = time.perf_counter_ns()
    for name, arrays in contents.items():
        session.write(name, arrays[(i // NEW_INSTRUCTION if name in tasks else i) % len(arrays)])
    written = time.perf_counter_ns()
    runs = session.stats().runs()
    started = time.perf_counter_ns()
    try:
        session.step()
    except RuntimeFailure as error:
        if error.status != NOT_ENDED:  # golden frames in another mixture: the loop took the longest that it may
            raise
    stepped = time.perf_counter_ns()
    ran = {n: s.last_us for n, s in session.stats().stages.items() if s.runs > runs[n]}
    kind = "new" if any(len(contents[n]) > 1 for n in tasks & set(contents)) and i % NEW_INSTRUCTION == 0 else "same"
    timed = [(kind, (stepped - started) / 1e3), ("write", (written - begin) / 1e3)]
    if session.plan.action is not None and session.queue().remaining:
        began = time.perf_counter_ns()
        with contextlib.suppress(RuntimeFailure):  # a rate limit may refuse it: golden frames are no motion
            session.pop()
        timed.append(("pop", (time.perf_counter_ns() - began) / 1e3))
    return timed + [(f"stage {n}", us) for n, us in ran.items()]


def place_of(profile: Profile, folder: Path) -> Path:
    """Path of a profile in a folder of profiles: by target, then by the bundle's hash."""
    return folder / profile.target / f"{profile.hash[:16]}.json"


def write_profile(profile: Profile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(profile.as_dict(), indent=1) + "\n").encode())


def read_profile(path: Path) -> Profile:
    """Raises BundleError if the file is not a profile."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise ValueError(f'version {document["version"]}, this version of vlacompile reads {VERSION}')
        document["series"] = {n: Series(tuple(float(x) for x in us)) for n, us in document["series"].items() if us}
        document["unchanged"] = tuple(document["unchanged"])
        document |= {k: Reading(**document[k]) for k in ("before", "after")}
        document["during"] = tuple(Reading(**r) for r in document.get("during", ()))
        document.setdefault("iterations", {})
        document.setdefault("sensors", SYSFS)
        document.setdefault("alternated", False)  # files written before rounds existed
        document.setdefault("hash", _checksums(document["files"]) if "files" in document else None)
        if not isinstance(document["hash"], str):
            raise ValueError("it names no bundle")
        return Profile(**{f.name: document[f.name] for f in fields(Profile)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError("a profile cannot be read", where=str(path), why=f"{type(error).__name__}: {error}",
                          fix="write it again: `vlacompile profile BUNDLE --measure -o FILE`") from error


def read_of(path: Path, bundle: Bundle) -> Profile:
    """The profile in a file, or this bundle's in a folder written by -o. Raises BundleError."""
    if path.is_dir():
        path = path / bundle.plan.target / f"{bundle.hash[:16]}.json"
    found = read_profile(path)
    return replace(found, hash=bundle.hash) if found.hash == _checksums([f.crc32 for f in bundle.plan.files]) else found


def _checksums(files: Sequence[int]) -> str:
    """Substitute for a bundle's hash in a profile by vlart-run, which only has its files' checksums."""
    return "crc32 of files " + hashlib.sha256(json.dumps(list(files)).encode()).hexdigest()


@dataclass(frozen=True)
class Difference:
    """Comparison of one series in two profiles, us. p: two-sided p-value; with `turns`: of the medians of paired rounds
    (Wilcoxon signed-rank), because successive latencies are correlated and count for less than their number; else of
    all latencies (Mann-Whitney U). ratio: of the medians, second over first."""

    series: str
    first: float
    second: float
    p: float
    turns: bool = False

    @property
    def ratio(self) -> float:
        return self.second / self.first


SIGNIFICANT = 0.01
LEAST_ROUNDS = 10  # the fewest rounds with which a signed-rank test can reach SIGNIFICANT


def compare_profiles(first: Profile, second: Profile) -> tuple[Difference, ...]:
    """The series of both, in the order of the first."""
    together = first.alternated and second.alternated and first.replans == second.replans
    found = []
    for name, s in first.series.items():
        if name in second.series:
            other = second.series[name]
            rounds = (_rounds(s, first.replans), _rounds(other, second.replans)) if together else ((), ())
            turns = LEAST_ROUNDS <= len(rounds[0]) == len(rounds[1])
            p = _paired(*rounds) if turns else stats.mannwhitneyu(s.us, other.us, alternative="two-sided").pvalue
            found.append(Difference(name, s.median, other.median, float(p), turns))
    return tuple(found)


def _rounds(series: Series, replans: int) -> tuple[float, ...]:
    """The median of every round; empty if the rounds do not all have the same number of values."""
    each, rest = divmod(len(series.us) * ROUND, replans)
    if rest or not each or len(series.us) % each:
        return ()
    return tuple(statistics.median(series.us[i:i + each]) for i in range(0, len(series.us), each))


def _paired(first: Sequence[float], second: Sequence[float]) -> float:
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return stats.wilcoxon(differences).pvalue if any(differences) else 1.0
