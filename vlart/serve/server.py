"""Runs a server: listens, waits for a signal, shuts down gracefully.

Shutdown: new requests are refused, requests in progress are answered, connections are closed, the session is closed,
all within a time limit. A second signal stops it immediately.
"""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from vlart.errors import ConfigError, printable
from vlart.serve.access import Access
from vlart.serve.observations import Intake
from vlart.serve.policy_host import PolicyHost

NEEDED = {"openpi": ("websockets", "msgpack"), "lerobot": ("websockets", "msgpack", "grpc")}
PORTS = {"openpi": 8000, "lerobot": 8080}


@dataclass(frozen=True)
class Settings:
    """http_port: of /healthz and /metrics, for a protocol that cannot have them on its own port; None: not served.
    message_bytes: None: what one observation needs. fps, wait_s: for LeRobot's protocol (see grpc_service.py)."""

    protocol: str
    address: str = "127.0.0.1"
    port: int | None = None
    http_port: int | None = None
    message_bytes: int | None = None
    clients: int = 16
    idle_s: float = 300.0
    grace_s: float = 10.0
    fps: float = 30.0
    wait_s: float = 2.0


@dataclass(frozen=True)
class Ready:
    """url: of the protocol. http_url: of /healthz and /metrics; None: not served."""

    url: str
    http_url: str | None


def require_packages(protocol: str) -> None:
    """Raises ConfigError."""
    if sys.version_info < (3, 11):  # asyncio.timeout
        raise ConfigError("the server needs Python 3.11", where=sys.executable,
                          why=f"this is {'.'.join(map(str, sys.version_info[:3]))}",
                          fix="serve from a newer Python; a session runs on this one")
    missing = [n for n in NEEDED[protocol] if importlib.util.find_spec(n) is None]
    if missing:
        raise ConfigError(f"the package {missing[0]} is missing", where="this Python environment",
                          why=f"the protocol {protocol} needs {' and '.join(NEEDED[protocol])}",
                          fix="pip install 'vlacompile-runtime[serve]'")


async def run_server(host: PolicyHost, intake: Intake, access: Access, settings: Settings,
                     ready: Callable[[Ready], None], stop: asyncio.Event) -> bool:
    """Serves until `stop` is set. False: requests in progress did not end in time and were dropped.
    Raises ConfigError if it cannot listen."""
    require_packages(settings.protocol)
    from vlart.serve.websocket import Limits, WebsocketServer, message_bytes

    tls = access.tls()
    secure = "s" if tls else ""
    port = PORTS[settings.protocol] if settings.port is None else settings.port
    servers, url, http_url = [], "", None
    limits = Limits(settings.message_bytes or message_bytes(host), settings.clients, settings.idle_s)
    try:
        if settings.protocol == "openpi":
            server = WebsocketServer(host, intake, access, limits)
            servers.append(server)
            where = _place(*await server.listen(settings.address, port, tls))
            url, http_url = f"ws{secure}://{where}", f"http{secure}://{where}"
        else:
            from vlart.serve.grpc_service import GrpcLimits, GrpcServer

            server = GrpcServer(host, intake, access, GrpcLimits(
                settings.message_bytes or GrpcLimits.message_bytes, settings.clients, settings.idle_s),
                fps=settings.fps, wait_s=settings.wait_s)
            servers.append(server)
            url = _place(*await server.listen(settings.address, port))
            if settings.http_port is not None:
                health = WebsocketServer(host, intake, access, limits, talks=False)
                servers.append(health)
                http_url = f"http{secure}://" + _place(*await health.listen(settings.address, settings.http_port, tls))
    except (OSError, UnicodeError) as error:
        await asyncio.gather(*(s.close() for s in servers))
        option, port = ("--http-port", settings.http_port) if url else ("--port", port)
        if isinstance(error, (socket.gaierror, UnicodeError)):
            raise ConfigError(f"{printable(settings.address)} is no address of this machine", where="--host",
                              why=str(error), fix="give one, such as 127.0.0.1, or 0.0.0.0 for all of them") from error
        raise ConfigError(f"port {port} of {settings.address} cannot be opened", where=f"--host, {option}",
                          why=str(error), fix=f"choose another port ({option} 0: a free one)") from error
    ready(Ready(url, http_url))
    await stop.wait()
    try:
        async with asyncio.timeout(settings.grace_s):
            await asyncio.gather(*(s.close() for s in servers))
        return await asyncio.to_thread(host.stop, settings.grace_s)
    except TimeoutError:
        return False


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def serve(host: PolicyHost, intake: Intake, access: Access, settings: Settings,
          ready: Callable[[Ready], None]) -> bool:
    """`run_server` until SIGINT or SIGTERM; a second one stops it immediately."""

    async def until_signal() -> bool:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            stop.set()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        return await run_server(host, intake, access, settings, ready, stop)

    return asyncio.run(until_signal())
