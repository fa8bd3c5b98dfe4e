"""Signed bundles. What is signed is SHA256SUMS, a list of every file of the bundle, the manifest first of all, with the
policy's name and a release number in its comments:

    # vlacompile-bundle 1
    # policy pick
    # release 1793000000
    0e5a...  golden/golden.bin
    ...

so that `ssh-keygen -Y verify` and `sha256sum --check` say of a bundle all that this file does, and a device needs
nothing else. The release number is what a device counts: it activates no bundle of a lower one than it has seen.
"""

from __future__ import annotations

import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from vlart.bundle.directory import (
    ENGINES,
    SIGNATURE_FILE,
    SUMS_FILE,
    Bundle,
    check_files,
    files_of,
    read_bundle,
)
from vlart.bundle.manifest import MANIFEST_FILE
from vlart.errors import BundleError, SignatureError
from vlart.files import ssh_signature
from vlart.files.atomic import write_file
from vlart.files.regular import read_below, sha256_below
from vlart.files.ssh_signature import Refused

NAMESPACE = "vlacompile-bundle"
MOST_RELEASE = 10**15 - 1  # a number that every shell counts with
_BUILDING = ".building"  # what keeps two vlart-build apart
_FORMAT = "# vlacompile-bundle 1"
_MOST_BYTES = 1 << 24
_MOST_SIGNATURE, _MOST_SIGNERS = 1 << 16, 1 << 20
_PATH = re.compile(r"[\w.+@-]+(/[\w.+@-]+)*", re.ASCII)
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SUMS = re.compile(_FORMAT + r"\n# policy (.+)\n# release ([0-9]{1,15})\n((?:[0-9a-f]{64}  .+\n)*)")
_ENDLESS_FIX = "see which ssh-keygen comes first in PATH; it must be that of OpenSSH"
_TOOL_FIX = "install OpenSSH 8.2 or newer (apt-get install openssh-client)"


@dataclass(frozen=True)
class Signature:
    """release: the number that devices count. principal: of the signer, "" where no list of signers was asked.
    key: type and fingerprint."""

    release: int
    key: str
    principal: str = ""


@dataclass(frozen=True)
class Trust:
    """signature: by one of the signers; None: none were named. native_code: its stages that are machine code may be
    loaded."""

    signature: Signature | None
    native_code: bool


def trust(path: str | Path, signers: str | Path | None, *, keep_engines: bool = False,
          native_code: bool = False) -> Trust:
    """What whoever opens a bundle may do with it, by the same rules for every program: with a list of signers only what
    one of them signed is opened, and that vouches for its machine code; without one the caller does. keep_engines: as
    of `require_signed`. Raises BundleError, SignatureError."""
    if signers is None:
        return Trust(None, native_code)
    return Trust(require_signed(path, Path(signers), keep_engines=keep_engines), True)


def require_signing(key: Path) -> None:
    """Raises SignatureError where nothing could be signed, before anything slow begins."""
    try:
        ssh_signature.require_program()
    except Refused as refused:
        raise _error(refused, str(key), key) from refused
    if not key.is_file():
        raise SignatureError("there is no such key", where=str(key), why="no such file",
                             fix="give a private key's file, or the .pub file of a key that the agent holds")


def sign(bundle: Bundle, key: Path, release: int | None = None) -> Signature:
    """Sign a bundle whose files are those of its manifest. key: a private key's file, or the .pub file of one that the
    agent or a security key holds. release: None: the time in seconds, so that what is signed later is newer. Raises
    BundleError, SignatureError."""
    require_signing(key)
    check_files(bundle)
    release = int(time.time()) if release is None else release
    sums = _sums(bundle, release)
    try:
        signature = ssh_signature.sign(sums, key, NAMESPACE)
        found = Signature(release, ssh_signature.key_of(sums, signature, NAMESPACE))
    except Refused as refused:
        raise _error(refused, str(bundle.path), key) from refused
    try:
        write_file(bundle.path / SUMS_FILE, sums)
        write_file(bundle.path / SIGNATURE_FILE, signature)
    except OSError as error:
        raise BundleError("the signature cannot be written", where=str(bundle.path), why=str(error.strerror),
                          fix="check the rights and the free space, then sign the bundle again") from error
    return found


def require_signed(path: str | Path, signers: Path, *, keep_engines: bool = False) -> Signature:
    """Every file of the bundle is as one of the signers signed it, and there are no others. keep_engines: take what is
    in engines/, which no signature binds, since you know that this board's vlart-build made it. Raises BundleError,
    SignatureError."""
    path = Path(path)
    listed = _read_signers(signers)
    sums, signature = _read(path, SUMS_FILE, _MOST_BYTES), _read(path, SIGNATURE_FILE, _MOST_SIGNATURE)
    try:
        signer = ssh_signature.signer_of(sums, signature, listed, NAMESPACE)
    except Refused as refused:
        raise _error(refused, str(path), signers) from refused
    policy, release, hashes = _parsed(sums, path)
    for name in files_of(path):
        if name not in (*hashes, SUMS_FILE, SIGNATURE_FILE):
            raise SignatureError(f"{name!a} is not in what was signed", where=str(path / SUMS_FILE),
                                 why="the signature binds every file of a bundle",
                                 fix="remove that file, or copy the bundle again")
    _check_engines(path, keep_engines)
    for name, sha in hashes.items():
        _require_file(path, name, sha)
    bundle = read_bundle(path)
    if bundle.plan.name != policy or _hashes(bundle) != {n: sha for n, sha in hashes.items() if n != MANIFEST_FILE}:
        raise SignatureError("the signed list is of another bundle", where=str(path / SUMS_FILE),
                             why=f'it is of "{policy}", with other files than the manifest of "{bundle.plan.name}" has',
                             fix="copy the bundle again")
    return Signature(release, signer.key, signer.principal)


