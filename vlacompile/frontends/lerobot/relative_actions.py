"""Actions that are offsets to the robot's state (openpi's DeltaActions, LeRobot's relative and absolute steps).

The preprocessor's step remembers the state as the robot gives it, the postprocessor's adds it to the un-normalised
actions, except to dimensions whose name contains one of the excluded names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from vlacompile.frontends.lerobot.files import ABSOLUTE, POSTPROCESSOR, PREPROCESSOR, RELATIVE
from vlacompile.frontends.lerobot.statistics import NORMALISE, UNNORMALISE, Feature
from vlart.errors import SourceError

STATE = "observation.state"
_AGAIN = "copy the training's directory again, completely"


def relative_dimensions(path: Path, config: dict, pre: list[dict], post: list[dict],
                        inputs: Mapping[str, Feature], action: Feature) -> tuple[bool, ...] | None:
    """For every dimension of the action, whether the state is added to it; None: to none. Raises SourceError if a half
    of the pair is missing, or is at the wrong place."""
    into, out = _enabled(pre, RELATIVE), _enabled(post, ABSOLUTE)
    wanted = config.get("use_relative_actions")
    if not into and not out and not wanted:
        return None
    for file, found, name in ((PREPROCESSOR, into, RELATIVE), (POSTPROCESSOR, out, ABSOLUTE)):
        if not found:
            raise SourceError(f"{file} has no step {name} that is enabled", where=str(path / file),
                              why="the policy's actions are offsets to the state; the robot would move to the offsets",
                              fix=_AGAIN)
    _check_order(path / PREPROCESSOR, pre, RELATIVE, NORMALISE, "offsets are to the state in robot units")
    _check_order(path / POSTPROCESSOR, post, UNNORMALISE, ABSOLUTE, "the state is added in robot units")
    size, state = action.shape[0], inputs.get(STATE)
    if state is None or math.prod(state.shape) < size:
        raise SourceError("the actions are offsets to a state that is not there", where=str(path / "config.json"),
                          why=f"{size} actions, {0 if state is None else math.prod(state.shape)} numbers of state",
                          fix=_AGAIN)
    names = into[0]["config"].get("action_names")
    excluded = [str(n).lower() for n in into[0]["config"].get("exclude_joints") or () if n]
    named = [str(n).lower() for n in names[:size]] if names and excluded else []
    kept = [not any(e in n for e in excluded) for n in named]
    return (*kept, *[True] * (size - len(kept)))


def _enabled(steps: list[dict], name: str) -> list[dict]:
    return [s for s in steps if s["registry_name"] == name and s["config"].get("enabled")]


def _check_order(where: Path, steps: list[dict], first: str, second: str, why: str) -> None:
    names = [s["registry_name"] for s in steps]
    if first in names and second in names and names.index(first) > names.index(second):
        raise SourceError(f"{second} comes before {first}", where=str(where), why=why, fix=_AGAIN)
