"""Replays golden frames through libvlart and compares every expected value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vlacompile.bundle.bundle import GOLDEN_FILE, check_files, read_bundle
from vlacompile.errors import ParityError, RuntimeFailure
from vlacompile.runtime.session import Session
from vlacompile.verify.actions import ActionReference, NotDecoded
from vlacompile.verify.frames import Frame, read_frames
from vlacompile.verify.metrics import Metrics, compare
from vlacompile.verify.tolerances import tolerance


@dataclass(frozen=True)
class ValueParity:
    """Worst metrics of one value over all frames, and the tightest limits that applied."""

    value: str
    level: str  # "stage", "chunk", or "action": what was popped
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
                of = "its NumPy reference" if v.level == "action" else "PyTorch"
                raise ParityError(
                    f'"{v.value}" differs from {of}', where=f"{self.bundle}, worst of {v.frames} frames",
                    why=f"max_abs {v.worst.max_abs:.3g} (limit {v.limit.max_abs:.3g}), rel_l2 {v.worst.rel_l2:.3g} "
                    f"({v.limit.rel_l2:.3g}), cosine {v.worst.cosine:.7f} ({v.limit.cosine})",
                    fix="run `vlacompile verify --json` to see every value; values are in execution order, so the "
                    "first one that differs names the stage at fault")
        return self


def replay(path: str | Path, frames: list[Frame], outputs: tuple[str, ...], *, threads: int = 0) -> ParityReport:
    """Write, step and compare each frame in one session: caches act as on the robot."""
    tally = _Tally()
    with Session(path, threads=threads) as session:
        reference = ActionReference(Path(path), session.plan) if session.plan.action else None
        for frame in frames:
            for name, array in frame.writes.items():
                session.write(name, array)
            before = session.queue()
            refused = _step(session)
            kept = before.remaining > 0 and session.queue().chunks == before.chunks  # nothing asks for a new chunk
            for name, expected in frame.expects.items():
                tally.add(name, "chunk" if name in outputs else "stage", session.read(name), expected.array,
                          expected.limit)
            if reference is not None and reference.applies:
                _pop_and_compare(session, reference, refused, kept, tally)
        runs = session.stats().runs()
    return ParityReport(str(path), len(frames), tally.rows(), runs)


class _Tally:
    """Worst metrics per value, in the order of the first comparison."""

    def __init__(self) -> None:
        self._rows: dict[str, ValueParity] = {}

    def add(self, name: str, level: str, got: np.ndarray, want: np.ndarray, limit: Metrics) -> None:
        metrics = compare(got, want)
        row = self._rows.get(name, ValueParity(name, level, 0, metrics, limit, True))
        self._rows[name] = ValueParity(name, level, row.frames + 1, metrics.worst(row.worst),
                                       _tighter(limit, row.limit), row.passed and metrics.within(limit))

    def rows(self) -> tuple[ValueParity, ...]:
        return tuple(self._rows.values())


def _step(session: Session) -> bool:
    """Whether the tokens were refused: golden inputs are disturbed, and tokens for them may be no actions."""
    try:
        session.step()
    except RuntimeFailure as failure:
        if failure.status != "ACTION_NOT_DECODED":
            raise
        return True
    return False


def _pop_and_compare(session: Session, reference: ActionReference, refused: bool, kept: bool, tally: _Tally) -> None:
    action, plan = reference.action, session.plan
    try:
        chunk = reference.decode(session.read(plan.values[action.value].name),
                                 {n: session.read(n) for n in reference.sources})
    except NotDecoded:
        chunk = None
    if refused or chunk is None:
        agree = np.array([refused], np.float64), np.array([chunk is None], np.float64)
        tally.add("refused tokens", "action", *agree, Metrics(0.0, 0.0, 1.0))
        return
    if not kept:
        reference.publish(chunk)
    count = min(action.execute_steps, session.queue().remaining)
    got = np.stack([session.pop() for _ in range(count)])
    want = np.stack([reference.pop() for _ in range(count)]).astype(np.float32)
    tally.add("actions", "action", got, want, tolerance("f32", "action").limit(want))


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

