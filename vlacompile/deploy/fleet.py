"""Flashes several devices in parallel, from a TOML file; each succeeds or fails independently.

    [[host]]
    name = "arm-left"                # as ssh knows it
    root = "/opt/vlacompile"         # the rest is optional; see the options of `vlacompile flash`
    ort = "/opt/onnxruntime/lib/libonnxruntime.so.1.22.0"
    board = "orin-nano-8gb"
"""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlacompile.deploy.flash import Flashed, Options, connect, flash
from vlacompile.deploy.ssh import Connection
from vlart.bundle.directory import Bundle
from vlart.errors import ConfigError, DeployError, VlaError
from vlart.files.tables import from_table

AT_ONCE = 8


@dataclass(frozen=True)
class Host:
    name: str
    root: str | None = None
    ort: str | None = None
    tensorrt: str | None = None
    tvm: str | None = None
    board: str | None = None

    def options(self, general: Options) -> Options:
        own = {k: v for k in ("root", "ort", "tensorrt", "tvm", "board") if (v := getattr(self, k)) is not None}
        return replace(general, **own)


@dataclass(frozen=True)
class Fleet:
    host: tuple[Host, ...] = field(default=())


def read_fleet(path: Path) -> Fleet:
    """Raises ConfigError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("the fleet file cannot be read", where=str(path), why=str(error), fix="correct it") from error
    fleet = from_table(Fleet, table, str(path))
    names = [host.name for host in fleet.host]
    if not names or len(set(names)) < len(names):
        raise ConfigError("the fleet file names a host twice" if names else "the fleet file names no host",
                          where=str(path),
                          why=", ".join(names) or "there is no [[host]]",
                          fix='each host is one [[host]] with name = "..."')
    return fleet


def flash_fleet(bundle: Bundle, fleet: Fleet, general: Options,
                progress: Callable[[str, str], None] = lambda host, text: None) -> dict[str, Flashed | VlaError]:
    """{host: result or error}, in the order of the file. progress(host, text) is called from several threads.

    An interrupt closes all connections and is raised again; each device then has its old or its new slot current.
    """
    options = replace(general, batch=True)
    found: dict[str, Flashed | VlaError] = {}
    open_now: set[Connection] = set()
    stopped = threading.Event()

    def one(host: Host) -> None:
        connection = None
        try:
            progress(host.name, "connect")
            own = host.options(options)
            connection = connect(host.name, own)
            open_now.add(connection)
            if stopped.is_set():
                return
            with connection:
                found[host.name] = flash(bundle, connection, own, lambda text: progress(host.name, text))
        except VlaError as error:
            found[host.name] = error
        finally:
            open_now.discard(connection)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for done in [pool.submit(one, host) for host in fleet.host]:
                done.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for connection in list(open_now):
                connection.close()
            raise
    return {host.name: found[host.name] for host in fleet.host}


def require_all(found: dict[str, Flashed | VlaError]) -> None:
    """Raises DeployError if any failed."""
    failed = {host: f for host, f in found.items() if isinstance(f, VlaError)}
    if failed:
        raise DeployError(f"{len(failed)} of {len(found)} hosts were not flashed", where=", ".join(failed),
                          step="fleet",
                          why="; ".join(dict.fromkeys(f.what for f in failed.values())),
                          fix="see the table; run the same command again: it is a no-op for the others")
