"""`replay`: a whole recording on a bundle, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlart.bundle.directory import PLAN_FILE
from vlart.bundle.plan.binary import read_plan
from vlart.bundle.plan.plan import Plan
from vlart.errors import BundleError, ParityError
from vlart.recording.compared import Difference
from vlart.recording.log import Log
from vlart.recording.replay import Opened, Tally, by_track, replay_session, require_content
from vlart.recording.replay_async import replay_async, sessions_of
from vlart.recording.replay_lanes import groups, replay_lanes
from vlart.recording.wall_clock import WallClock


@dataclass(frozen=True)
class Replayed:
    """same_bundle: the bundle is the recorded one. events: of the recording; skipped: of these, not replayed. steps,
    chunks, actions: replayed, compared. lost: events and blocks that the recording says it lacks; torn: events that
    are there in part. cut_bytes: of the file's end, that are not there. clock: when it was. parted: the first
    difference; None: every compared bit was the same."""

    recording: str
    bundle: str
    same_bundle: bool
    events: int
    skipped: int
    steps: int
    chunks: int
    actions: int
    lost: tuple[int, int]
    torn: int
    cut_bytes: int
    clock: WallClock
    parted: Difference | None

    @property
    def equal(self) -> bool:
        return self.parted is None and self.chunks + self.actions > 0

    def as_dict(self) -> dict:
        return {"recording": self.recording, "bundle": self.bundle, "same_bundle": self.same_bundle,
                "equal": self.equal, "events": self.events, "skipped": self.skipped, "steps": self.steps,
                "chunks": self.chunks, "actions": self.actions, "lost_events": self.lost[0],
                "lost_blocks": self.lost[1], "torn_events": self.torn,
                "cut_bytes": self.cut_bytes, **self.clock.as_dict(),
                "parted": None if self.parted is None else self.parted.as_dict()}

    def require(self) -> Replayed:
        """Raises ParityError unless something was compared and all of it was equal."""
        if self.chunks + self.actions == 0:
            raise ParityError("nothing was compared", where=self.recording,
                              why=f"none of its {self.events} events could be replayed from a known state on",
                              fix="record from the first step of an episode on, in a file that holds a whole one")
        if self.parted is not None:
            of_two = self.parted.of_values  # of two bundles that were compared, stage by stage
            first = "the first bundle has" if of_two else "was recorded"
            raise ParityError(f"{self.parted.what} is not what {first}",
                              where=f"{self.recording}, step {self.parted.step}", why=text_of(self.parted),
                              fix="compare how that stage, and what it reads, was built in the two" if of_two else
                              "--against ORIGINAL names the stage with which it begins" if not self.same_bundle
                              else "another engine, thread count or processor computes it otherwise: replay where, and "
                              "as, it was recorded")
        return self


def text_of(d: Difference) -> str:
    """The two numbers, in words."""
    if d.at is None:
        return f"it was {d.want}, it is {d.got}"
    where = ", ".join(map(str, d.at))
    return f"number [{where}] was {d.want!s}, it is {d.got!s}" if not d.of_values else \
        f"number [{where}] is {d.want!s} in the first bundle, {d.got!s} in the second"


def replay(log: Log, bundle: str | Path, *, other_bundle: bool = False, against: str | Path | None = None,
           threads: int = 0, stand_in: bool = False, native_code: bool = False,
           opened: Opened | None = None) -> Replayed:
    """bundle: that of the recording; another one only with other_bundle. against: a bundle whose stage values are
    compared with those of `bundle` after every step. threads, stand_in, native_code: as Session's. opened: sessions
    that are used for several replays, whose owner closes them. Raises BundleError for a recording without content, or
    of another bundle."""
    path = Path(bundle)
    require_content(log)
    plan = read_plan(path / PLAN_FILE)
    same = (path / PLAN_FILE).read_bytes() == log.plan_bytes
    if not same and not other_bundle:
        raise BundleError("the recording is of another bundle", where=f"{log.path}, {path}",
                          why=f'it was made with "{log.plan.name}" ({log.bundle_hash[:12]}), this one is "{plan.name}" '
                              f"of other content", fix="give the recorded bundle, or compare the two on purpose with "
                          "--other-bundle")
    if not same:
        require_same_sources(log, plan, path)
    if against is not None:
        require_same_sources(log, read_plan(Path(against) / PLAN_FILE), Path(against))
    if opened is None:
        with Opened(path, None if against is None else Path(against), threads, stand_in, native_code) as opened:
            return _replayed(log, path, same, opened)
    return _replayed(log, path, same, opened)


def _replayed(log: Log, path: Path, same: bool, opened: Opened) -> Replayed:
    tracks, tally, events = by_track(log), Tally(), 0
    controls, laned = sessions_of(tracks), groups(tracks)
    for track, rows in tracks.items():
        events += len(rows)
        if track in laned:
            tally.add(replay_lanes(log, rows, [tracks[t] for t in laned[track]], opened))
        elif track in controls:
            tally.add(replay_async(log, rows, tracks[controls[track]], opened))
        elif rows[0].role == "control":
            tally.skipped += len(rows)
        elif rows[0].role == "session" and not rows[0].lane and track not in controls.values():
            tally.add(replay_session(log, rows, opened))
    return Replayed(str(log.path), str(path), same, events, tally.skipped, tally.steps, tally.chunks, tally.actions,
                    log.losses, log.info.torn_events, log.cut_bytes, log.clock, tally.parted)


def require_same_sources(log: Log, plan: Plan, path: Path) -> None:
    """Raises BundleError for a bundle that does not take what was recorded."""
    recorded = {log.plan.values[s.value].name: log.plan.values[s.value].type for s in log.plan.sources}
    taken = {plan.values[s.value].name: plan.values[s.value].type for s in plan.sources}
    for name, kind in recorded.items():
        if taken.get(name) != kind:
            found = f"takes it as {taken[name].dtype}{list(taken[name].dims)}" if name in taken else "does not take it"
            raise BundleError(f'the bundle cannot be given the recorded "{name}"', where=f"{log.path}, {path}",
                              why=f"it is {kind.dtype}{list(kind.dims)}, and the bundle {found}",
                              fix="compare bundles of one policy")
    more = [name for name in taken if name not in recorded]
    if more:
        raise BundleError(f'the bundle takes "{more[0]}", which was not recorded', where=f"{log.path}, {path}",
                          why=f"the recorded bundle takes {', '.join(recorded)}", fix="compare bundles of one policy")
    if lanes_of(plan) != lanes_of(log.plan):
        raise BundleError("the bundle has other lanes than the recorded one", where=f"{log.path}, {path}",
                          why=f"recorded: {_lane_words(log.plan)}; the bundle: {_lane_words(plan)}",
                          fix="compare bundles of one policy whose recipes have the same [[lane]]s")


def lanes_of(plan: Plan) -> list[tuple[str, list[str]]]:
    """[(name, its sources)], from slow to fast."""
    return [(lane.name, sorted(plan.values[s].name for s in lane.sources)) for lane in plan.lanes]


def _lane_words(plan: Plan) -> str:
    return ", ".join(f'"{name}" of {" and ".join(sources)}' for name, sources in lanes_of(plan)) or "none"
