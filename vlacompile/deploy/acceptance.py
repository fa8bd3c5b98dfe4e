"""What a device measured of the bundle that is current there, and what it says of itself, as raw answers.

Over the connection of a flash, or from a file that `make board-acceptance` wrote on the board itself. Must not know
what the figures mean (vlacompile/profile/acceptance.py).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlacompile.deploy.answers import Unbelievable, check, listen
from vlacompile.deploy.ssh import Connection
from vlart.errors import ConfigError, DeployError

PASSES = 50  # over the golden frames, after those that warm up: some hundred replans of each kind
SILENT_S = 60.0  # it says every five seconds that it still measures
MOST_BYTES = 64 << 20  # of one file


@dataclass(frozen=True)
class Measured:
    """facts: {key of `identify`, `power_mode` or `measure_bundle`: value}. profile: vlart-run's file. lock: the record
    of the engines, None without any. self_test: vlart-run's last line."""

    facts: dict[str, str]
    profile: bytes
    lock: bytes | None
    self_test: str


def measure(connection: Connection, policy: str, slot: str, self_test: str, passes: int = PASSES,
            progress: Callable[[str], None] = lambda text: None) -> Measured:
    """Times a slot that passed its self-test, on the device. Raises DeployError; whatever becomes of it, the slot stays
    as it is."""
    progress("measure on the device")
    answers = connection.run("measure", policy, slot, str(passes), silent_s=SILENT_S,
                             heard=lambda line: progress(line.strip()[:60]) if line.startswith("measuring") else None)
    try:
        return _of(answers, self_test)
    except Unbelievable as error:
        raise DeployError(f"{connection.host} does not answer as a device does", where=f"{connection.host}, step "
                          "measure", why=error.why, step="measure",
                          fix="run the same command again; if it stays so, look at the device's memory and disk"
                          ) from error


def read_measured(path: Path) -> Measured:
    """From a file of answers. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            answers = listen(file.fileno(), lambda line: None, SILENT_S).answers
        check("measure", answers)
        tested = next((value for key, value in answers if key == "tested"), None)
        if tested is None:
            raise Unbelievable("it does not say that the self-test passed")
        return _of(answers, tested)
    except (OSError, Unbelievable) as error:
        raise ConfigError("what a board measured cannot be read", where=str(path),
                          why=error.why if isinstance(error, Unbelievable) else str(error),
                          fix="on the board: `make board-acceptance BUNDLE=NAME.vlab`, and copy its file whole"
                          ) from error


def _of(answers: list[tuple[str, str]], self_test: str) -> Measured:
    facts = {key: value for key, value in answers if not key.endswith("_part") and key not in ("profile", "lock")}
    profile = _file(answers, "profile")
    if profile is None:
        raise Unbelievable("it gives no times")
    return Measured(facts, profile, _file(answers, "lock"), self_test)


def _file(answers: list[tuple[str, str]], key: str) -> bytes | None:
    wanted = next((value for name, value in answers if name == key), None)
    if wanted is None:
        return None
    text = "".join(value for name, value in answers if name == f"{key}_part")
    if len(text) > MOST_BYTES:
        raise Unbelievable(f"its {key} has more than {MOST_BYTES >> 20} MB")
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Unbelievable(f"its {key} is no base64: {error}") from error
    if hashlib.sha256(content).hexdigest() != wanted:
        raise Unbelievable(f"its {key} arrived in part, or altered")
    return content
