"""A bundle run beside its policy: sources written in every order, outputs and stages' runs compared.

Owns `Frames` (the inputs, and what the policy says to them in its own dtype and in float64) and `Beside`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import vlacompile as vc
from tests.fuzz.reference import Disturbed, InFloat64, NothingHidden
from vlacompile.policy.policy import Policy, as_taken
from vlacompile.policy.sample_inputs import EDGES, edge
from vlart.errors import VlaError

DRAWS = 2
# An engine sums in another order than PyTorch: of the difference between the policy and its float64 reference it may
# make this many, or this share of the output's scale, whichever is larger.
TIMES, SHARE = 12.0, 1e-5
OFF = 3.0  # of what disturbing every result does to an output, this many in reduced precision
TRIES = 240  # contents of a source that must all leave a stage's results unchanged, before they do not depend on it
OTHERS = 8  # after so many of them the other sources change as well
NEAR = 2e-6  # errors of every result that an engine may make, of its largest number: where they decide, it may too
VISIBLE = 0.02  # a policy whose own rounding is this share of its outputs says nothing about the compiler's

RERUNS = "reruns: nothing changes"


class Unsuitable(Exception):
    """A policy that cannot tell right from wrong."""


@dataclass(frozen=True)
class Frame:
    """label; new: the sources written before this step; alone: the only one of them. want, exact: the outputs in the
    policy's dtype, and in float64; off: with every result disturbed, for a bundle in reduced precision. inputs: of the
    policy."""

    label: str
    inputs: Mapping[str, torch.Tensor]
    new: Mapping[str, torch.Tensor]
    want: Mapping[str, torch.Tensor]
    exact: Mapping[str, torch.Tensor]
    off: Mapping[str, torch.Tensor] | None
    alone: str | None


class Frames:
    """The inputs of a policy, one step after another: all sources anew, each alone, nothing new, the same bytes again,
    edge cases."""

    def __init__(self, make: Callable[[], Policy], ranges: Mapping[str, tuple[float, float]], disturb: float = 0.0):
        self.disturb = disturb
        self.make, self.ranges, self.rng = make, ranges, np.random.default_rng(7)
        self.policy = make()
        self.live = [n for n, s in self.policy.sources.items() if s.update != "static"]
        self._windows: dict[str, torch.Tensor] = {}
        self._inputs = dict(self.policy.example_inputs)
        self.frames = list(self._listed())
        self._inputs = dict(self.policy.example_inputs)
        with torch.no_grad():
            example = self._called(make())
        for name, want in (*example.items(), *self.frames[0].want.items()):
            if not np.isfinite(_numbers(want)).all():
                raise Unsuitable(f"{name} is not finite")

    def _listed(self) -> Iterator[Frame]:
        for k in range(DRAWS):
            yield self._frame(f"all {k}", self._drawn(self.live))
            for name in self.live:
                yield self._frame(f"{name} alone {k}", self._drawn([name]), name)
        yield self._frame("nothing new", {})
        for k in range(EDGES):
            yield self._frame(f"edges {k}", {n: self._edge(n, k) for n in self.live})
        if len(self.live) > 2:
            yield self._frame("all but one", self._drawn(self.live[1:]))
        yield self._frame("last", self._drawn(self.live[-1:]), self.live[-1])

    def _newest(self, name: str) -> torch.Tensor:
        example = self.policy.example_inputs[name]
        return example[:, -1] if self.policy.sources[name].history > 1 else example

    def _edge(self, name: str, k: int) -> torch.Tensor:
        example = self._newest(name)
        return edge(as_taken(example), k).to(example.dtype)

    def _drawn(self, names: list[str]) -> dict[str, torch.Tensor]:
        return {n: self.draw(n) for n in names}

    def draw(self, name: str, times: float = 1.0) -> torch.Tensor:
        """New content of a source. times: of the usual spread of numbers."""
        example = self._newest(name)
        shape = tuple(example.shape)
        if example.dtype is torch.bool:
            return torch.from_numpy(self.rng.random(shape) < 0.5)
        if example.is_floating_point():
            mean, spread = self.ranges.get(name, (0.0, 1.0))
            return torch.from_numpy(mean + times * spread * self.rng.standard_normal(shape)).to(example.dtype)
        low, high = self.ranges.get(name, (0, 256))
        return torch.from_numpy(np.asarray(self.rng.integers(low, high, shape))).to(example.dtype)

    def is_hidden(self, name: str, outputs: Iterable[str]) -> bool:
        """Whether any of the outputs is computed from the source, whose content cannot be told from them."""
        policy, contents = self.make(), [dict(self._inputs)]
        for k in range(8):
            drawn = self._windowed(name, self.draw(name, 10.0 ** (k % 4 - 1)))
            contents.append({**self._inputs, name: drawn})

        def changes(within: Callable[[Iterable[torch.Tensor]], contextlib.AbstractContextManager]) -> bool:
            found = []
            for inputs in contents:
                own = {n: t.clone() for n, t in inputs.items()}
                with torch.no_grad(), within(own.values()):
                    values = policy.infer(**own)
                found.append([values[n].clone() for n in outputs])
            return any(not torch.equal(a, b) for row in found for a, b in zip(row, found[0], strict=True))

        return not changes(lambda _: contextlib.nullcontext()) and any(
            changes(partial(NothingHidden, salt=salt)) for salt in range(24))

    def _windowed(self, name: str, newest: torch.Tensor) -> torch.Tensor:
        n = self.policy.sources[name].history
        return torch.stack([newest] * n, 1) if n > 1 else newest

    def _frame(self, label: str, new: dict[str, torch.Tensor], alone: str | None = None) -> Frame:
        self._advance(new)
        with torch.no_grad():
            want = self._called(self.make())
            policy = self.make()  # outside the mode: random weights of another dtype are other numbers
            policy.observe.double()  # type: ignore[union-attr]  a module, by the text
            with InFloat64():
                exact = self._called(policy)
            if self.disturb:
                with Disturbed(self.disturb):
                    off = self._called(self.make())
        return Frame(label, dict(self._inputs), new, want, exact, off if self.disturb else None, alone)

    def _advance(self, new: dict[str, torch.Tensor]) -> None:
        """Histories advance together, before a step with a new frame of any of them; the first frame fills them."""
        looking = [n for n in self.live if self.policy.sources[n].history > 1]
        if any(n in new for n in looking):
            for name in looking:
                n = self.policy.sources[name].history
                newest = new[name] if name in new else self._inputs[name][:, -1]
                window = (torch.stack([newest] * n, 1) if name not in self._windows else
                          torch.cat([self._windows[name][:, 1:], newest[:, None]], 1))
                self._windows[name] = self._inputs[name] = window
        self._inputs |= {n: t for n, t in new.items() if n not in looking}

    def decided_by_rounding(self, frame: Frame, name: str) -> float:
        """How far an output is moved by errors that an engine may make: a rounding, a comparison or a choice may be
        near."""
        found = 0.0
        for share in (NEAR, -NEAR):
            policy = self.make()
            with torch.no_grad(), Disturbed(share):
                moved = _numbers(self._called(policy, frame.inputs)[name]) - _numbers(frame.want[name])
            found = max(found, float(np.abs(moved[np.isfinite(moved)]).max(initial=0.0)))
        return found

    def _called(self, policy: Policy, inputs: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        values = policy.infer(**{n: t.clone() for n, t in (inputs or self._inputs).items()})
        return {n: as_taken(values[n]) for n in policy.outputs}


def _numbers(tensor: torch.Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(tensor).astype(np.float64)


class Beside:
    """share: of an output's scale, the error that the bundle's precision may make; 0: full precision."""

    def __init__(self, frames: Frames, out: Path, share: float, *, stand_in: bool):
        self.frames, self.out, self.share, self.stand_in = frames, out, share, stand_in
        self.ran: dict[tuple[str, str], list[bool]] = {}  # (source, stage): whether its results changed, per run
        self.alive: set[str] = set()  # stages whose results ever changed; others hand out constants

    def run(self) -> Iterator[tuple[str, str]]:
        """(kind, words) of what is wrong."""
        limits = self._limits()
        with vc.Session(self.out, stand_in=self.stand_in, threads=1) as session:
            values = {s.name: [session.plan.values[b.value].name for b in s.outputs] for s in session.plan.stages}
            looking_back = session.plan.looking_back()
            held: dict[str, list[bytes]] = {}
            for frame in self.frames.frames:
                before = session.stats().runs()
                for name, tensor in frame.new.items():
                    session.write(name, tensor)
                try:
                    session.step()
                    refused = None
                except VlaError as error:
                    refused = error
                after = session.stats().runs()
                yield from self._compared(session, frame, limits, refused)
                ran = {n for n in after if after[n] != before.get(n, 0)}
                now = {n: [session.read(v).tobytes() for v in vs] for n, vs in values.items()} if not refused else {}
                if not frame.new and ran:
                    yield "reruns: nothing was written", f"{sorted(ran)} ran"
                if frame.alone is not None and now and held:
                    for stage in ran - looking_back:
                        self.ran.setdefault((frame.alone, stage), []).append(now[stage] != held[stage])
                self.alive |= {n for n in now if held and now[n] != held[n]}
                held = now or held
            # what runs for every chunk, with new noise, may read what it does not need: it never runs for that alone
            every_chunk = {stage for source, stage in self.ran if self.frames.policy.sources[source].update == "step"}
            for (source, stage), changed in self.ran.items():
                if (stage in self.alive and stage not in every_chunk and len(changed) > 1 and not any(changed)
                        and not self._sensitive(session, source, values[stage])
                        and not self.frames.is_hidden(source, self._ahead(session, values[stage]))):
                    yield RERUNS, f"{stage} runs when {source} is written, and gives the same bytes"

    def _ahead(self, session: vc.Session, values: list[str]) -> list[str]:
        """The policy's outputs that stages compute from these values."""
        reached = set(values)
        for stage in session.plan.stages:  # in the order in which they run
            if any(session.plan.values[b.value].name in reached for b in stage.inputs):
                reached |= {session.plan.values[b.value].name for b in stage.outputs}
        return [n for n in self.frames.policy.outputs if n in reached]

    def _sensitive(self, session: vc.Session, source: str, values: list[str]) -> bool:
        """Whether some other content of the source changes the values, beside some content of the others: argmax,
        clamp, masks and saturation hide most changes."""
        for k in range(TRIES):
            if k % OTHERS == 0:
                first = self._values_after(session, values, self.frames.live, 1.0)
            times = 10.0 ** (k % 4 - 1)
            now = self._values_after(session, values, [source], times)
            if first is not None and now is not None and now != first:
                return True
        return False

    def _values_after(self, session: vc.Session, values: list[str], sources: list[str],
                      times: float) -> list[bytes] | None:
        """The values after new content of these sources; None: refused, as out of a table's range, or too large for a
        finite action."""
        for name in sources:
            session.write(name, self.frames.draw(name, times))
        try:
            session.step()
        except VlaError:
            return None
        return [session.read(v).tobytes() for v in values]

    def _limits(self) -> dict[str, tuple[float, float]]:
        """{output: (largest error, of its scale)}. Raises Unsuitable."""
        found = {}
        for name in self.frames.policy.outputs:
            rows = [(_numbers(f.want[name]), _numbers(f.exact[name])) for f in self.frames.frames]
            rows = [(w, e) for w, e in rows if np.isfinite(w).all() and np.isfinite(e).all()]
            own = max(float(np.abs(w - e).max(initial=0.0)) for w, e in rows)
            scale = max(float(np.abs(w).max(initial=0.0)) for w, _ in rows)
            if own > VISIBLE * scale:
                raise Unsuitable(f"{name}: its own rounding is {own} of {scale}")
            moved = [np.abs(_numbers(f.off[name]) - _numbers(f.want[name])) for f in self.frames.frames if f.off]
            off = max((float(m[np.isfinite(m)].max(initial=0.0)) for m in moved), default=0.0)
            found[name] = (TIMES * own + OFF * off, scale)
        return found

    def _compared(self, session: vc.Session, frame: Frame, limits: Mapping[str, tuple[float, float]],
                  refused: VlaError | None) -> Iterator[tuple[str, str]]:
        finite = all(np.isfinite(_numbers(t)).all() for t in frame.want.values())
        when = "one source written" if frame.alone else "edges" if frame.label.startswith("edges") else "all written"
        if refused is not None:
            if finite:
                yield "step refused", f"{frame.label}: {refused}"
            return
        for name, want in frame.want.items():
            own, scale = limits[name]
            want = _numbers(want)
            if not np.isfinite(want).all() or not np.isfinite(_numbers(frame.exact[name])).all():
                continue
            got = _numbers(session.read(name))
            if got.shape != (want.shape or (1,)):  # a number without dimensions is handed out as [1]
                yield "wrong shape", f"{name}: {got.shape}, not {want.shape}"
                continue
            exact_kind = not frame.want[name].is_floating_point()
            here = float(np.abs(want).max(initial=0.0))
            limit = own if exact_kind and not self.share else own + max(SHARE * here, self.share * max(scale, 1e-30))
            if exact_kind and self.share:
                continue
            apart = float(np.abs(got - want).max(initial=0.0)) if np.isfinite(got).all() else float("nan")
            if not apart <= limit and not (not self.share and apart <= self.frames.decided_by_rounding(frame, name)):
                yield f"wrong: {when}", (
                    f"{frame.label}: {name} is {apart:.3g} away, allowed {limit:.3g}, scale {here:.3g}")
