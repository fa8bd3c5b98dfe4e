"""Signatures by OpenSSH: `ssh-keygen -Y`, with the keys and the lists of signers (allowed_signers) that it knows.

Must not know what is signed.
"""

from __future__ import annotations

import base64
import os
import re
import selectors
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "ssh-keygen"
_GOOD = re.compile(r'Good ".*" signature (?:for .* )?with (\S+ key \S+)')
_PLACE = re.compile(r"^/\S+:\d+: ")  # in the list, or in the copy of a line
_MOST_SAID = 1 << 20
_MOST_QUESTIONS = 1000  # to ssh-keygen, about one signature
_ANSWER_S, _TOUCH_S = 60.0, 300.0  # the second where somebody may be asked for a passphrase or a touch
_KEY_AT, _KEY_BYTES = 14, 48  # of a signature without its armour: how its key begins
_NO_REASON = ("Could not verify signature", "No principal matched", "Signing data on", "Confirm user presence")


class Refused(Exception):
    """kind: "tool" (ssh-keygen is missing, or older than OpenSSH 8.2), "endless" (it says too much, or takes too long),
    "key" (it cannot sign), "damaged" (no signature), "namespace", "content" (not what was signed), "period" (of the
    key), "foreign" (by none of the signers). why: in the words of ssh-keygen."""

    def __init__(self, kind: str, why: str):
        super().__init__(why)
        self.kind, self.why = kind, why


@dataclass(frozen=True)
class Signer:
    """principal: as the list of signers has it. key: type and fingerprint, as ssh-keygen prints them."""

    principal: str
    key: str


def require_program() -> None:
    """Raises Refused where ssh-keygen is not there or cannot find a signature's signers."""
    _, said = _run("find-principals")
    if "missing signature file" not in said:
        raise Refused("tool", _reason(said))


def sign(content: bytes, key: Path, namespace: str) -> bytes:
    """The signature. key: a private key's file, also of a security key, which then waits for a touch; or the .pub file
    of one that the agent holds. Raises Refused."""
    require_program()
    code, said, signature = _output(content, "sign", "-f", str(key), "-n", namespace, seconds=_TOUCH_S)
    if code != 0:
        raise Refused("key", _reason(said))
    return signature


def key_of(content: bytes, signature: bytes, namespace: str) -> str:
    """Type and fingerprint of the key that signed this, whosever it is. Raises Refused."""
    require_program()
    with tempfile.TemporaryDirectory() as folder:
        return _key_of(content, _written(folder, signature), namespace)


def signer_of(content: bytes, signature: bytes, signers: bytes, namespace: str) -> Signer:
    """Which of the signers signed this, as ssh-keygen finds them now. signers: the list's text. Raises Refused.

    ssh-keygen finds the first line that has the key, which may be for another purpose: so each is asked for."""
    require_program()
    signers = signers.replace(b"\0", b"?")
    with tempfile.TemporaryDirectory() as folder:
        name, listed = _written(folder, signature), str(Path(folder) / "signers")
        Path(listed).write_bytes(signers)
        key = _key_of(content, name, namespace)
        said: list[str] = []
        questions = 0
        for number, line in _lines_with(signers, signature):
            code, why, found = _output(line, "find-principals", "-s", name, "-f", "/dev/stdin")
            principals = found.decode(errors="surrogateescape").split("\n") if code == 0 else []
            for principal in filter(None, principals):
                questions += 1
                code, why = _run("verify", "-n", namespace, "-s", name, "-f", listed, "-I", principal, content=content)
                if code == 0:
                    return Signer(principal.encode(errors="replace").decode(), key)
                if questions >= _MOST_QUESTIONS:
                    break
            said.append(f"line {number}: {_PLACE.sub('', _reason(why))}")
            questions += 1
            if questions >= _MOST_QUESTIONS:
                raise Refused("foreign", f"{key}: too many lines or principals have it")
    period = [line for line in said if "has expired" in line or "not yet valid" in line]
    why = (period or said or ["none of the signers has it"])[0]
    raise Refused("period" if period else "foreign", f"{key}: {why}")


def _lines_with(signers: bytes, signature: bytes) -> list[tuple[int, bytes]]:
    """(number, line) of all that may have the signature's key, or have signed it."""
    armour = b"".join(line for line in signature.splitlines() if not line.startswith(b"-"))
    key = base64.b64encode(base64.b64decode(armour)[_KEY_AT:_KEY_AT + _KEY_BYTES]).lower()
    return [(number, line) for number, line in enumerate(signers.split(b"\n"), 1)
            if key in line.lower() or b"cert-authority" in line.lower()]


def _key_of(content: bytes, signature: str, namespace: str) -> str:
    code, said = _run("check-novalidate", "-n", namespace, "-s", signature, content=content)
    found = _GOOD.search(said)
    if code == 0 and found:
        return found[1]
    kind = "namespace" if "namespace does not match" in said else \
        "content" if "incorrect signature" in said else "damaged"
    raise Refused(kind, _reason(said))


def _written(folder: str, signature: bytes) -> str:
    path = Path(folder) / "signature"
    path.write_bytes(signature)
    return str(path)


def _run(action: str, *arguments: str, content: bytes = b"") -> tuple[int, str]:
    """(exit status, all that it says)."""
    code, said, out = _output(content, action, *arguments)
    return code, "\n".join([*said.splitlines(), *out.decode(errors="replace").splitlines()])


def _output(content: bytes, action: str, *arguments: str, seconds: float = _ANSWER_S) -> tuple[int, str, bytes]:
    """(exit status, what it says on its standard error, its output). Raises Refused, also where it does not end."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        try:
            child = subprocess.Popen([PROGRAM, "-Y", action, *arguments], stdin=file, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE)
        except OSError as error:
            raise Refused("tool", f"{PROGRAM}: {error.strerror}") from error
    with child:
        try:
            until = time.monotonic() + seconds
            out, said = _heard(child, until)
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise Refused("endless", f"it was ended after {seconds:.0f} s") from error
        finally:
            child.kill()
    return child.returncode, said.decode(errors="replace").strip(), out


def _heard(child: subprocess.Popen, until: float) -> tuple[bytes, bytes]:
    """Its output, and what it says on its standard error, until both end. Raises Refused, TimeoutExpired."""
    assert child.stdout is not None and child.stderr is not None
    out, said = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, out)
        selector.register(child.stderr, selectors.EVENT_READ, said)
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(PROGRAM, until)
            for item, _ in ready:
                piece = os.read(item.fd, 1 << 16)
                item.data.extend(piece)
                if not piece:
                    selector.unregister(item.fileobj)
                if len(item.data) >= _MOST_SAID:
                    raise Refused("endless", f"it says more than {_MOST_SAID >> 20} MiB")
    return bytes(out), bytes(said)


def _reason(said: str, otherwise: str = f"{PROGRAM} says nothing") -> str:
    """The first line that gives one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(_NO_REASON)), otherwise)
