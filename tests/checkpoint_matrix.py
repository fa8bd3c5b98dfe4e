"""The matrix of checkpoints (docs/checkpoints.md): which files were built and how far their actions are from those of
the code that the files belong to.

A parity test hands its result to `compared`, whether or not somebody wants the matrix; `pytest --record-checkpoints
FILE` writes the rows of the tests that passed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

import vlacompile as vc
from vlacompile.profile import machine

PROPERTY = "checkpoint"
Result = TypeVar("Result")


def variants(cases: Iterable[str], of: Iterable[str]) -> list:
    """Parameters of a test or fixture: the cases in `of`, which try another setting of what the others run, are left to
    `make test-full` and `make checkpoint-matrix`."""
    cases, later = sorted(cases), set(of)
    assert later < set(cases), later
    return [pytest.param(c, id=c, marks=[pytest.mark.full, pytest.mark.variant] if c in later else []) for c in cases]


def timed(build: Callable[[], Result]) -> tuple[Result, float]:
    """(result, processor seconds)"""
    began = time.process_time()
    return build(), time.process_time() - began


def share_of_spread(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference as a share of the spread of its action dimension. got, want: [..., action_dim]."""
    got, want = (x.reshape(-1, x.shape[-1]) for x in (got, want))
    return float((np.abs(got - want).max(0) / want.std(0)).max())


def compared(record_property: Callable[[str, object], None], bundle: vc.Bundle, share: float, *, files: str,
             policy: str, oracle: str, seconds: float) -> None:
    """A row. share: as of `share_of_spread`. files: who wrote them. oracle: whose actions were compared with. seconds:
    of the processor, for the build."""
    plan = bundle.plan
    loop = ", ".join(f"{s.sampling.form} x{s.sampling.iterations}" for s in plan.stages if s.sampling is not None)
    record_property(PROPERTY, {"files": files, "policy": policy, "oracle": oracle, "share": share,
                               "stages": [s.name for s in plan.stages], "loop": loop, "build_s": round(seconds, 1)})


class MatrixRecorded:
    """The pytest plugin. Under xdist it sees what the workers report. Rows of tests that did not run stay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else {}

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call":
            self.rows.pop(report.nodeid, None)
        found = dict(report.user_properties).get(PROPERTY)
        if found is not None and report.when == "call" and report.passed:
            self.rows[report.nodeid] = found
            self._write()  # a run of minutes may be cut off

    def pytest_sessionfinish(self) -> None:
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"rows": dict(sorted(self.rows.items())), "machine": machine.describe()},
                                        indent=1) + "\n", encoding="utf-8")
