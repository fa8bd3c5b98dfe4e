"""Replays golden frames through libvlart and compares every expected value."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from vlart.bundle.directory import check_files, read_bundle
from vlart.errors import ParityError, RuntimeFailure
from vlart.runtime.session import RECORDED, Session
from vlart.verify.frames import Frame, golden_frames
from vlart.verify.metrics import Comparison, Metrics, examine
from vlart.verify.reference_actions import ActionReference, NotDecoded
from vlart.verify.tolerances import Scale, tolerance
from vlart.verify.trial import try_bundle


@dataclass(frozen=True)
class ValueParity:
    """For each metric of one value, the frame that came closest to its limit or exceeded it most: the metric there
    (`worst`) and its limit there (`limit`)."""

    value: str
    # "stage", "chunk"; "action": a popped action; "policy": a chunk against the policy in full precision; "length": a
    # chunk of a text that is padded less, against the longest padding
    level: str
    frames: int
    worst: Metrics
    limit: Metrics
    passed: bool
    failed: tuple[str, Comparison] | None = None  # the first frame that differs: its label, metrics and limits


@dataclass(frozen=True)
class ParityReport:
    bundle: str
    frames: int
    values: tuple[ValueParity, ...]
    runs: dict[str, int]  # stage: how often it ran over the frames
    stand_in: bool = False  # ONNX Runtime ran stages that TensorRT runs on the board
    steps: int = 1  # in a row through which values were carried, and errors with them

    @property
    def passed(self) -> bool:
        return bool(self.values) and all(v.passed for v in self.values)

    def as_dict(self) -> dict:
        return {"bundle": self.bundle, "frames": self.frames, "passed": self.passed, "runs": self.runs,
                "stand_in": self.stand_in, "steps": self.steps,
                "values": [asdict(v) for v in self.values]}

    def require(self, building: str | None = None) -> ParityReport:
        """Raise ParityError naming the first value in execution order that differs. building: the path of the bundle
        being built, which is then not written."""
        if not self.values:
            raise ParityError("nothing was compared", where=building or self.bundle,
                              why=f"{self.frames} frames expect no value", fix="replay frames that expect values")
        for v in self.values:
            if not v.passed:
                of = {"action": "its NumPy reference", "length": "PyTorch with the longest padding",
                      "policy": "the policy in full precision, by more than when it was "
                      "built,"}.get(v.level, "PyTorch")
                assert v.failed is not None
                label, found = v.failed
                raise ParityError(
                    f'"{v.value}" differs from {of}', where=f'{building or self.bundle}, frame "{label}" of {v.frames}',
                    why=found.text(),
                    fix="the bundle was not written: the engine computes this value differently from PyTorch; report "
                        "it with "
                    "this policy, or keep the layers behind the value in fp32 by a rule of the recipe" if building else
                    "run `vlacompile verify --json` to see every value; values are in execution order, so the "
                    "first one that differs names the stage at fault")
        return self


def replay(path: str | Path, frames: list[Frame], outputs: tuple[str, ...], *, threads: int = 0,
           stand_in: bool = False, native_code: bool = False) -> ParityReport:
    """Write, step and compare each frame in one session, so that caches behave as on the robot. stand_in, native_code:
    as Session's."""
    tally = Tally()
    with Session(path, threads=threads, stand_in=stand_in, accept=RECORDED, native_code=native_code) as session:
        session.select(None)
        reference = ActionReference(Path(path), session.plan) if session.plan.action else None
        for frame in frames:
            if frame.begins:
                session.reset()
                reference = ActionReference(Path(path), session.plan) if session.plan.action else None
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
            _compare_lengths(session, frame, tally)
            if reference is not None and reference.applies:
                _pop_and_compare(session, reference, refused, kept, tally, frame.label)
        runs, carries = session.stats().runs(), bool(session.plan.carried)
    return ParityReport(str(path), len(frames), tally.rows(), runs, stand_in, _in_a_row(frames) if carries else 1)


