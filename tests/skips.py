"""Skips that are known: every other one fails a run with --skips-listed, which is how continuous integration runs.

`known_skips.toml` lists them: `tests`, a pattern over test ids as for file names, and `why` nothing that continuous
integration installs would make them run. Where it cannot install a system package, --skips-without names it, and skips
that ask for nothing else are known too.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("known_skips.toml")


@dataclass(frozen=True)
class Known:
    tests: str
    why: str


def known(file: Path = FILE) -> tuple[Known, ...]:
    return tuple(Known(**entry) for entry in tomllib.loads(file.read_text(encoding="utf-8"))["skip"])


def unlisted(skipped: dict[str, str], listed: tuple[Known, ...], without: Collection[str] = ()) -> list[str]:
    """skipped: {test or file: what it said}. without: system packages that cannot be installed here. Those that no
    entry covers and that ask for another package than these, with their words."""
    return [f"{test}: {said}" for test, said in sorted(skipped.items())
            if not any(fnmatch.fnmatchcase(test, k.tests) for k in listed) and not _asks_for(said, without)]


def _asks_for(said: str, packages: Collection[str]) -> bool:
    """Whether a skip asks for some of these packages and for no other."""
    asked = said.partition("apt-get install ")[2].split()
    return bool(asked) and set(asked) <= set(packages)


class SkipsListed:
    """The pytest plugin. Under xdist it sees what the workers report."""

    def __init__(self, without: Collection[str] = ()) -> None:
        self.without = without
        self.skipped: dict[str, str] = {}

    def _saw(self, report) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped[report.nodeid] = said.removeprefix("Skipped: ")

    def pytest_runtest_logreport(self, report) -> None:
        self._saw(report)

    def pytest_collectreport(self, report) -> None:
        self._saw(report)

    def pytest_sessionfinish(self, session, exitstatus) -> None:
        if unlisted(self.skipped, known(), self.without) and exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter) -> None:
        if wrong := unlisted(self.skipped, known(), self.without):
            terminalreporter.section(f"{len(wrong)} skipped that {FILE.name} does not list")
            for line in wrong:
                terminalreporter.line(line)
