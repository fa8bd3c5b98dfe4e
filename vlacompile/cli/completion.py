"""`vlacompile completion SHELL`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from vlacompile.cli.terminal import Terminal
from vlart.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
SUMMARY = "print the completion script of a shell"
DESCRIPTION = """Print a script that completes verbs, options, names of targets and recipes, and
paths. It is a file of the shell alone: completing starts no Python. Write it
again after an update of vlacompile."""
EPILOG = """examples:
  vlacompile completion bash \\
    > ~/.local/share/bash-completion/completions/vlacompile
  vlacompile completion zsh > ~/.zfunc/_vlacompile    # a folder of $fpath
  vlacompile completion fish > ~/.config/fish/completions/vlacompile.fish

next: start a new shell, then vlacompile <Tab>"""

# What arguments take, by what --help calls it.
FILES = ("FILE", "FILE.json", "JSON", "INPUT", "SOURCE", "OUT", "PATH", "RANGES")
FOLDERS = ("BUNDLE", "DIR", "CHECKPOINT", "DATASET")


def add_arguments(parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")


def run(args, terminal: Terminal) -> None:
    script = script_for(args.shell)
    terminal.show({"shell": args.shell, "script": script}, lambda console: sys.stdout.write(script + "\n"))


def script_for(shell: str) -> str:
    """Raises ConfigError where shtab is not installed."""
    from vlacompile.cli.main import parser

    try:
        import shtab
    except ImportError as error:
        raise ConfigError("completion scripts cannot be written", where="this Python environment",
                          why="the package shtab is not installed", fix="pip install shtab") from error
    top = parser()
    names = _shipped_names()
    for verb, action in _arguments(top):
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if known := names.get(metavar) or names.get(f"{verb} {metavar}"):
            action.choices = known()
        elif metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(top, shell)


def _arguments(top: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    verbs = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    for name, verb in verbs.choices.items():
        yield from ((name, action) for action in verb._actions if action.nargs != 0 and action.choices is None)


def _shipped_names() -> dict[str, Callable[[], list[str]]]:
    from vlacompile.files.toml import shipped

    return {"T": lambda: list(shipped("targets")), "R": lambda: list(shipped("recipes")),
            "targets NAME": lambda: list(shipped("targets")), "recipes NAME": lambda: list(shipped("recipes")),
            "frontends NAME": _environments}


def _environments() -> list[str]:
    from vlacompile.frontends.environments import ENVIRONMENTS

    return list(ENVIRONMENTS)
