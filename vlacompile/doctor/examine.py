"""The whole examination, its document and its text. Imports nothing outside Python's own library until a look needs
it, so that it answers whatever is broken: `python -m vlacompile.doctor.examine`."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict

from vlacompile.doctor import machine
from vlacompile.doctor.finding import BROKEN, HERE, Finding
from vlacompile.doctor.packages import EVERY, find_packages

WIDTH = 80
LOOKS: tuple[tuple[str, Callable[[], Finding | list[Finding]]], ...] = (
    ("Python", machine.find_interpreter), ("vlacompile", machine.find_distributions), ("packages", find_packages),
    ("libvlart", machine.find_libvlart), ("libonnxruntime", machine.find_engine),
    *((p.name, lambda p=p: machine.find_program(p)) for p in machine.PROGRAMS),
    ("environments", machine.find_environments), ("disk", machine.find_disk), ("memory", machine.find_memory),
)


def examine(verbs: tuple[str, ...], looks=LOOKS) -> dict:
    """{"system", "findings": [...], "verbs": {verb: what it lacks}}."""
    findings: list[Finding] = []
    for name, look in looks:
        try:
            found = look()
        except Exception as error:  # noqa: BLE001  whatever is broken is what is looked for
            found = Finding(name, BROKEN, EVERY if name in ("Python", "vlacompile") else (),
                            why=f"the look at it failed: {type(error).__name__}: {error}")
        findings += found if isinstance(found, list) else [found]
    lacks = {verb: [f.what for f in findings if f.state != HERE and {verb, *EVERY} & set(f.uses)] for verb in verbs}
    return {"system": machine.system(), "findings": [asdict(f) for f in findings], "verbs": lacks}


def text(document: dict) -> str:
    """To read, and to paste into a bug report: nothing in it names who runs it."""
    findings = document["findings"]
    width = max(len(f["what"]) for f in findings)
    lines = [f"{key + ':':<12}{value}" for key, value in document["system"].items()] + [""]
    for f in findings:
        lines += _wrapped(f"{f['what']:<{width}}  ", f["found"] if f["state"] == HERE else
                          ", ".join(filter(None, (f["state"].upper(), f["found"], f["why"]))))
    lacking = [f for f in findings if f["state"] != HERE]
    if lacking:
        lines += ["", "what is not here, what for, and how to get it:"]
    for f in lacking:
        lines += _wrapped("  ", f"{f['what']}: for {', '.join(f['uses']) or 'what it says'}")
        lines += [f"    {f['install']}"] if f["install"] else []
    ready = [verb for verb, lacks in document["verbs"].items() if not lacks]
    lines += ["", *_wrapped("ready:      ", " ".join(ready) or "no verb")]
    for verb, lacks in document["verbs"].items():
        if lacks:
            lines += _wrapped("not ready:  ", f"{verb} ({', '.join(lacks)})")
    return "\n".join(lines)


def _wrapped(head: str, words: str) -> list[str]:
    words = " ".join(c if c.isprintable() else " " for c in " ".join(words.split()).split(" "))
    return textwrap.wrap(words, WIDTH, initial_indent=head, subsequent_indent=" " * len(head),
                         break_on_hyphens=False) or [head.rstrip()]


def main(argv: list[str]) -> int:
    """Without the command line's own packages. The verbs are those that findings name."""
    document = examine(VERBS)

    def write() -> int:
        sys.stdout.write((json.dumps(document, indent=1) if "--json" in argv else text(document)) + "\n")
        return 0

    try:
        from vlart.standard_output import print_failure, until_written
    except ImportError:  # the runtime may be what is broken
        return write()
    return until_written(write, print_failure)


# As the command line names them (a test compares); it cannot be asked, for it may be what is broken.
VERBS = ("build", "plan", "inspect", "verify", "bisect", "check", "run", "serve", "replay", "export", "view", "sign",
         "flash", "device", "profile", "report", "route", "targets", "recipes", "frontends", "zoo", "doctor",
         "completion")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
