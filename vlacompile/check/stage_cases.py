"""Runs of one stage by itself: the golden frames' inputs, iteration by iteration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlacompile.check.layer_runners import Run
from vlart.bundle.directory import Bundle
from vlart.bundle.plan.plan import Stage
from vlart.errors import BundleError
from vlart.verify.frames import Frame
from vlart.vocabulary import NUMPY_DTYPES


@dataclass(frozen=True)
class Case:
    """One run. last: of the stage's iterations on the frame."""

    label: str
    frame: Frame
    last: bool


def run_cases(bundle: Bundle, stage: Stage, frames: Sequence[Frame], run: Run) \
        -> Iterator[tuple[Case, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """(case, what `run` gave, what it was given) of every frame and iteration; a loop carries what `run` gave. Of a
    loop that the data ends, the first iteration. Raises BundleError if no frame has the stage's inputs."""
    known, values, ran, missing = dict(_constants(bundle, stage)), bundle.plan.values, False, ""
    initial = {stage.inputs[c.input].port: c.initial for c in stage.carries}
    of = {b.port: values[initial.get(b.port, b.value)] for b in stage.inputs}
    count = 1 if stage.end is not None else stage.iterations
    for frame in frames:
        known |= frame.writes | {n: e.array for n, e in frame.expects.items()}
        lacking = [v.name for v in of.values() if v.name not in known or known[v.name].shape != v.type.dims]
        if lacking:
            missing = lacking[0]
            continue
        given = {p: np.ascontiguousarray(known[v.name], NUMPY_DTYPES[v.type.dtype]).reshape(v.type.dims)
                 for p, v in of.items()}
        carried: dict[str, np.ndarray] = {}
        for i in range(count):
            feed = given | {b.port: np.asarray(given[b.port][i]) for b in stage.inputs if b.mode == "row"} | carried
            found, ran = run(feed), True
            yield Case(frame.label + (f", iteration {i}" if count > 1 else ""), frame, i == count - 1), found, feed
            carried = {stage.inputs[c.input].port: found[stage.outputs[c.output].port] for c in stage.carries}
    if not ran:
        raise BundleError(f'stage "{stage.name}" cannot be run by itself', where=str(bundle.path),
                          why=f'no golden frame has its input "{missing}" in its whole shape',
                          fix="choose a stage before it; `vlacompile inspect` lists them")


def _constants(bundle: Bundle, stage: Stage) -> Iterator[tuple[str, np.ndarray]]:
    """Inputs that are weights, such as a loop's tables."""
    values = [bundle.plan.values[v] for v in [b.value for b in stage.inputs] + [c.initial for c in stage.carries]]
    for value in values:
        if value.weight is None:
            continue
        weight = bundle.plan.weights[value.weight]
        if weight.file is not None:
            with (bundle.path / bundle.plan.files[weight.file].path).open("rb") as file:
                file.seek(weight.offset)
                raw = file.read(weight.type.bytes)
            yield value.name, np.frombuffer(raw, NUMPY_DTYPES[weight.type.dtype]).reshape(value.type.dims)
