"""Where the command line writes: results on stdout, progress and errors on stderr.

Owns the two streams and the JSON mode. Must not know verbs.
"""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Callable

from rich.console import Console

from vlacompile.cli.console import PlainConsole
from vlacompile.cli.progress import Phases
from vlart.errors import VlaError

COLUMNS = 80  # of an error's lines, as of help; fewer on a narrower terminal

class Terminal:
    """as_json: one JSON document on stdout instead of tables, printed when the verb ends."""

    def __init__(self, as_json: bool):
        self.as_json = as_json
        self.out: Console = PlainConsole()
        self.err: Console = PlainConsole(stderr=True)
        self._document: dict | None = None

    def phases(self) -> Phases:
        return Phases(self.err)

    def show(self, document: dict, render: Callable[[Console], None]) -> None:
        """The verb's result: `document` for programs, `render` for people."""
        self._document = document
        if not self.as_json:
            render(self.out)

    def now(self, document: dict, render: Callable[[Console], None]) -> None:
        """For a verb that keeps running (a server): `document` is written immediately, on one line."""
        if self.as_json:
            sys.stdout.write(json.dumps(_json_value(document), allow_nan=False) + "\n")
        else:
            render(self.out)
        sys.stdout.flush()

    def error(self, error: VlaError) -> None:
        """Four lines for a person, folded where they are read on a terminal; in JSON mode the same fields join the
        verb's document."""
        lines = [("error: ", error.what), ("  where: ", error.where), ("  why:   ", error.why),
                 ("  fix:   ", error.fix)]
        for i, (head, text) in enumerate(lines):
            first, *others = self._folded(text, len(head))
            self.err.print(head, style="bold red" if i == 0 else "dim", end="", soft_wrap=True)
            for line in (first, *(" " * len(head) + other for other in others)):
                self.err.print(line, style="bold" if i == 0 else None, soft_wrap=True)
        self._document = (self._document or {}) | error.as_dict()

    def _folded(self, text: str, indent: int) -> list[str]:
        """A path or another word is never cut; a program that reads gets each field as one line."""
        width = min(self.err.width, COLUMNS) - indent if self.err.is_terminal else len(text)
        return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]

    def finish(self) -> None:
        if self.as_json and self._document is not None:
            sys.stdout.write(json.dumps(_json_value(self._document), indent=1, allow_nan=False) + "\n")
        sys.stdout.flush()


def _json_value(value):
    """JSON has no infinity and no NaN: they become null; and what is no Unicode is spelled out."""
    if isinstance(value, dict):
        return {_json_value(str(k)): _json_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
