"""What a device may answer. It is another machine, whose shell may block, and which may say anything: answers are of
known kinds, of known form, not too many and not too late, and no character of theirs reaches a terminal as such."""

from __future__ import annotations

import os
import re
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vlart.errors import printable

PREFIX = "vlacompile "
MOST_ANSWERS = 100_000
MOST_LINE = 16_384  # bytes; the rest of a longer line is dropped
MOST_SAID = 2_000  # lines kept of what programs say, the last ones
MOST_BYTES = 256 << 20  # of all output of a step
MOST_SILENCES = 10  # that a step may take in all, whatever it says, times what it may be silent
_SHA, _SLOT, _COUNT, _TEXT = "[0-9a-f]{64}", "[ab]", r"[0-9]{1,15}", ".{0,4096}"
_BASE64 = "[A-Za-z0-9+/=]{1,4000}"
_IDENTITY = {"arch": r"[\w.-]{1,32}", "model": _TEXT, "compatible": _TEXT, "l4t": _TEXT}  # `identify` of acceptance.sh
# {step: {key: form of its value}}. Keys that device_of and flash.py need are in NEEDED.
FORMS = {
    "probe": {**_IDENTITY, "root": "/.{0,1023}", "free_kib": rf" *{_COUNT}", "ort": "/.{1,1023}", "signers": _SHA},
    "measure": {**_IDENTITY, "kernel": r"[\w.+~-]{1,128}", "date": r"\d{4}-\d\d-\d\d", "mode_id": r"\d{1,3}",
                "mode": r"[\w.+-]{1,64}", "profile": _SHA, "profile_part": _BASE64, "lock": _SHA, "lock_part": _BASE64,
                "tested": _TEXT, "measured": ""},
    "missing": {"current": rf"{_SLOT} ({_SHA}|damaged)", "need": f"{_SHA} {_COUNT}"},
    "permit": {"permitted": _COUNT},
    "put": {"stored": "", "part": _COUNT, "bad": _SHA},
    "link": {"damaged": _SHA, "slot": _SLOT},
    "build": {"built": ""},
    "self_test": {"passed": ""},
    "activate": {"active": _SLOT, "untidy": _SLOT},
    "other": {"policy": r"[\w.+-]{1,255}", "slot": _SLOT},
    "enroll": {"enrolled": "", "covered": r"[\w.+-]{1,255}", "uncovered": r"[\w.+-]{1,255}"},
    "unit": {"unit": r"vlacompile-[\w.+-]{1,255}\.service", "lingers": "yes"},
    "status": {"policy": r"[\w.+-]{1,255} ([ab])?", "slot": rf"[\w.+-]{{1,255}} {_SLOT} ({_SHA})? ?[0-9TZ:-]*",
               "history": r"[\w.+-]{1,255} [0-9TZ:-]+ [a-z-]+ [ab] [0-9a-f]+", "unit": r"[\w.+-]{1,255} [a-z-]*",
               "release": rf"[\w.+-]{{1,255}} {_COUNT}", "flashing": _TEXT,
               "damaged": rf"[\w.+-]{{1,255}} (current|release|{_SLOT} .{{1,4096}})"},
}
NEEDED = {"probe": ("arch", "root", "free_kib"), "build": ("built",), "self_test": ("passed",),
          "activate": ("active",), "other": ("policy", "slot"), "unit": ("unit",), "permit": ("permitted",),
          "measure": ("arch", "kernel", "date", "profile", "measured"),
          "enroll": ("enrolled",)}


class Unbelievable(Exception):
    """why: what a device said or did not say in time."""

    def __init__(self, why: str):
        super().__init__(why)
        self.why = why


@dataclass
class Heard:
    """answers: (key, value). said: the last lines of everything else."""

    answers: list[tuple[str, str]] = field(default_factory=list)
    said: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_SAID))


def listen(fd: int, heard: Callable[[str], None], silent_s: float, until: tuple[str, ...] = (),
           moved: Callable[[], float] = lambda: 0.0, watch: Callable[[], None] = lambda: None) -> Heard:
    """Everything until the output ends, or an answer named in `until`. heard: receives every line that is no answer.
    silent_s: without output, and since moved(), the time at which input was last taken; MOST_SILENCES times that in
    all. watch: called once a second. Raises Unbelievable."""
    found, rest, total, since = Heard(), b"", 0, time.monotonic()
    began = since
    while True:
        while not select.select([fd], [], [], 1.0)[0]:
            watch()
            if time.monotonic() - max(since, moved()) > silent_s:
                raise Unbelievable(f"it said nothing for {silent_s:.0f} s")
        if time.monotonic() - max(began, moved()) > MOST_SILENCES * silent_s:
            raise Unbelievable(f"it did not end within {MOST_SILENCES * silent_s:.0f} s")
        piece, since = os.read(fd, 65536), time.monotonic()
        total += len(piece)
        watch()
        if total > MOST_BYTES:
            raise Unbelievable(f"it said more than {MOST_BYTES >> 20} MB")
        *lines, rest = (rest + piece).split(b"\n")
        for raw in [*lines, *([rest] if not piece and rest else [])]:
            if _take(raw, found, heard) in until:
                return found
        rest = rest[:MOST_LINE]
        if not piece:
            return found


def _take(raw: bytes, found: Heard, heard: Callable[[str], None]) -> str | None:
    """The key, if the line is an answer."""
    line = printable(raw[:MOST_LINE].decode(errors="replace").rstrip("\r").replace("\t", " "))
    if not line.startswith(PREFIX):
        found.said.append(line)
        heard(line)
        return None
    key, _, value = line.removeprefix(PREFIX).partition(" ")
    if len(found.answers) >= MOST_ANSWERS:
        raise Unbelievable(f"it gave more than {MOST_ANSWERS} answers")
    found.answers.append((key, value))
    return key


def check(step: str, answers: list[tuple[str, str]]) -> None:
    """Raises Unbelievable for an answer that the step does not give, one of another form, and one that is missing."""
    forms = FORMS[step]
    for key, value in answers:
        if key not in forms or not re.fullmatch(forms[key], value, re.ASCII if key not in _FREE else 0):
            raise Unbelievable(f'it answers "{key} {value[:80]}"')
    missing = [key for key in NEEDED.get(step, ()) if key not in dict(answers)]
    if missing:
        raise Unbelievable(f'it does not answer "{missing[0]}"')


_FREE = ("root", "ort", "model", "compatible", "l4t", "flashing", "damaged")  # texts of any language
