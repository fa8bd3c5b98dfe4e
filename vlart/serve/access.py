"""Access control: the address that a server listens on, its API key and its TLS certificate.

A key is read from a file and never printed; only its hash is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from vlart.errors import ConfigError

SHORTEST_KEY, LONGEST_KEY = 16, 4096  # characters
SCHEMES = ("Api-Key", "Bearer")


@dataclass(frozen=True)
class Access:
    """key_hash: sha256 of the key, or None: anyone who can reach the port. certificate, private_key: PEM files, or
    None: no TLS."""

    key_hash: bytes | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    def allows(self, header: str | None) -> bool:
        """header: the client's Authorization header. Constant-time comparison."""
        if self.key_hash is None:
            return True
        scheme, _, key = (header or "").partition(" ")
        given = hashlib.sha256(key.strip().encode(errors="surrogateescape")).digest()
        return hmac.compare_digest(given, self.key_hash) and scheme in SCHEMES

    def tls(self) -> ssl.SSLContext | None:
        """Raises ConfigError."""
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for path in (self.certificate, self.private_key):
            _require_file(path, "the TLS certificate cannot be used", "give a PEM certificate and its private key")
        try:
            context.load_cert_chain(self.certificate, self.private_key, password=_no_passphrase)
        except _Encrypted as error:
            raise ConfigError("the TLS key is encrypted", where=str(self.private_key),
                              why="nobody is there to type its passphrase when a server starts",
                              fix="openssl pkey -in KEY -out KEY.plain, and let only the server's user read it"
                              ) from error
        except (OSError, ssl.SSLError) as error:
            raise ConfigError("the TLS certificate cannot be used", where=f"{self.certificate}, {self.private_key}",
                              why=str(error), fix="give a PEM certificate and its private key") from error
        return context


def decide_access(host: str, key_file: str | None, no_auth: bool, certificate: str | None,
                  private_key: str | None) -> Access:
    """Raises ConfigError: a reachable port without a key (unless requested), half of a certificate, a bad key file."""
    if not is_loopback(host) and key_file is None and not no_auth:
        raise ConfigError(f"{host} can be reached from other machines", where="--host",
                          why="anyone who reaches the port could control the robot",
                          fix="add --api-key-file FILE, or --no-auth if the network itself is trusted")
    if key_file is not None and no_auth:
        raise ConfigError("both a key and no key are requested", where="--api-key-file, --no-auth",
                          why="they contradict each other", fix="give one of them")
    if (certificate is None) != (private_key is None):
        raise ConfigError("TLS needs two files", where="--tls-cert, --tls-key", why="only one was given",
                          fix="give the certificate and its private key")
    access = Access(None if key_file is None else _read_key(Path(key_file)),
                    Path(certificate) if certificate else None, Path(private_key) if private_key else None)
    access.tls()
    return access


def require_free(address: str, port: int) -> None:
    """Raises OSError where nobody can listen there."""
    places = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    failed = [_bound(family, place) for family, _, _, _, place in places]
    if None not in failed:
        raise next((e for e in failed if e is not None), OSError(f"{address} has no address"))


def _bound(family: int, place: tuple) -> OSError | None:
    """Why one cannot listen there; None: one can."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(place)
    except OSError as error:
        return error
    return None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a host name: its address is not known


class _Encrypted(Exception):
    pass


def _no_passphrase() -> str:
    raise _Encrypted


def _require_file(path: Path, what: str, fix: str) -> None:
    """Of a pipe or a device, reading might not end. One that is missing is told when it is read."""
    if path.exists() and not path.is_file():
        raise ConfigError(what, where=str(path), why="it is no regular file", fix=fix)


def _read_key(path: Path) -> bytes:
    _require_file(path, "the API key cannot be read", "give a file that holds the key on one line")
    try:
        with path.open("rb") as file:
            key = file.read(LONGEST_KEY + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the API key cannot be read", where=str(path), why=str(error),
                          fix="give a file that holds the key on one line") from error
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY or not key.isascii() or len(key.split()) != 1:
        raise ConfigError("the API key is not valid", where=str(path),
                          why=f"a key is one word of {SHORTEST_KEY} to {LONGEST_KEY} ASCII characters",
                          fix=f"python -c 'import secrets; print(secrets.token_urlsafe())' > {path.name}")
    return hashlib.sha256(key.encode()).digest()
