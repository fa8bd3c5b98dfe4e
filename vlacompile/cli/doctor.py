"""`vlacompile doctor`."""

from __future__ import annotations

from vlacompile.cli.terminal import Terminal

SUMMARY = "say what is installed here and what is missing for which verb"
DESCRIPTION = """Say what is installed here and what is missing for which verb: interpreter,
Python packages (each is imported), the C runtime, engines, compilers, ssh, the
frontends' environments, disk and memory; with the command that installs each.

The text is what a bug report needs: paste it whole. Where the command line
itself does not start, `python -m vlacompile.doctor.examine` says the same."""
EPILOG = """examples:
  vlacompile doctor
  vlacompile doctor --json

next: run the commands that it prints, or paste its text into a bug report"""


def add_arguments(parser) -> None:
    """None of its own."""


def run(args, terminal: Terminal) -> None:
    from vlacompile.doctor.examine import VERBS, examine, text

    with terminal.phases() as phases:
        phases("look at this machine")
        document = examine(VERBS)
    terminal.show(document, lambda console: console.print(text(document), soft_wrap=True))
