"""Groups of state and actions from the files of GR00T N1.6 and N1.7: `modality_configs` and `statistics` of a robot.

LeRobot's processor steps contain both in the same form.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from vlacompile.frontends.groot.groups import MEAN_STD, MIN_MAX, POSE, SIN_COS, Group, Scale
from vlart.errors import SourceError

_SAME = "use the statistics and the configuration of one training, and the embodiment of your robot"
ROT6D, PLAIN = "xyz+rot6d", "default"


def action_groups(where: Path, statistics: Mapping, robot: Mapping, relative: bool, percentiles: bool) -> list[Group]:
    """where: the file, for messages. statistics: {"state"|"action"|"relative_action": {group: {"min": [...], ...}}} of
    the robot, robot: {"state"|"action": {"modality_keys", "action_configs"}}. relative: whether groups that are said to
    be relative are. Raises SourceError if something is missing, or of another robot."""
    action, spans = robot.get("action") or {}, state_spans(where, statistics, robot)
    groups = []
    rules = action.get("action_configs") or []
    for i, name in enumerate(_keys(where, robot, "action")):
        rule = rules[i] if i < len(rules) else {}
        offset = relative and _word(rule.get("rep")) == "relative"
        kind = "relative_action" if offset else "action"
        scale = _scale(where, statistics, kind, name, name in (action.get("mean_std_embedding_keys") or ()),
                       percentiles and not offset)
        if not offset:
            groups.append(Group(name, scale))
            continue
        of = spans.get(rule.get("state_key") or name)
        pose = _word(rule.get("type")) == "eef"
        if of is None or of[1] - of[0] != scale.size or (pose and scale.size != POSE):
            raise SourceError(f'"{name}" is relative to a state that does not fit it', where=str(where),
                              why=f'"{rule.get("state_key") or name}" of the state has '
                                  f"{0 if of is None else of[1] - of[0]} numbers, the action {scale.size}", fix=_SAME)
        if pose and _word(rule.get("format")) != ROT6D:
            raise SourceError(f'"{name}" is relative as {rule.get("format")}', where=str(where),
                              why=f"poses are composed as {ROT6D} only",
                              fix="write a factory that returns vlacompile.Policy(...) for this robot")
        groups.append(Group(name, scale, of, pose))
    return groups


def state_groups(where: Path, statistics: Mapping, robot: Mapping, percentiles: bool, clip: bool,
                 sin_cos: bool) -> list[Group]:
    """sin_cos: whether groups that are said to be given as sine and cosine are. Raises SourceError."""
    state, groups = robot.get("state") or {}, []
    for name in _keys(where, robot, "state"):
        scale = _scale(where, statistics, "state", name, name in (state.get("mean_std_embedding_keys") or ()),
                       percentiles, clip)
        if sin_cos and name in (state.get("sin_cos_embedding_keys") or ()):
            scale = Scale(SIN_COS, scale.first, scale.second, scale.varies)
        groups.append(Group(name, scale))
    return groups


def state_spans(where: Path, statistics: Mapping, robot: Mapping) -> dict[str, tuple[int, int]]:
    """{group: (first, end)} of the state's numbers."""
    spans, begin = {}, 0
    for name in _keys(where, robot, "state"):
        size = len(_numbers(where, statistics, "state", name, ("min", "q01", "mean")))
        spans[name], begin = (begin, begin + size), begin + size
    return spans


def _word(value: object) -> str:
    text = str(value).lower()
    return {"xyz_rot6d": ROT6D, "xyz_rotvec": "xyz+rotvec"}.get(text, text)


def _keys(where: Path, robot: Mapping, kind: str) -> list[str]:
    keys = (robot.get(kind) or {}).get("modality_keys")
    if not isinstance(keys, list) or not keys or not all(isinstance(k, str) for k in keys):
        raise SourceError(f"no groups of {kind} are named", where=f"{where}: {kind}.modality_keys",
                          why="they say which numbers the policy takes and gives", fix=_SAME)
    return keys


def _scale(where: Path, statistics: Mapping, kind: str, name: str, mean_std: bool, percentiles: bool,
           clip: bool = False) -> Scale:
    wanted = ("mean", "std") if mean_std else ("q01", "q99") if percentiles else ("min", "max")
    try:
        first, second = (torch.tensor(_numbers(where, statistics, kind, name, (w,)), dtype=torch.float64)
                         for w in wanted)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # torch's, of what is no table of numbers
        raise SourceError(f'statistics of "{name}" are no numbers', where=f"{where}: {kind}",
                          why=f"{' and '.join(wanted)} are needed; {type(error).__name__}: {error}",
                          fix=_SAME) from error
    if first.shape != second.shape or not bool(torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise SourceError(f'statistics of "{name}" hold NaN or do not fit each other', where=f"{where}: {kind}",
                          why=f"{wanted[0]} has {list(first.shape)}, {wanted[1]} {list(second.shape)}", fix=_SAME)
    if bool((second < (0 if mean_std else first - 1e-5 * first.abs().clamp(min=1.0))).any()):
        raise SourceError(f'statistics of "{name}" are damaged', where=f"{where}: {kind}",
                          why=f"{wanted[1]} is below {0 if mean_std else wanted[0]}", fix=_SAME)
    varies = second != 0 if mean_std else ~torch.isclose(second, first, rtol=1e-5, atol=1e-8)
    if mean_std:  # a value without deviation stays as it is, in and out
        first, second = (torch.where(varies, t, still) for t, still in ((first, 0.0), (second, 1.0)))
        return Scale(MEAN_STD, first.float(), second.float(), torch.ones_like(varies))
    return Scale(MIN_MAX, first.float(), second.float(), varies, clip)


def _numbers(where: Path, statistics: Mapping, kind: str, name: str, wanted: tuple[str, ...]) -> list:
    entry = (statistics.get(kind) or {}).get(name)
    found = next((entry[w] for w in wanted if isinstance(entry, Mapping) and isinstance(entry.get(w), list)), None)
    if not found:
        there = ", ".join(statistics.get(kind) or ()) or "none"
        raise SourceError(f'statistics of "{name}" are missing: {wanted[0]}', where=f"{where}: {kind}",
                          why=f"it has {there}; actions would reach the robot in wrong units", fix=_SAME)
    return found
