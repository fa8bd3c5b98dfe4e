"""The names of the phases in progress lines, errors and `--stop-after`, and what all phase functions share: progress
lines begin with the phase's name, and errors record the phase in which they were raised."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from vlacompile.files.heap import give_back
from vlart.errors import VlaError

Progress = Callable[[str], None]


class Phase(StrEnum):
    READ_INPUTS = "read-inputs"
    CAPTURE = "capture"
    FIND_STAGES = "find-stages"
    VERIFY_STAGING = "verify-staging"
    CHOOSE_PRECISION = "choose-precision"
    EMIT = "emit"
    ASSEMBLE = "assemble"
    PUBLISH = "publish"


def silent(line: str) -> None:
    """Discards progress lines."""


@dataclass(frozen=True)
class _Within:
    """Progress of one phase: prefixes every line with its name. A phase called by another one prefixes its own
    lines."""

    phase: Phase
    whole: Progress

    def __call__(self, line: str) -> None:
        self.whole(f"{self.phase}: {line}")


def phase(which: Phase):
    """Decorates a phase function, which takes `progress` as a keyword argument and reports each step to it."""

    def decorate(function):
        @functools.wraps(function)
        def run(*args, progress: Progress = silent, **named):
            whole = progress.whole if isinstance(progress, _Within) else progress
            try:
                return function(*args, progress=_Within(which, whole), **named)
            except VlaError as error:
                error.phase = error.phase or which
                raise
            finally:
                give_back()

        return run

    return decorate