def _compare_lengths(session: Session, frame: Frame, tally: Tally) -> None:
    """Of a policy at several lengths of its text: every one that holds the text, against the longest in PyTorch."""
    plan = session.plan
    if not plan.buckets:
        return
    names = [plan.values[b.value].name for b in plan.backbones]
    want = frame.references.get(names[-1]) or frame.expects.get(names[-1])
    if want is None:
        return
    mask = session.read(plan.values[plan.buckets[0].mask].name)[0]
    seen = np.flatnonzero(mask[::-1] if plan.buckets[0].side == "left" else mask)
    used = int(seen[-1]) + 1 if len(seen) else plan.buckets[-1].length
    for name, bucket in list(zip(names, plan.buckets, strict=True))[:-1]:
        if used <= bucket.length:
            tally.add(name, "length", session.read(name), want.array, want.limit, frame.label)


def _in_a_row(frames: list[Frame]) -> int:
    """The most steps of an episode."""
    begins = [i for i, frame in enumerate(frames) if frame.begins or i == 0]
    return max((b - a for a, b in itertools.pairwise([*begins, len(frames)])), default=1)


class Tally:
    """The metrics closest to their limits per value, in the order of the first comparison."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], ValueParity] = {}

    def add(self, name: str, level: str, got: np.ndarray, want: np.ndarray, limit: Metrics, frame: str) -> None:
        found = examine(got, want, limit)
        row = self._rows.get((name, level), ValueParity(name, level, 0, found.got, found.limit, True))
        worst, its_limit = _nearest((found.got, found.limit), (row.worst, row.limit))
        self._rows[name, level] = ValueParity(name, level, row.frames + 1, worst, its_limit,
                                              row.passed and found.passed,
                                              row.failed or (None if found.passed else (frame, found)))

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
        reference.publish(chunk, b"".join(session.read(n).tobytes() for n in reference.task_sources))
    count = min(action.execute_steps, session.queue().remaining)
    scale = Scale.alone(reference.predictions, action.action_dim)
    got, want = _popped(session, reference, count)
    if len(got):
        tally.add("actions", "action", got, want, tolerance("f32", "action").limit(want, scale), label)


def _popped(session: Session, reference: ActionReference, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The actions of both, up to one that both refuse: golden frames are no motion, a rate limit may end a chunk."""
    got: list[np.ndarray] = []
    want: list[np.ndarray] = []
    while len(got) < count:
        want.append(reference.pop())
        try:
            got.append(session.pop())
        except RuntimeFailure as failure:
            if failure.status != "ACTION_TOO_FAR":
                raise
            got.append(np.full(reference.action.action_dim, np.nan))
        if np.isnan(got[-1]).any() and np.isnan(want[-1]).any():
            return np.stack(got)[:-1], np.stack(want)[:-1].astype(np.float32)
        if np.isnan(got[-1]).any() or np.isnan(want[-1]).any():
            break  # the comparison fails
    return np.stack(got), np.stack(want).astype(np.float32)


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


def verify(path: str | Path, *, threads: int = 0, stand_in: bool = False, native_code: bool = False) -> ParityReport:
    """Check every file of a bundle against its manifest, then replay its golden vectors through libvlart (stand_in,
    native_code: as Session's), first in a child process with limits. Raises BundleError for damage and for a bundle
    without golden vectors, RuntimeFailure for one that does not run; a difference is reported in the result
    (`report.passed`, `report.require()`)."""
    bundle = read_bundle(path)
    check_files(bundle)
    frames = golden_frames(Path(path))
    try_bundle(path, threads=threads, stand_in=stand_in, native_code=native_code)
    outputs = tuple(bundle.manifest["provenance"]["outputs"])
    return replay(path, frames, outputs, threads=threads, stand_in=stand_in, native_code=native_code)

