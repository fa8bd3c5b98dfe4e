"""Blocks of the pages that the code itself gives: verbs, exit codes, statuses, keys, versions."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict

from docs.figures import ROOT

HEADER = ROOT / "runtime_c" / "include" / "vlart" / "vlart.h"


def verbs() -> str:
    from vlacompile.cli.main import VERBS

    rows = [f"| `vlacompile {name}` | {module.SUMMARY} |" for name, module in VERBS.items()]
    return "\n".join(["| verb | |", "|---|---|", *rows, ""])


def exit_codes() -> str:
    from vlart import errors

    codes: dict[int, list[str]] = defaultdict(list)
    for error in errors.VlaError.__subclasses__():
        if error.__module__ == errors.__name__:
            first = (error.__doc__ or "").splitlines()[0]
            codes[error.exit_code].append(f"| {error.exit_code} | `{error.__name__}` | {first} |")
    rows = [row for code in sorted(codes) for row in codes[code]]
    return "\n".join(["| exit code | error | when |", "|---|---|---|", *rows, ""])


def statuses() -> str:
    """The closed list of the C header."""
    found = re.findall(r'X\((\w+), (\d+),\s*"([^"]*)"\)', HEADER.read_text(encoding="utf-8").replace("\\\n", "\n"))
    rows = [f"| {number} | `{name}` | {words} |" for name, number, words in found]
    return "\n".join(["| | status | what it means, and what to do |", "|---|---|---|", *rows, ""])


def topic_map() -> str:
    """The keys of the map of topics, from the classes that read it."""
    from vlart.ros import mapping

    sections = {"observation.INPUT": mapping.Topic, "synchronise": mapping.Synchronise,
                "instruction": mapping.Instruction, "actions": mapping.Actions, "control": mapping.Control,
                "router": mapping.Routes, "on_failure": mapping.OnFailure}
    rows = [f"| `{section}.{field.name}` | {_default(field)} |" for section, cls in sections.items()
            for field in dataclasses.fields(cls)]
    return "\n".join(["| key | without it |", "|---|---|", *rows, "| `constants.INPUT` | |", ""])


def _default(field: dataclasses.Field) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        return "refused"
    return "" if value in (None, (), "") else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def versions() -> str:
    import importlib.metadata

    from vlart.bundle.format.layout import FORMAT_MAJOR, FORMAT_MINOR

    abi = re.findall(r"#define VLART_ABI_M\w+ (\d+)u", HEADER.read_text(encoding="utf-8"))
    rows = [f"| package | {importlib.metadata.version('vlacompile')} |",
            f"| bundle format | {FORMAT_MAJOR}.{FORMAT_MINOR} |", f"| C ABI | {'.'.join(abi)} |"]
    return "\n".join(["| | version |", "|---|---|", *rows, ""])
