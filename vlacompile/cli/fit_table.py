"""The table in which `plan` prints whether a policy fits into a board's memory."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

HEADS = {"resident": "", "per task": "per task", "library": "leaves", "per replan": "per replan"}


def print_fit(console: Console, fit) -> None:
    """At most 80 columns; sizes in MB of 1e6 bytes.

    Columns: active, the live activations at their peak; outputs, the stage's outputs; to build, the peak while its
    engine is built.
    """
    console.print(f"\nMemory on {fit.board}, MB; modelled, not measured on a board", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("precision", no_wrap=True)
    for title in ("weights", "active", "outputs", "to build"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("loaded", no_wrap=True)
    for s in fit.stages:
        owner = s.stage == s.engine
        table.add_row(s.stage, s.scheme, mb(s.weights) if owner else "",
                      mb(s.activations) if owner else "", mb(s.outputs), mb(s.build) if owner and s.build else "",
                      HEADS[s.residency] if owner else "shared")
    console.print(table)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    rows = [(fit.usable, "usable, after the operating system's share"), (fit.context, "CUDA and TensorRT themselves"),
            (fit.values, "values passed between stages")]
    rows += [(fit.library, "precomputed outputs of the other instructions")] if fit.library else []
    rows += [(fit.peak, f"peak at run time: {fit.moment}"), (fit.build, f"peak while building: {fit.builds}")]
    for size, text in rows:
        grid.add_row(mb(size), text)
    console.print()
    console.print(grid)
    console.print(f"\n{fit.verdict}", style="bold green" if fit.fits else "bold red")
    fixed = [s.stage for s in fit.stages if s.fixed]
    if fixed:
        whose = "all stages" if len(fixed) == len(fit.stages) else ", ".join(fixed)
        console.print(f"- the recipe fixes the precision of {whose}")
    for line in fit.measures:
        console.print(f"- {line}")
    for line in fit.advice if fit.fits else ():
        console.print(f"? {line}")
    if fit.open and fit.fits:
        rules = ", ".join(f"{layers} {scheme}" for layers, scheme in fit.rules)
        console.print('The recipe leaves the precision open. To build this choice: base = "fp16", '
                      f'layers = "fp16"{" and rules for" if rules else ""} {rules}')


def mb(size: int) -> str:
    return f"{size / 1e6:.0f}" if size >= 1e7 else f"{size / 1e6:.1f}"