def _check_engines(root: Path, keep: bool) -> None:
    for folder, below, names in os.walk(root / ENGINES):
        for name in sorted((*below, *names)):
            place = Path(folder) / name
            info = place.lstat()
            if place == root / ENGINES / _BUILDING and stat.S_ISREG(info.st_mode) and info.st_size == 0:
                continue
            if name.startswith(".") or not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
                raise SignatureError("engines/ has what no board makes there", where=ascii(str(place))[1:-1],
                                     why="links, hidden names and special files do not belong there", fix="remove it")
            if stat.S_ISREG(info.st_mode) and not keep:
                raise SignatureError("engines are bound by no signature", where=ascii(str(place))[1:-1],
                                     why="a board makes them, and whoever could write here may have put others there",
                                     fix="remove engines/, or build them here: `vlart-build BUNDLE --signers FILE`; if "
                                         "they were: `--keep-engines`")


def _hashes(bundle: Bundle) -> dict[str, str]:
    return {path: entry["sha256"] for path, entry in bundle.manifest["files"].items()}


def _read_signers(signers: Path) -> bytes:
    """The list, which may be a link, but is a regular file of a sane size: a pipe waits, a device never ends."""
    try:
        real = signers.resolve(strict=True)
        return read_below(real.parent, real.name, _MOST_SIGNERS)
    except (OSError, RuntimeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        raise SignatureError("the list of signers cannot be read", where=str(signers), why=why,
                             fix="give a file in ssh-keygen's ALLOWED SIGNERS format: PRINCIPAL KEYTYPE KEY on a line"
                             ) from error


def _read(root: Path, name: str, most_bytes: int) -> bytes:
    try:
        return read_below(root, name, most_bytes)
    except FileNotFoundError as error:
        raise SignatureError("the bundle is not signed", where=str(root / name), why="no such file",
                             fix="sign it where it was built: `vlacompile sign BUNDLE --key KEY`") from error
    except OSError as error:
        raise SignatureError("the signature cannot be read", where=str(root / name), why=str(error.strerror),
                             fix="copy the bundle again") from error


def _sums(bundle: Bundle, release: int) -> bytes:
    if not 0 <= release <= MOST_RELEASE:
        raise SignatureError(f"the release number {release} is out of range", where=str(bundle.path),
                             why=f"devices count from 0 to {MOST_RELEASE}", fix="give such a number")
    manifest = read_below(bundle.path, MANIFEST_FILE, _MOST_BYTES)
    hashes = _hashes(bundle) | {MANIFEST_FILE: sha256_below(bundle.path, MANIFEST_FILE, len(manifest))}
    unfit = next((text for text in (bundle.plan.name, *hashes) if not _PATH.fullmatch(text)), None)
    if unfit is not None:
        raise SignatureError(f"{unfit!a} cannot be signed", where=str(bundle.path),
                             why="letters, digits and _ . + @ - are allowed in names", fix="build it with another name")
    lines = [_FORMAT, f"# policy {bundle.plan.name}", f"# release {release}",
             *(f"{sha}  {path}" for path, sha in sorted(hashes.items()))]
    return ("\n".join(lines) + "\n").encode()


def _parsed(sums: bytes, path: Path) -> tuple[str, int, dict[str, str]]:
    """(policy, release number, {path: sha256}) of a list whose signature holds. Raises SignatureError."""
    found = _SUMS.fullmatch(sums.decode(errors="replace"))
    if found is None:
        raise SignatureError("what was signed is no list of a bundle's files", where=str(path / SUMS_FILE),
                             why="it has another form, or was made by a newer vlacompile",
                             fix="sign the bundle again, or update vlacompile here")
    return found[1], int(found[2]), {name: sha for sha, name in _LINE.findall(found[3])}


def _require_file(root: Path, path: str, sha: str) -> None:
    try:
        digest = sha256_below(root, path, (root / path).lstat().st_size)
    except OSError as error:
        raise SignatureError(f"{path} is not as it was signed", where=str(root / path), why=str(error.strerror),
                             fix="copy the bundle again") from error
    if digest != sha:
        raise SignatureError(f"{path} is not as it was signed", where=str(root / path),
                             why=f"sha256 is {digest[:12]}..., the signed list says {sha[:12]}...",
                             fix="copy the bundle again")


def _error(refused: Refused, bundle: str, given: Path) -> SignatureError:
    """given: the key or the list of signers."""
    sums = f"{bundle}/{SUMS_FILE}"
    what, where, fix = {
        "tool": ("ssh-keygen is missing or too old", "this machine", _TOOL_FIX),
        "endless": ("ssh-keygen does not end", "this machine", _ENDLESS_FIX),
        "key": ("the key does not sign", str(given), "give a private key's file and its passphrase; of a .pub file, "
                                                     "add the key to the agent (ssh-add) or plug in the security key"),
        "damaged": ("the signature is damaged", f"{bundle}/{SIGNATURE_FILE}",
                    "copy the bundle again, or sign it again"),
        "namespace": ("the signature is not of a bundle", f"{bundle}/{SIGNATURE_FILE}",
                      "sign it with `vlacompile sign`: a signature for another purpose counts for nothing"),
        "content": ("the signed list of files was changed", sums, "copy the bundle again, or sign it again"),
        "period": ("the key's period is over, or has not begun", str(given),
                   "sign the bundle with a key that is valid now; and check this machine's clock"),
        "foreign": ("the bundle is signed by a foreign key", str(given),
                    "take the bundle from somebody whom the list of signers has; or, if you know the key, add it there "
                    f'with namespaces="{NAMESPACE}"'),
    }[refused.kind]
    return SignatureError(what, where=where, why=refused.why, fix=fix)
