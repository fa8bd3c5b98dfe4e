"""Whether the robot gives what a bundle takes: names and sizes of the first observation. Must not know sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vlart.errors import SourceError
from vlart.serve.observations import Input

CAMERA, STATE = "observation.image", "observation."  # how LeRobot's names of frames, and of all observations, begin


def check_agreement(inputs: Mapping[str, Input], batch: Mapping[str, Any], rename_map: Mapping[str, str],
                    bundle: str) -> None:
    """inputs: of the bundle. batch: as the policy gets it from LeRobot, observations [1,...], frames [1,C,H,W].
    Raises SourceError that names everything that does not agree."""
    found = list(_disagreements(inputs, batch, rename_map))
    if found:
        raise SourceError("the robot does not give what the bundle takes", where=bundle,
                          why="; ".join(why for why, _ in found), fix=found[0][1])


def _disagreements(inputs: Mapping[str, Input], batch: Mapping[str, Any],
                   rename_map: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(what does not agree, how to mend it)"""
    given = {rename_map.get(n, n): v for n, v in batch.items() if n.startswith(STATE) and hasattr(v, "shape")}
    observed = {n: i for n, i in inputs.items() if i.update in ("observation", "tick") and n.startswith(STATE)
                and (i.is_image() or i.dtype == "f32")}  # not tokens, which the policy makes itself
    rows = {v.shape[0] for v in given.values() if v.ndim > 1}
    if rows - {1}:
        yield f"it gives {max(rows)} observations at once", "run one robot at a time: --eval.batch_size=1"
    for name, wanted in observed.items():
        if name not in given:
            yield _missing(name, wanted, observed, given)
        elif wanted.is_image():
            yield from _frame(name, wanted, given[name])
        elif given[name].shape[-1:] != wanted.dims[-1:]:
            yield (f"{name} has {given[name].shape[-1]} numbers, the bundle takes {wanted.dims[-1]}",
                   "run it on the robot that it was trained on: the same joints, in the same order")


def _missing(name: str, wanted: Input, observed: Mapping[str, Input], given: Mapping[str, Any]) -> tuple[str, str]:
    left = [n for n in given if n not in observed and n.startswith(CAMERA) == wanted.is_image()]
    other = f"; left over is {', '.join(left)}" if left else ""
    if not left:
        return f'there is no "{name}"', f"add it to the robot: the policy was trained with {', '.join(observed)}"
    return (f'there is no "{name}"{other}',
            f"""name it as the bundle does: --policy.rename_map='{{"{left[0]}": "{name}"}}'""")


def _frame(name: str, wanted: Input, value: Any) -> Iterator[tuple[str, str]]:
    _, height, width, channels = wanted.dims
    shape = tuple(value.shape[-3:])
    if shape[1:] == (height, width) and shape[0] == channels:
        return
    if shape == (height, width, channels):  # channels last, as a robot has it
        return
    if shape[0] != channels:
        yield f"{name} has {shape[0]} channels, the bundle takes {channels}", "give frames in RGB"
    else:
        yield (f"{name} is {shape[1]} x {shape[2]} (height x width), the bundle takes {height} x {width}",
               f"set the camera's width={width} and height={height} in --robot.cameras")
