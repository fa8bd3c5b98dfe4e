"""Replays golden frames through libvlart and compares every expected value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from vlacompile.bundle.directory import GOLDEN_FILE, check_files, read_bundle
from vlacompile.errors import ParityError, RuntimeFailure
from vlacompile.runtime.session import RECORDED, Session
from vlacompile.verify.frames import Frame, read_frames
from vlacompile.verify.metrics import Metrics, compare
from vlacompile.verify.reference_actions import ActionReference, NotDecoded
from vlacompile.verify.tolerances import tolerance


@dataclass(frozen=True)
class ValueParity:
    """For each metric of one value, the frame that came closest to its limit or exceeded it most: the metric there
    (`worst`) and its limit there (`limit`)."""

    value: str
    level: str  # "stage", "chunk"; "action": a popped action; "policy": a chunk against the policy in full precision
    frames: int
    worst: Metrics
    limit: Metrics
    passed: bool
    failed: tuple[str, Metrics, Metrics] | None = None  # the first frame that differs: its label, metrics and limits


@dataclass(frozen=True)
class ParityReport:
    bundle: str
    frames: int
    values: tuple[ValueParity, ...]
    runs: dict[str, int]  # stage: how often it ran over the frames
    stand_in: bool = False  # ONNX Runtime ran stages that TensorRT runs on the board

    @property
    def passed(self) -> bool:
        return all(v.passed for v in self.values)

    def as_dict(self) -> dict:
        return {"bundle": self.bundle, "frames": self.frames, "passed": self.passed, "runs": self.runs,
                "stand_in": self.stand_in,
                "values": [asdict(v) for v in self.values]}

    def require(self, building: str | None = None) -> ParityReport:
        """Raise ParityError naming the first value in execution order that differs. building: the path of the bundle
        being built, which is then not written."""
        for v in self.values:
            if not v.passed:
                of = {"action": "its NumPy reference",
                      "policy": "the policy in full precision, by more than when it was "
                      "built,"}.get(v.level, "PyTorch")
                assert v.failed is not None
                label, got, limit = v.failed
                raise ParityError(
                    f'"{v.value}" differs from {of}', where=f'{building or self.bundle}, frame "{label}" of {v.frames}',
                    why=f"max_abs {got.max_abs:.3g} (limit {limit.max_abs:.3g}), rel_l2 {got.rel_l2:.3g} "
                    f"({limit.rel_l2:.3g}), cosine {got.cosine:.7f} ({limit.cosine})",
                    fix="the bundle was not written: the engine computes this value differently from PyTorch; report "
                        "it with "
                    "this policy, or keep the layers behind the value in fp32 by a rule of the recipe" if building else
                    "run `vlacompile verify --json` to see every value; values are in execution order, so the "
                    "first one that differs names the stage at fault")
        return self


def replay(path: str | Path, frames: list[Frame], outputs: tuple[str, ...], *, threads: int = 0,
           stand_in: bool = False) -> ParityReport:
    """Write, step and compare each frame in one session, so that caches behave as on the robot. stand_in: as
    Session's."""
    tally = Tally()
    with Session(path, threads=threads, stand_in=stand_in, accept=RECORDED) as session:
        session.select(None)
        reference = ActionReference(Path(path), session.plan) if session.plan.action else None
        for frame in frames:
            for name, array in frame.writes.items():
                session.write(name, array)
            before = session.queue()
            refused = _step(session)
            kept = before.remaining > 0 and session.queue().chunks == before.chunks  # no new chunk is due
            for name, expected in frame.expects.items():
                tally.add(name, "chunk" if name in outputs else "stage", session.read(name), expected.array,
                          expected.limit, frame.label)
            for name, expected in frame.references.items():
                tally.add(name, "policy", session.read(name), expected.array, expected.limit, frame.label)
            if reference is not None and reference.applies:
                _pop_and_compare(session, reference, refused, kept, tally, frame.label)
        runs = session.stats().runs()
    return ParityReport(str(path), len(frames), tally.rows(), runs, stand_in)


class Tally:
    """The metrics closest to their limits per value, in the order of the first comparison."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], ValueParity] = {}

    def add(self, name: str, level: str, got: np.ndarray, want: np.ndarray, limit: Metrics, frame: str) -> None:
        metrics = compare(got, want)
        good = metrics.within(limit)
        row = self._rows.get((name, level), ValueParity(name, level, 0, metrics, limit, True))
        worst, its_limit = _nearest((metrics, limit), (row.worst, row.limit))
        self._rows[name, level] = ValueParity(name, level, row.frames + 1, worst, its_limit, row.passed and good,
                                             row.failed or (None if good else (frame, metrics, limit)))

    def rows(self) -> tuple[ValueParity, ...]:
        return tuple(self._rows.values())


def _step(session: Session) -> bool:
    """Whether the tokens were refused: golden inputs are perturbed, and their tokens may not decode to actions."""
    try:
        session.step()
    except RuntimeFailure as failure:
        if failure.status != "ACTION_NOT_DECODED":
            raise
        return True
    return False


def _pop_and_compare(session: Session, reference: ActionReference, refused: bool, kept: bool, tally: Tally,
                     label: str) -> None:
    action, plan = reference.action, session.plan
    try:
        chunk = reference.decode(session.read(plan.values[action.value].name),
                                 {n: session.read(n) for n in reference.sources})
    except NotDecoded:
        chunk = None
    if refused or chunk is None:
        agree = np.array([refused], np.float64), np.array([chunk is None], np.float64)
        tally.add("refused tokens", "action", *agree, Metrics(0.0, 0.0, 1.0), label)
        return
    if not kept:
        reference.publish(chunk)
    count = min(action.execute_steps, session.queue().remaining)
    got = np.stack([session.pop() for _ in range(count)])
    want = np.stack([reference.pop() for _ in range(count)]).astype(np.float32)
    tally.add("actions", "action", got, want, tolerance("f32", "action").limit(want), label)


def _nearest(*pairs: tuple[Metrics, Metrics]) -> tuple[Metrics, Metrics]:
    """For each metric, the (metrics, limits) pair that uses the largest share of its limit. Limits differ from frame to
    frame: the worst metric of all frames next to the tightest limit of all could show a false failure or hide one."""
    def worst(name: str) -> tuple[Metrics, Metrics]:
        return max(pairs, key=lambda pair: _used(name, *pair))

    chosen = {f.name: worst(f.name) for f in fields(Metrics)}
    worst_of, limits = (Metrics(**{name: getattr(pair[i], name) for name, pair in chosen.items()}) for i in (0, 1))
    return worst_of, limits


def _used(name: str, metrics: Metrics, limit: Metrics) -> float:
    """The share of its limit that a metric uses; more than 1 fails."""
    got, most = getattr(metrics, name), getattr(limit, name)
    if name == "cosine":
        got, most = 1 - got, 1 - most
    if got != got or (got > 0 >= most):
        return float("inf")
    return got / most if got > 0 else 0.0


def verify(path: str | Path, *, threads: int = 0, stand_in: bool = False) -> ParityReport:
    """Check every file of a bundle against its manifest, then replay its golden vectors through
    libvlart (stand_in: as Session's). Raises BundleError for damage; a difference is reported in the result
    (`report.passed`, `report.require()`)."""
    bundle = read_bundle(path)
    check_files(bundle)
    outputs = tuple(bundle.manifest["provenance"]["outputs"])
    return replay(path, read_frames(Path(path) / GOLDEN_FILE), outputs, threads=threads, stand_in=stand_in)

