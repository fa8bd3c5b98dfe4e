"""Access control: the address that a server listens on, its API key and its TLS certificate.

A key is read from a file and never printed; only its hash is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
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
        try:
            context.load_cert_chain(self.certificate, self.private_key)
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


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a host name: its address is not known


def _read_key(path: Path) -> bytes:
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
