"""Entry point of `vlacompile`: parses arguments, runs one verb, turns errors into lines and exit codes.

The outermost frame: the only place with a broad `except`. Verbs import the compiler when they run,
so that help and wrong arguments answer at once.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import traceback

from vlacompile.cli import (
    bisect,
    build,
    check,
    completion,
    device,
    doctor,
    export,
    flash,
    frontends,
    inspect,
    plan,
    profile,
    recipes,
    replay,
    report,
    route,
    run,
    serve,
    sign,
    targets,
    verify,
    view,
    zoo,
)
from vlacompile.cli.terminal import Terminal
from vlart.errors import UsageError, VlaError, nearest
from vlart.standard_output import is_of_output, until_written

VERBS = {module.__name__.rpartition(".")[2]: module for module in (
    build, plan, inspect, verify, bisect, check, run, serve, replay, export, view, sign, flash, device, profile, report,
    route, targets, recipes, frontends, zoo, doctor, completion)}
INTERRUPTED, TERMINATED, UNEXPECTED = 130, 143, 1

DESCRIPTION = """Compile a PyTorch vision-language-action policy into a bundle (NAME.vlab) and
run it with the C runtime libvlart. The compiler divides the policy into stages:
values that depend on the same inputs form a stage, which the runtime recomputes
only when one of those inputs changed."""

EPILOG = """begin with:
  vlacompile build package.module:factory -o policy.vlab
  vlacompile inspect policy.vlab

exit codes:
  0 success  2 usage  3 target or recipe  4 policy source  5 tracing
  6 staging  7 emission  8 bundle  9 runtime  10 parity  11 precision
  12 device  13 output  130 interrupted  1 internal error"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UsageError(message, where=self.prog, why=" ".join(self.format_usage().split()),
                         fix=f"see `{self.prog} --help`")


class _Help(argparse.RawDescriptionHelpFormatter):
    """argparse (3.11) ignores the indentation when it measures a list of verbs, and so wraps the longest line."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += 2


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="vlacompile", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False, formatter_class=_Help)
    top.add_argument("--version", action="store_true", help="print the version and stop")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, module in VERBS.items():
        verb = verbs.add_parser(name, help=module.SUMMARY, description=module.DESCRIPTION, epilog=module.EPILOG,
                                allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(verb)
        verb.add_argument("--json", action="store_true", help="one JSON document on stdout; progress stays on stderr")
        verb.add_argument("--traceback", action="store_true", help="with an error, also print Python's traceback")
    return top


def parse(argv: list[str]) -> argparse.Namespace:
    """Raises UsageError; for a misspelt verb or option the error names the closest one."""
    top = parser()
    word = next((a for a in argv if not a.startswith("-")), None)
    if word is not None and word not in VERBS:
        raise UsageError(f'no verb is called "{word}"', where="vlacompile VERB", why=nearest(word, VERBS),
                         fix="see `vlacompile --help`")
    if any(not a or (a.startswith("--") and a.endswith("=")) for a in argv):  # no argument may be
        raise UsageError("an argument is empty", where=shlex.join(["vlacompile", *argv]),
                         why="a variable of the shell may not be set",
                         fix=f"see `vlacompile {word or 'VERB'} --help`")
    args, unknown = top.parse_known_args(argv)
    args.argv = argv
    if unknown:
        options = [*_options_of(VERBS[args.verb]), "--json", "--traceback"]
        others = [v for v, module in VERBS.items() if unknown[0] in _options_of(module)]
        why = f"it is an option of {', '.join(others)}" if others else nearest(unknown[0], options)
        raise UsageError(f'unknown argument "{unknown[0]}"', where=f"vlacompile {args.verb}",
                         why=why if unknown[0].startswith("-") else "one argument too many",
                         fix=f"see `vlacompile {args.verb} --help`")
    return args


def _options_of(module) -> list[str]:
    verb = _Parser(add_help=False)
    module.add_arguments(verb)
    return [o for a in verb._actions for o in a.option_strings]


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    return until_written(lambda: _main(argv), lambda failure: Terminal(as_json=False).error(failure))


def _main(argv: list[str]) -> int:
    terminal = Terminal("--json" in argv)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that `finally` cleans up
    try:
        code = _run(argv, terminal)
        terminal.finish()
        return code
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(argv: list[str], terminal: Terminal) -> int:
    try:
        args = parse(argv)
        if args.version:
            import importlib.metadata

            terminal.out.print(f"vlacompile {importlib.metadata.version('vlacompile')}")
            return 0
        if args.verb is None:
            parser().print_help(sys.stderr)
            return UsageError.exit_code
        VERBS[args.verb].run(args, terminal)
        return 0
    except VlaError as error:
        if "--traceback" in argv:
            traceback.print_exc()
        terminal.error(error)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        terminal.err.print(f"interrupted; {interrupt or 'nothing was left behind'}", soft_wrap=True)
        return INTERRUPTED
    except Exception as error:
        if is_of_output(error):
            raise
        if "--traceback" in argv:
            traceback.print_exc()
        terminal.error(VlaError(f"{type(error).__name__}: {error}",
                                where=f"vlacompile {argv[0]}" if argv else "vlacompile",
                                why="this is a bug in vlacompile, not in what you gave it",
                                fix="run it again with --traceback and report what it prints"))
        return UNEXPECTED


if __name__ == "__main__":
    sys.exit(main())
