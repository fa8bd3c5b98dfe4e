"""Shared by `targets` and `recipes`: a table of all, or one of them with every value resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from vlacompile.cli.terminal import Terminal
from vlacompile.files.toml import shipped


def add_name(parser, kind: str) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"a shipped {kind}, or the path of a .toml file")


def show(folder: str, load: Callable, name: str | None, terminal: Terminal) -> None:
    if name is not None:
        document = asdict(load(name))
        terminal.show(document, lambda console: print_one(console, document))
        return
    rows = [asdict(load(known)) for known in shipped(folder)]
    terminal.show({folder: rows}, lambda console: _print_all(console, rows))


def _print_all(console: Console, rows: list[dict]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("description")
    for row in rows:
        table.add_row(row["name"], row["description"])
    console.print(table)


def print_one(console: Console, document: dict) -> None:
    lines = list(flat(document))
    width = max(len(key) for key, _ in lines)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=width)
    table.add_column()
    for key, value in lines:
        table.add_row(key, value)
    console.print(table)


def flat(table: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            yield prefix + key, ", ".join(_item(x) for x in value) or "-"
        else:
            yield prefix + key, "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _item(x) -> str:
    if isinstance(x, dict):  # one of a list of tables, as [[precision.rule]]
        return " = ".join(str(v) for v in x.values())
    return f"{x:g}" if isinstance(x, float) else str(x)
