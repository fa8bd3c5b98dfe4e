"""`vlacompile frontends [--install NAME]`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from vlacompile.cli.terminal import Terminal
from vlacompile.errors import ConfigError, nearest

SUMMARY = "list the kinds of source, or install a frontend's environment"
DESCRIPTION = """List the kinds of SOURCE that `vlacompile build` reads.

Some frontends need packages whose pinned versions conflict with others. Each
has a virtual environment of its own, which --install creates once;
`vlacompile build` then switches to it by itself."""
EPILOG = """examples:
  vlacompile frontends
  vlacompile frontends --install lerobot

next: `vlacompile build path/to/pretrained_model -o policy.vlab`"""


def add_arguments(parser) -> None:
    parser.add_argument("--install", metavar="NAME", help="create this frontend's environment (again, if it exists)")
    parser.add_argument("--also", metavar="PACKAGE", action="append", default=[],
                        help="with --install: also make this package of the current environment visible there")


def run(args, terminal: Terminal) -> None:
    from vlacompile.frontends.available import FRONTENDS
    from vlacompile.frontends.environments import ENVIRONMENTS

    if args.install is not None:
        if args.install not in ENVIRONMENTS:
            raise ConfigError(f'no frontend environment is called "{args.install}"',
                              where="vlacompile frontends --install",
                              why=nearest(args.install, ENVIRONMENTS), fix="see `vlacompile frontends`")
        with terminal.phases() as phases:
            ENVIRONMENTS[args.install].install(phases, tuple(args.also))
    rows = [{"name": f.name, "reads": f.reads, "state": f.state()} for f in FRONTENDS]
    terminal.show({"frontends": rows}, lambda console: _print(console, rows))


def _print(console: Console, rows: list[dict]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("reads")
    table.add_column("state")
    for row in rows:
        table.add_row(row["name"], row["reads"], row["state"])
    console.print(table)
