"""`vlacompile frontends [--install NAME]`."""

from __future__ import annotations

import importlib.metadata

from rich.console import Console
from rich.table import Table

from vlacompile.cli.terminal import Terminal
from vlart.errors import ConfigError, nearest

SUMMARY = "list the kinds of source, or install a frontend's environment"
DESCRIPTION = """List the kinds of SOURCE that `vlacompile build` reads.

Some frontends need packages whose pinned versions conflict with others. Each
has a virtual environment of its own, which --install creates once;
`vlacompile build` then switches to it by itself."""
EPILOG = """examples:
  vlacompile frontends
  vlacompile frontends --install lerobot061
  vlacompile frontends --install lerobot061 --also lerobot_policy_NAME

next: `vlacompile build path/to/pretrained_model -o policy.vlab`, or the name
of a checkpoint on the Hugging Face Hub in place of the path"""


def add_arguments(parser) -> None:
    parser.add_argument("--install", metavar="NAME", help="create this frontend's environment (again, if it exists)")
    parser.add_argument("--also", metavar="PACKAGE", action="append", default=[],
                        help="with --install: also make this package visible there, such as a LeRobot policy plugin: "
                             "one that is installed here, or what pip takes (name, directory, wheel); its own "
                             "requirements are given likewise. An environment that is up to date is kept")


def run(args, terminal: Terminal) -> None:
    from vlacompile.frontends.available import FRONTENDS
    from vlacompile.frontends.environments import ENVIRONMENTS

    if args.install is not None:
        if args.install not in ENVIRONMENTS:
            raise ConfigError(f'no frontend environment is called "{args.install}"',
                              where="vlacompile frontends --install",
                              why=nearest(args.install, ENVIRONMENTS), fix="see `vlacompile frontends`")
        environment = ENVIRONMENTS[args.install]
        with terminal.phases() as phases:
            if not args.also or not environment.is_current():
                environment.install(phases, tuple(_of_datasets()))
            environment.add(tuple(args.also), phases)
    rows = [{"name": f.name, "reads": f.reads, "state": f.state()} for f in FRONTENDS]
    terminal.show({"frontends": rows}, lambda console: _print(console, rows))


def _of_datasets() -> list[str]:
    """What reads a dataset for `build --calibrate`, as far as it is installed: linked like the compiler's packages."""
    from vlacompile.frontends.dataset import PACKAGES

    return [p for p in PACKAGES if next(iter(importlib.metadata.distributions(name=p)), None) is not None]


def _print(console: Console, rows: list[dict]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("reads")
    table.add_column("state")
    for row in rows:
        table.add_row(row["name"], row["reads"], row["state"])
    console.print(table)
