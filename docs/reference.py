"""Blocks of the README that the code itself gives: verbs, exit codes."""

from __future__ import annotations

from collections import defaultdict



def verbs() -> str:
    from vlacompile.cli.main import VERBS

    rows = [f"| `vlacompile {name}` | {module.SUMMARY} |" for name, module in VERBS.items()]
    return "\n".join(["| verb | |", "|---|---|", *rows, ""])


def exit_codes() -> str:
    from vlacompile import errors

    codes: dict[int, list[str]] = defaultdict(list)
    for error in errors.VlaError.__subclasses__():
        if error.__module__ == errors.__name__:
            codes[error.exit_code].append(f"| {error.exit_code} | `{error.__name__}` | {(error.__doc__ or '').splitlines()[0]} |")
    rows = [row for code in sorted(codes) for row in codes[code]]
    return "\n".join(["| exit code | error | when |", "|---|---|---|", *rows, ""])
