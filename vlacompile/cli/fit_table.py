"""The table in which `plan` prints whether a policy fits into a board's memory."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

HEADS = {"resident": "", "per task": "per task", "library": "leaves", "per replan": "per replan"}


def print_fit(console: Console, fit) -> None:
    """At most 80 columns; sizes in MB of 1e6 bytes.

    Columns: precision, with x17 where 17 equal layers are a loop of one engine; active, the live activations at their
    peak; outputs, the stage's outputs; to build, the peak while its engine is built.
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
        precision = f"{s.scheme}, x{s.layers}" if s.layers and owner else s.scheme
        table.add_row(s.stage, precision, mb(s.weights) if owner else "",
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


def print_moments(console: Console, fit, layers_ms) -> None:
    """What is taken at every moment: each build, each load, and running; and equal layers either way. layers_ms:
    {stage: modelled latency of each}."""
    console.print("\nEvery moment, MB with CUDA and TensorRT themselves; modelled", style="bold")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    for moment, size in fit.moments:
        over = "" if size <= fit.usable else f", {mb(size - fit.usable)} more than is usable"
        grid.add_row(mb(size), moment + over)
    console.print(grid)
    deep = [s for s in fit.stages if s.depth is not None]
    if not deep:
        return
    console.print("\nEqual layers in fp16: all in one engine / a loop of one engine per layer", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for title in ("layers", "build MB", "engines MB", "running MB", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for s in deep:
        d, (*ms, _) = s.depth, layers_ms.get(s.stage, ("",))
        table.add_row(s.stage, str(d.layers), f"{mb(d.unrolled_build)} / {mb(d.looped_build)}",
                      f"{mb(d.unrolled_files)} / {mb(d.looped_files)}",
                      f"{mb(d.unrolled_resident)} / {mb(d.looped_resident)}",
                      " / ".join(f"{t:.1f}" for t in ms) or "-")
    console.print(table)
    _print_refit(console, deep, layers_ms)


def _print_refit(console: Console, deep, layers_ms) -> None:
    """The two ways to a loop: the layers' weights are inputs of one engine, or refitted into one engine per layer."""
    console.print("\nThat loop with the weights as inputs, as built / refitted into an engine per layer,\n"
                  "which is not built", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for title in ("build MB", "running MB", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for s in deep:
        d, ms = s.depth, layers_ms.get(s.stage)
        table.add_row(s.stage, f"{mb(d.looped_build)} / {mb(d.refit_build)}",
                      f"{mb(d.looped_resident)} / {mb(d.refit_resident)}",
                      f"{ms[1]:.1f} to {ms[2]:.1f} / {ms[1]:.1f}" if ms else "-")
    console.print(table)
    console.print("to: if TensorRT lays the inputs out anew in every run, as it does when it is refitted")


def mb(size: int) -> str:
    return f"{size / 1e6:.0f}" if size >= 1e7 else f"{size / 1e6:.1f}"
