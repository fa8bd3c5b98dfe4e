"""`PlainConsole`: where tables and lines are drawn. What a terminal would act on is shown, whatever is drawn: names
come from bundles, devices and checkpoints, which anybody may have written."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from vlart.errors import printable


class PlainConsole(Console):
    def __init__(self, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            shown = text if control else "\n".join(map(printable, text.split("\n")))
            yield Segment(shown, style, control)

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  within the `except` that calls it: the program's outermost frame ends it
