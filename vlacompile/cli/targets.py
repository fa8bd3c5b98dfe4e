"""`vlacompile targets [NAME]`."""

from __future__ import annotations

from vlacompile.cli.listing import add_name, show
from vlacompile.cli.terminal import Terminal

SUMMARY = "list where a bundle can run, or print one target"
DESCRIPTION = "List the targets (where a bundle will run), or print one with every value."
EPILOG = """examples:
  vlacompile targets
  vlacompile targets host

next: `vlacompile build SOURCE --target NAME -o OUT.vlab`"""


def add_arguments(parser) -> None:
    add_name(parser, "target")


def run(args, terminal: Terminal) -> None:
    from vlacompile.target import load_target

    show("targets", load_target, args.name, terminal)
