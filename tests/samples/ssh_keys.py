"""Keys of OpenSSH for the tests: in files, in an agent, and in a security key made of software."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MISSING = "" if shutil.which("ssh-keygen") else "apt-get install openssh-client"
KINDS = {"ed25519": ("-t", "ed25519"), "ecdsa": ("-t", "ecdsa", "-b", "384"), "rsa": ("-t", "rsa", "-b", "2048")}
SECURITY_KEY = Path(__file__).with_name("security_key.c")


def new_key(folder: Path, name: str = "key", kind: str = "ed25519") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", *KINDS[kind], "-N", "", "-C", name, "-f", folder / name], check=True)
    return folder / name


def allow(signers: Path, *keys: Path, principal: str = "release@robots", options: str = "") -> Path:
    """The list of signers, with these keys added. options: as `namespaces="..."`."""
    with signers.open("a", encoding="utf-8") as file:
        for key in keys:
            public = key.with_name(f"{key.name}.pub").read_text(encoding="utf-8").strip()
            file.write(" ".join(filter(None, (principal, options, public))) + "\n")
    return signers


@contextlib.contextmanager
def agent(*keys: Path) -> Iterator[dict[str, str]]:
    """The environment of an ssh-agent that holds these keys."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the path of a Unix socket has at most 107 bytes
        socket = f"{folder}/agent"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 20
            while not Path(socket).exists() and time.monotonic() < until:
                time.sleep(0.02)
            environment = {"SSH_AUTH_SOCK": socket}
            for key in keys:
                subprocess.run(["ssh-add", "-q", key], env=os.environ | environment, check=True, timeout=20,
                               stderr=subprocess.DEVNULL)
            yield environment
        finally:
            process.terminate()
            process.wait(10)


def security_key(folder: Path) -> tuple[Path, Path] | None:
    """(library to be named in SSH_SK_PROVIDER, key whose private half it holds); None: it cannot be made here."""
    library = folder / "security_key.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not any(Path(p).exists() for p in HELPERS):
        return None
    made = subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SECURITY_KEY, "-lcrypto"], capture_output=True,
                          check=False)
    if made.returncode != 0:
        return None
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519-sk", "-w", library, "-N", "", "-C", "sk", "-f", folder / "sk"],
                   check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return library, folder / "sk"


HELPERS = ("/usr/lib/openssh/ssh-sk-helper", "/usr/libexec/ssh-sk-helper", "/usr/libexec/openssh/ssh-sk-helper")
