"""Replays golden frames through libvlart and compares every expected value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from vlacompile.bundle.bundle import GOLDEN_FILE, check_files, read_bundle
from vlacompile.errors import ParityError
from vlacompile.runtime.session import Session
from vlacompile.verify.frames import Frame, read_frames
from vlacompile.verify.metrics import Metrics, compare


@dataclass(frozen=True)
class ValueParity:
    """Worst metrics of one value over all frames, and the tightest limits that applied."""

    value: str
    level: str  # "stage" or "chunk"
    frames: int
    worst: Metrics
    limit: Metrics
    passed: bool


@dataclass(frozen=True)
class ParityReport:
    bundle: str
    frames: int
    values: tuple[ValueParity, ...]
    runs: dict[str, int]  # stage: how often it ran over the frames

    @property
    def passed(self) -> bool:
        return all(v.passed for v in self.values)

    def as_dict(self) -> dict:
        return {"bundle": self.bundle, "frames": self.frames, "passed": self.passed, "runs": self.runs,
                "values": [asdict(v) for v in self.values]}

    def require(self) -> ParityReport:
        """Raise ParityError naming the first value in execution order that differs."""
        for v in self.values:
            if not v.passed:
                raise ParityError(
                    f'"{v.value}" differs from PyTorch', where=f"{self.bundle}, worst of {v.frames} frames",
                    why=f"max_abs {v.worst.max_abs:.3g} (limit {v.limit.max_abs:.3g}), rel_l2 {v.worst.rel_l2:.3g} "
                    f"({v.limit.rel_l2:.3g}), cosine {v.worst.cosine:.7f} ({v.limit.cosine})",
                    fix="run `vlacompile verify --json` to see every value; values are in execution order, so the "
                    "first one that differs names the stage at fault")
        return self


def replay(path: str | Path, frames: list[Frame], outputs: tuple[str, ...], *, threads: int = 0) -> ParityReport:
    """Write, step and compare each frame in one session: caches act as on the robot."""
    worst: dict[str, Metrics] = {}
    limit: dict[str, Metrics] = {}
    failed, count = set(), {}
    with Session(path, threads=threads) as session:
        for frame in frames:
            for name, array in frame.writes.items():
                session.write(name, array)
            session.step()
            for name, expected in frame.expects.items():
                got = compare(session.read(name), expected.array)
                worst[name] = got.worst(worst.get(name, got))
                limit[name] = _tighter(expected.limit, limit.get(name, expected.limit))
                count[name] = count.get(name, 0) + 1
                if not got.within(expected.limit):
                    failed.add(name)
        runs = session.stats().runs()
    values = tuple(ValueParity(n, "chunk" if n in outputs else "stage", count[n], worst[n], limit[n], n not in failed)
                   for n in worst)
    return ParityReport(str(path), len(frames), values, runs)


def _tighter(a: Metrics, b: Metrics) -> Metrics:
    return Metrics(min(a.max_abs, b.max_abs), min(a.rel_l2, b.rel_l2), max(a.cosine, b.cosine))


def verify(path: str | Path, *, threads: int = 0) -> ParityReport:
    """Check every file of a bundle against its manifest, then replay its golden vectors through
    libvlart. Raises BundleError for damage; a difference is in the report (`report.passed`,
    `report.require()`)."""
    bundle = read_bundle(path)
    check_files(bundle)
    outputs = tuple(bundle.manifest["provenance"]["outputs"])
    return replay(path, read_frames(Path(path) / GOLDEN_FILE), outputs, threads=threads)

