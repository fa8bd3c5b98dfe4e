"""`vlacompile plan SOURCE`."""

from __future__ import annotations

import subprocess

from rich.console import Console
from rich.table import Table

from vlacompile.bundle.plan.stage_rows import gflop, megabytes, percent, short_names
from vlacompile.cli.arguments import positive
from vlacompile.cli.fit_table import print_fit
from vlacompile.cli.terminal import Terminal

SUMMARY = "show the stages of a policy without building it"
DESCRIPTION = """Trace a policy and divide it into stages, without writing or running anything:
which inputs each stage depends on, how often it runs, what it costs, and which
weights are constant-folded or never read. With --no-weights the policy is made
from shapes alone (no weights are read), so that a policy of any size fits into
memory. For a board it also says whether the policy fits into its memory, with
which precisions and loading, or what would make it fit. If the recipe leaves
the precision open, the planner chooses it by memory alone: the effect on the
actions is not measured here."""
EPILOG = """examples:
  vlacompile plan my_robot.policy:make
  vlacompile plan outputs/train/checkpoints/last/pretrained_model --no-weights
  vlacompile plan my_robot.policy:make --target orin-nano-8gb --instructions 20

next: `vlacompile build SOURCE` builds it"""


def add_arguments(parser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="+",
                        help="package.module:factory, or a checkpoint directory; NAME=SOURCE for each of several")
    parser.add_argument("--target", "-t", default="host", metavar="T",
                        help="the hardware to plan for: a name from `vlacompile targets`, or a .toml file (default: "
                             "host)")
    parser.add_argument("--recipe", "-r", default="default", metavar="R",
                        help="build options (precision, loops, tolerances): a name from `vlacompile recipes`, or a "
                             ".toml file (default: default)")
    parser.add_argument("--instructions", type=positive, metavar="N",
                        help="on a board: precompute N instructions, so that the language stages need not be loaded")
    parser.add_argument("--swap", type=positive, metavar="MB",
                        help="on a board: swap space available while engines are built")
    parser.add_argument("--no-weights", action="store_true", help="use shapes only; the weights need not be present")


def run(args, terminal: Terminal) -> None:
    from vlacompile.errors import ConfigError
    from vlacompile.hardware.target import load_target
    from vlacompile.phases.load_policy import check_source, environment_for, parse_sources
    from vlacompile.recipe.recipe import load_recipe

    # Wrong arguments are reported before anything slow begins.
    target, fit = load_target(args.target), None
    load_recipe(args.recipe, target)
    if target.board is None and (args.instructions or args.swap):
        raise ConfigError("--instructions and --swap need a board", where=f'target "{target.name}"',
                          why="the target has no memory to plan for", fix="choose a board: `vlacompile targets`")
    source = parse_sources(args.source)
    check_source(source)
    environment = environment_for(source, weights=not args.no_weights)
    if environment is not None and environment.is_installed():
        raise SystemExit(subprocess.call([environment.python, "-m", "vlacompile.cli.main", *args.argv]))
    with terminal.phases() as phases, phases.asides():
        phases("load the compiler")
        from vlacompile.pipeline import plan, plan_on_board

        if target.board is None:
            found = plan(source, args.target, args.recipe, weights=not args.no_weights, progress=phases)
        else:
            found, fit = plan_on_board(source, args.target, args.recipe, weights=not args.no_weights,
                                       instructions=args.instructions, swap_mb=args.swap or 0.0, progress=phases)
    document = found.as_dict() | ({"fit": fit.as_dict()} if fit is not None else {})
    terminal.show(document, lambda console: _print(console, found, fit))
    if fit is not None:
        fit.require()


def _print(console: Console, found, fit=None) -> None:
    short = short_names(list(found.sources))
    console.print(f"{found.policy}: {_millions(found.parameters['all'])} parameters", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("depends on")
    for title in ("GFLOP", "share", "weights MB", "share", "iter."):
        table.add_column(title, justify="right", no_wrap=True)
    for r in found.stages:
        depends = "all inputs" if len(r.sources) == len(found.sources) > 1 else ", ".join(short[n] for n in r.sources)
        table.add_row(r.stage, depends, gflop(r.flops), percent(r.flops_share), megabytes(r.weight_bytes),
                      percent(r.weight_share), str(r.iterations))
    console.print(table)
    p, work, made = found.parameters, found.flops, sum(f.numbers for f in found.folded)
    _facts(console, "Parameters", (
        (_millions(p["in_stages"]), "in stages"),
        (_millions(p["folded"]), f"constant-folded into {_millions(made)} numbers"),
        (_millions(p["unread"]), "never read"), (_millions(p["dropped"]), "duplicates of others")))
    _facts(console, "Work per chunk, GFLOP", (
        (gflop(work["in_stages"]), "in stages"), (gflop(work["folded"]), "constant-folded"),
        (gflop(work["saved"]), "removed: repeated or unused work")))
    if fit is not None:
        print_fit(console, fit)


def _facts(console: Console, title: str, rows: tuple[tuple[str, str], ...]) -> None:
    console.print(f"\n{title}", style="bold")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right")
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else str(count)
