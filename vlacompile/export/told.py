"""What an export says of itself: what a recording lacks, and what of it a format does not hold.

Must not know formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vlart.errors import ConfigError
from vlart.recording.log import Log
from vlart.recording.timeline import EpisodeLine, cameras, episodes

MOST_NUMBERS = 4096  # of a source that is written as numbers


def handed_on(log: Log) -> list[EpisodeLine]:
    """The episodes. Raises ConfigError where there is none."""
    found = episodes(log)
    if not found:
        raise ConfigError("the recording has nothing to hand on", where=str(log.path),
                          why=f"none of its {log.info.events} events is a replan or an action",
                          fix="record a session that steps, or give a recording that was written to its end")
    return found


def require_apart(recording: str, outs: Mapping[str, str | None]) -> None:
    """outs: {option: path that is written}. Raises ConfigError where one is the recording itself, or another's."""
    taken = {Path(recording).resolve(): "the recording"}
    for option, path in outs.items():
        if path is None:
            continue
        what = taken.setdefault(Path(path).resolve(), option)
        if what != option:
            raise ConfigError(f"{option} would write over {what if what == 'the recording' else f'what {what} writes'}",
                              where=path, why="both are the same path", fix="give each a path of its own")


def too_large(log: Log) -> list[str]:
    """Sources that are neither images nor few enough numbers."""
    images, found = cameras(log), []
    for source in log.plan.sources:
        value, count = log.plan.values[source.value], 1
        for size in value.type.dims:
            count *= size
        if value.name not in images and count > MOST_NUMBERS:
            found.append(f"{value.name} ({count} numbers; at most {MOST_NUMBERS} are written)")
    return found


def missing(log: Log) -> dict[str, int]:
    """{what the recording lacks: how much}, without what it lacks nothing of."""
    events, blocks = log.losses
    found = {"lost_events": events, "lost_blocks": blocks, "torn_events": int(log.info.torn_events),
             "missing_blocks": int(log.info.missing_blocks),
             "cut_bytes": log.cut_bytes, "overwritten_blocks": int(log.info.first_block) if log.info.blocks else 0}
    return {what: count for what, count in found.items() if count}
