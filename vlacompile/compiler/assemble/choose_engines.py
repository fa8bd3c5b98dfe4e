"""Which engine of this machine runs each stage, and how many stages run at a time, by measurement: every stage is run
in each engine, and the whole policy in each division of the threads, interleaved, through libvlart.

An engine is offered the stages that it reads, and whose results in it are those of the golden frames. Must not write
but in a temporary folder.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from vlart.bundle.directory import write_bundle
from vlart.bundle.plan.plan import Concurrency, Plan
from vlart.errors import RuntimeFailure
from vlart.runtime.session import RECORDED, Session
from vlart.verify.frames import Frame
from vlart.verify.replay import replay

GAIN = 0.95  # what is not the default is chosen where its time is below this share of the default's
LOSS = 1.05  # unless, pair by pair and with what else runs on this machine, it takes longer than this share
LEAST_ROUNDS, MOST_ROUNDS, SECONDS = 7, 200, 3.0
DEFAULT = "onnxruntime"


@dataclass(frozen=True)
class EngineChoice:
    """engines: {stage: the chosen backend}. concurrency: threads of each engine, and stages at a time; None: nothing
    was timed. times: {stage: {backend: microseconds of one run}} with these threads, of stages with a choice. steps:
    {"threads x stages at a time": microseconds of a step in which every stage runs}, of several; all are tenth
    percentiles. notes: the same for a person, and what an engine was not offered."""

    engines: Mapping[str, str] = field(default_factory=dict)
    concurrency: Concurrency | None = None
    times: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def facts(self) -> dict:
        """For the manifest."""
        assert self.concurrency is not None
        return asdict(self.concurrency) | {"steps_us": dict(self.steps), "stages": {
            n: {"engine": self.engines[n], "us": dict(t)} for n, t in self.times.items()}}

    def applied(self, plan: Plan) -> Plan:
        return replace(with_engines(plan, self.engines), concurrency=self.concurrency)


def with_engines(plan: Plan, engines: Mapping[str, str]) -> Plan:
    """The plan with other engines for stages of the same ONNX files."""
    return replace(plan, stages=tuple(replace(s, backend=engines.get(s.name, s.backend)) for s in plan.stages))


def choose_engines(plan: Plan, contents: Mapping[str, bytes], frames: Sequence[Frame], outputs: tuple[str, ...],
                   others: Sequence[str], threads: int, progress: Callable[[str], None]) -> EngineChoice:
    """plan, contents: of the bundle in the target's engine, of which the stages of ONNX Runtime have a choice. others:
    further backends that are installed. threads: to be divided: all to one stage after the other, or one to each of as
    many stages."""
    with tempfile.TemporaryDirectory() as folder:
        trial = _Trial(Path(folder), plan, contents, frames, outputs)
        stages = [s.name for s in plan.stages if s.backend == DEFAULT]
        able = {other: trial.able(stages, other, progress) for other in others}
        notes = [f"engines: {n}: not in {other}: {why}" for other, found in able.items()
                 for n, why in found.items() if why]
        offered = {other: [n for n, why in found.items() if not why] for other, found in able.items()}
        divided = [Concurrency(1, 1)] + ([Concurrency(1, threads), Concurrency(threads, 1)] if threads > 1 else [])
        chosen = {}
        for count in sorted({d.threads for d in divided}):
            progress(f"time the stages in every engine, {count} thread(s)")
            chosen[count] = trial.fastest(stages, offered, count)
        steps: list[list[float]] = []
        if len(divided) > 1:
            progress("time the policy with the threads divided")
            steps = trial.steps([(chosen[d.threads][0], d) for d in divided])
    best = min(range(len(steps)), key=lambda i: _time(steps[i]), default=0)
    best = best if steps and _is_faster(steps[best], steps[0]) else 0
    engines, times = chosen[divided[best].threads]
    divisions = {f"{d.threads}x{d.parallel}": _time(s) for d, s in zip(divided, steps, strict=False)}
    notes += [f"engines: {n}: {engines[n]} ({_listed(t)})" for n, t in times.items()]
    if divisions:
        notes.append(f"threads: {divided[best].threads} of each engine, {divided[best].parallel} stages at a time "
                     f"({_listed(divisions)})")
    return EngineChoice(engines, divided[best], times, divisions, tuple(notes))


def _listed(times: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {us:g} us" for name, us in times.items())


def _is_faster(other: Sequence[float], default: Sequence[float]) -> bool:
    return (_time(other) < GAIN * _time(default)
            and statistics.median(b / a for a, b in zip(default, other, strict=True)) < LOSS)


def _time(times: Sequence[float]) -> float:
    """The tenth percentile: what else runs on this machine only adds, and to long runs most."""
    return round(statistics.quantiles(times, n=10, method="inclusive")[0], 1)


Chosen = tuple[dict[str, str], dict[str, dict[str, float]]]  # engines and times, as EngineChoice's


@dataclass(frozen=True)
class _Trial:
    folder: Path
    plan: Plan
    contents: Mapping[str, bytes]
    frames: Sequence[Frame]
    outputs: tuple[str, ...]

    def able(self, stages: Sequence[str], other: str, progress: Callable[[str], None]) -> dict[str, str]:
        """{stage: why the engine cannot have it, or ""}: all together, and where that fails each by itself."""
        progress(f"try the stages in {other}")
        if not self._refuses(stages, other):
            return dict.fromkeys(stages, "")
        return {name: self._refuses([name], other) for name in stages}

    def fastest(self, stages: Sequence[str], offered: Mapping[str, Collection[str]], threads: int) -> Chosen:
        """The engine of each stage, with so many threads."""
        engines, times = dict.fromkeys(stages, DEFAULT), {}
        for other, names in offered.items():
            if not names:
                continue
            alone = Concurrency(threads, 1)
            rounds = self._rounds([({}, alone), (dict.fromkeys(names, other), alone)])
            for name in names:
                ours, theirs = ([stages_us[name] for _, stages_us in seen] for seen in rounds)
                times[name] = {DEFAULT: _time(ours), other: _time(theirs)}
                if _is_faster(theirs, ours):
                    engines[name] = other
        return engines, times

    def steps(self, variants: Sequence[tuple[Mapping[str, str], Concurrency]]) -> list[list[float]]:
        """Microseconds of every step, of each variant."""
        return [[step_us for step_us, _ in seen] for seen in self._rounds(variants)]

    def _rounds(self, variants: Sequence[tuple[Mapping[str, str], Concurrency]]) \
            -> list[list[tuple[float, dict[str, float]]]]:
        """Of each variant of engines and threads, in every round: microseconds of a step and of its stages."""
        found: list[list[tuple[float, dict[str, float]]]] = [[] for _ in variants]
        with ExitStack() as stack:
            sessions = [stack.enter_context(Session(self._write(engines, f"{i}"), threads=c.threads,
                                                    parallel=c.parallel, accept=RECORDED, native_code=True))
                        for i, (engines, c) in enumerate(variants)]
            for session in sessions:
                session.select(None)
                self._step(session)
            end, turn = time.perf_counter() + SECONDS, list(range(len(variants)))
            while len(found[0]) < LEAST_ROUNDS or (len(found[0]) < MOST_ROUNDS and time.perf_counter() < end):
                for which in turn:
                    step_us = self._step(sessions[which])
                    stages = sessions[which].stats().stages
                    found[which].append((step_us, {name: s.last_us for name, s in stages.items()}))
                turn = [*turn[1:], turn[0]]
        return found

    def _step(self, session: Session) -> float:
        """Microseconds of every stage once, on the first frame."""
        session.invalidate()
        for name, array in self.frames[0].writes.items():
            session.write(name, array)
        began = time.perf_counter()
        try:
            session.step()
        except RuntimeFailure as failure:  # of golden tokens that are no action; the stages ran
            if failure.status != "ACTION_NOT_DECODED":
                raise
        return (time.perf_counter() - began) * 1e6

    def _refuses(self, stages: Collection[str], other: str) -> str:
        """Why the bundle with these stages in the other engine is not this policy; "": it is."""
        try:
            report = replay(self._write(dict.fromkeys(stages, other), other), list(self.frames), self.outputs,
                            threads=1, native_code=True)
        except RuntimeFailure as failure:
            return failure.why
        wrong = next((v.value for v in report.values if not v.passed), None)
        return "" if wrong is None else f'"{wrong}" differs from PyTorch'

    def _write(self, engines: Mapping[str, str], name: str) -> Path:
        return write_bundle(self.folder / f"{name}.vlab", with_engines(self.plan, engines), self.contents,
                            {"outputs": list(self.outputs)}, lambda path: None).path
