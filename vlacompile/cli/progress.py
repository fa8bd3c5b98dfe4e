"""Progress on stderr: the running phase and its steps, and the duration of each one."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

WIDTH = 52  # columns for the name of a phase or step


class Phases:
    """Call it with what is done as it begins: "phase", or "phase: step"; leaving the context ends the last one.

    On a terminal the line of the running step is updated live; elsewhere a phase is one line, begun with the phase:
    in a log file nobody waits for a step. times: {what: seconds}.
    """

    def __init__(self, console: Console):
        self.console = console
        self.times: dict[str, float] = {}
        self._name: str | None = None
        self._printed = io.StringIO()
        self._live: Live | None = None
        self._line = ""  # that is not ended yet; only where there is no terminal
        self._line_begin = 0.0

    def __call__(self, name: str) -> None:
        if name == self._name:
            return
        phase = name.partition(": ")[0]
        self._end("", goes_on=phase == self._line)
        self._name, self._begin = name, time.perf_counter()
        if self.console.is_terminal:
            self._live = Live(Spinner("line", text=self, style="cyan"), console=self.console, transient=True,
                              refresh_per_second=10, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        elif phase != self._line:
            self._line, self._line_begin = phase, self._begin
            self.console.print(f"  {phase:<{WIDTH}}", end="", soft_wrap=True)
            self.console.file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, *_) -> None:
        self._end("" if kind is None else "  stopped here")

    @contextlib.contextmanager
    def asides(self) -> Iterator[None]:
        """Output of the policy's own code on stdout is shown below the phase during which it was printed."""
        with contextlib.redirect_stdout(self._printed):
            yield

    def __rich__(self) -> str:
        """The live line, rendered at every refresh."""
        return f"{self._name:<{WIDTH}}{self._elapsed_s():7.1f} s"

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._begin

    def _end(self, note: str, goes_on: bool = False) -> None:
        """goes_on: the line of the phase stays open for its next step."""
        if self._name is None:
            return
        elapsed_s = self.times[self._name] = self._elapsed_s()
        if goes_on:
            return
        if self._live is not None:
            self._live.stop()  # which draws the step once more
            self._live = None
            line = f"  {self._name:<{WIDTH}}{elapsed_s:7.1f} s{note}"
        else:
            line = f"{time.perf_counter() - self._line_begin:7.1f} s{note}"
            self._line = ""
        self._name = None
        self.console.print(line, soft_wrap=True)
        for aside in self._printed.getvalue().splitlines():
            self.console.print(f"    | {aside}", style="dim", soft_wrap=True)
        self._printed.seek(0)
        self._printed.truncate()
