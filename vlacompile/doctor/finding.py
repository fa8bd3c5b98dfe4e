"""What one look at this machine found."""

from __future__ import annotations

from dataclasses import dataclass

HERE, MISSING, BROKEN, OTHER, LOW = "here", "missing", "broken", "other version", "low"
STATES = (HERE, MISSING, BROKEN, OTHER, LOW)


@dataclass(frozen=True)
class Finding:
    """One thing that verbs stand on.

    state: one of STATES; "broken" is installed and fails when it is used. found: the version or amount, "" where there
    is none. uses: verbs that fail without it ("build"), and parts of verbs ("build --calibrate"). install: the command
    that brings it, "" where no command does.
    """

    what: str
    state: str
    uses: tuple[str, ...]
    found: str = ""
    why: str = ""
    install: str = ""
