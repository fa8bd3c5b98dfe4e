"""`vlacompile verify BUNDLE`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from vlacompile.cli.arguments import STAND_IN, add_stand_in, thread_count
from vlacompile.cli.terminal import Terminal

SUMMARY = "replay the golden frames of a bundle and compare with PyTorch"
DESCRIPTION = """Check every file of a bundle against its manifest, then replay its golden frames
through libvlart and compare every value with what PyTorch computed when the
bundle was built. Every value must pass all three metrics (max-abs, relative L2,
cosine); exit code 10 otherwise."""
EPILOG = """examples:
  vlacompile verify light.vlab
  vlacompile verify light.vlab --threads 1 --json

next: `vlacompile run BUNDLE` shows actions and latencies"""


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("--threads", type=thread_count, default=0, metavar="N",
                        help="threads of the inference engine (default: 0, its own choice)")
    add_stand_in(parser)


def run(args, terminal: Terminal) -> None:
    with terminal.phases() as phases:
        phases("check the files")
        from vlacompile.bundle.directory import check_files, read_bundle

        check_files(read_bundle(args.bundle))
        phases("replay the golden frames")
        from vlacompile.verify.replay import verify

        report = verify(args.bundle, threads=args.threads, stand_in=args.stand_in)
    terminal.show(report.as_dict(), lambda console: _print(console, report))
    report.require()


def _print(console: Console, report) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("value", overflow="fold")
    table.add_column("level", no_wrap=True)
    for title in ("max_abs / limit", "rel_l2", "cosine"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("pass", no_wrap=True)
    for v in report.values:
        table.add_row(v.value, v.level, f"{v.worst.max_abs:.1e} / {v.limit.max_abs:.1e}", f"{v.worst.rel_l2:.1e}",
                      f"{v.worst.cosine:.7f}", "yes" if v.passed else "NO", style=None if v.passed else "bold red")
    console.print(table)
    passed = sum(v.passed for v in report.values)
    runs = ", ".join(f"{name} {n}" for name, n in report.runs.items())
    console.print(f"\n{passed} of {len(report.values)} values pass over {report.frames} frames; runs: {runs}")
    if report.stand_in:
        console.print(STAND_IN)
