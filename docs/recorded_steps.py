"""Commands of a page as a new user types them: run one after the other in one shell, in an empty folder, and recorded
with what they printed, how long they took and what they left on the disk. The pages are rendered from the records, so
that what they show was run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docs.figures import MISSING, ROOT

KEPT = 14  # lines of an output
NO_PROGRESS = r"^(?!  ).*|^ {9}"  # without vlacompile's lines on what it is doing, which have their times
_MARK = re.compile(r"^@@ (begin|end) ([\w-]+) (\d+) ([\d.,]+) (\d+)$", re.MULTILINE)
_BAR = re.compile(r"[^\r\n]*\r(?!\n)")  # what a progress bar has overwritten
# LeRobot's time stamps, and places inside its files
_STAMP = re.compile(r"^(INFO|WARNING) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\S+:\d+ ")
_LANGUAGES = {".py": "python", ".cc": "cpp", ".yaml": "yaml", ".txt": "cmake"}


@dataclass(frozen=True)
class Step:
    """command: as on the page. shown: an expression; the lines of the output that it matches are kept, without it all.
    files: of the repository, that the user writes before. ends: the exit status with which it ends well, recorded as
    0."""

    name: str
    command: str
    shown: str = ""
    files: tuple[str, ...] = ()
    ends: int = 0

    @property
    def status(self) -> str:
        """Bash's expression for what is recorded, of the status of what failed."""
        return f"$((failed == {self.ends} ? 0 : failed ? failed : 1))"


def run(steps: Sequence[Step], folder: Path, environment: Mapping[str, str], title: str = "") -> list[dict]:
    """The steps in one shell, in `folder`, up to the first that fails. environment: in place of this one. Returns one
    row per step: name, command, files, status, seconds, megabytes (that the folder grew by), output (lines)."""
    places = {"files": str(ROOT), "folder": str(folder)}
    copies = {s.name: "".join(f"cp {places['files']}/{f} {places['folder']}/\n" for f in s.files) for s in steps}
    mark = lambda word, step, status: (f"echo '@@ {word} {step.name} '{status} $EPOCHREALTIME "
                                       f"$(du -sk --apparent-size {places['folder']} | cut -f1)\n")
    # bash runs the trap for every command that fails, unless its status is asked for
    script = "set -m\ntrap 'failed=$?' ERR\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n" + "".join(
        copies[s.name] + mark("begin", s, 0) + f"failed=0\n{s.command}\nstatus={s.status}; echo\n"
        + mark("end", s, "$status") + "[ $status = 0 ] || exit\n" for s in steps)  # a later one may wait for it
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=dict(environment), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    return rows(done.stdout.decode(errors="replace"), steps, folder)


def clean_environment(**more: str) -> dict[str, str]:
    """This one's, without what leads Python to this checkout."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"VLACOMPILE": str(ROOT), "HF_HUB_OFFLINE": "1"} | more


def rows(printed: str, steps: Iterable[Step], folder: Path) -> list[dict]:
    marks = {(m[1], m[2]): m for m in _MARK.finditer(printed.replace("\r\n", "\n"))}
    found = []
    for step in steps:
        begin, end = marks.get(("begin", step.name)), marks.get(("end", step.name))
        if begin is None or end is None:
            break
        seconds = float(end[4].replace(",", ".")) - float(begin[4].replace(",", "."))
        found.append({"name": step.name, "command": step.command, "status": int(end[3]), "seconds": round(seconds, 1),
                      "megabytes": round((int(end[5]) - int(begin[5])) / 1024, 1),
                      "output": output(printed[begin.end():end.start()], step, folder)})
    return found


def output(printed: str, step: Step, folder: Path) -> list[str]:
    plain = _BAR.sub("", printed).replace(str(folder), ".").replace(str(ROOT), "$VLACOMPILE")
    lines = [_STAMP.sub(r"\1 ", line.rstrip()) for line in plain.splitlines() if line.strip()]
    return [line for line in lines if re.search(step.shown, line)][-KEPT:]


def block(recorded: Iterable[dict], step: Step, by: str) -> str:
    """For the page: the files that a step's user writes, its commands, and what they printed. by: the module that
    recorded it."""
    found = next((r for r in recorded if r["name"] == step.name), None)
    if found is None:
        return MISSING
    shown = [_file(f) for f in step.files]
    typed = "\n".join(line if line.startswith("  ") else f"$ {line}" for line in found["command"].splitlines())
    return "\n".join([*shown, f"<!-- not run: recorded by {by} -->", "```console", typed, *found["output"], "```", ""])


def _file(relative: str) -> str:
    path = ROOT / relative
    return "\n".join([f"`{path.name}`:", "", "<!-- not run: a file that the user of this page writes -->",
                      f"```{_LANGUAGES[path.suffix]}", path.read_text(encoding="utf-8").rstrip(), "```", ""])
