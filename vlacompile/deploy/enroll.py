"""Tells a device whose bundles it takes: installs a list of signers there (ssh-keygen's allowed signers)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from vlacompile.deploy.ssh import Connection
from vlart.errors import ConfigError

MOST_BYTES = 1 << 20
_TYPE = r"(?:sk-)?(?:ssh|ecdsa)-[\w.@-]+"
_SIGNER = re.compile(rf"(?!{_TYPE}\s)\S.*?\s{_TYPE}\s+[A-Za-z0-9+/]{{40,}}=*(?:\s.*)?")


@dataclass(frozen=True)
class Enrolled:
    """signers: keys in the list. covered: policies whose current bundle one of them signed; uncovered: the others,
    which go on running until a signed one is flashed."""

    host: str
    signers: int
    covered: tuple[str, ...]
    uncovered: tuple[str, ...]


def read_signers(path: Path) -> tuple[bytes, int]:
    """The list, and how many keys it has. Raises ConfigError for one by which a device would take nothing."""
    fix = ("lines of PRINCIPAL [OPTIONS] KEYTYPE KEY, as in: "
           'release@robots namespaces="vlacompile-bundle" ssh-ed25519 AAAA...')
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        lines = [line.strip() for line in text.decode().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the list of signers cannot be read", where=str(path), why=str(error), fix=fix) from error
    if len(text) > MOST_BYTES:
        raise ConfigError("the list of signers is too long", where=str(path), why=f"more than {MOST_BYTES} bytes",
                          fix="use a certificate authority: a line with cert-authority")
    named = {number: line for number, line in enumerate(lines, 1) if line and not line.startswith("#")}
    for number, line in named.items():
        if not _SIGNER.fullmatch(line):
            bare = re.match(rf"{_TYPE}\s", line)
            raise ConfigError("the list of signers has a line that names no signer", where=f"{path}, line {number}",
                              why="it begins with the key: the principal is missing" if bare else
                              "it has no principal and key", fix=fix)
    if not named:
        raise ConfigError("the list of signers is empty", where=str(path), why="the device would take nobody's bundle",
                          fix=fix)
    return text, len(named)


def enroll(connection: Connection, signers: Path, replace: bool) -> Enrolled:
    """From then on the device takes only bundles that they signed. replace: also where it has another list. Raises
    ConfigError, DeployError."""
    text, count = read_signers(signers)
    answers = connection.run("enroll", hashlib.sha256(text).hexdigest(), "replace" if replace else "keep", send=[text])
    covered, uncovered = (tuple(v for k, v in answers if k == key) for key in ("covered", "uncovered"))
    return Enrolled(connection.host, count, covered, uncovered)
