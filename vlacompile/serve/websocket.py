"""openpi's protocol: MessagePack over a websocket, as spoken by `openpi_client.websocket_client_policy`.

On connecting the client gets one binary message (a dictionary about the policy). From then on every binary message is
an observation and is answered by one binary message with "actions" [h,action_dim]. A refused observation is answered
by a text message, which the client raises as an error; the connection stays open. A message that is not of this
protocol closes the connection. The same port answers GET /healthz and GET /metrics.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from vlacompile.errors import RuntimeFailure
from vlacompile.serve.access import Access
from vlacompile.serve.messages import pack, unpack
from vlacompile.serve.metrics import CONTENT_TYPE
from vlacompile.serve.observations import Intake
from vlacompile.serve.policy_host import PolicyHost
from vlacompile.serve.refusal import Refusal

GOING_AWAY, UNSUPPORTED, INVALID, TOO_BIG, TRY_AGAIN = 1001, 1003, 1007, 1009, 1013  # RFC 6455 and its registry

_QUIET = logging.getLogger("vlacompile.serve.websocket")  # failed handshakes are counted, not printed
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


@dataclass(frozen=True)
class Limits:
    """Limits per client. message_bytes: of one observation. clients: connected at a time. idle_s: without a complete
    message. send_s: for the client to read an answer. handshake_s: for the opening handshake. ping_s: interval and
    timeout of pings."""

    message_bytes: int
    clients: int = 16
    idle_s: float = 300.0
    send_s: float = 10.0
    handshake_s: float = 10.0
    ping_s: float = 20.0


def message_bytes(host: PolicyHost) -> int:
    """Upper bound on the size of one observation in any packing (numbers as f64, lists of f64), including its keys."""
    return 65536 + sum(math.prod(i.dims) * (2 if i.dtype == "u8" else 9) for i in host.inputs.values())


class WebsocketServer:
    """`async with WebsocketServer(...)`: it listens on `address`. `await close(grace_s)`: requests in progress are
    answered, then every connection is closed. talks: False for a port with only /healthz and /metrics."""

    def __init__(self, host: PolicyHost, intake: Intake, access: Access, limits: Limits, talks: bool = True):
        self.host, self.intake, self.access, self.limits, self.talks = host, intake, access, limits, talks
        self._idle: set[ServerConnection] = set()
        self._open = 0
        self._stopping = False
        self._server: Server | None = None

    async def listen(self, address: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Returns the address and the port (port 0: a free one). Raises OSError."""
        limits = self.limits
        self._server = await serve(
            self._talk, address, port, ssl=tls, origins=[None],  # only web pages send an Origin header
            process_request=self._admit, compression=None, server_header=None, logger=_QUIET,
            open_timeout=limits.handshake_s, close_timeout=limits.send_s, ping_interval=limits.ping_s,
            ping_timeout=limits.ping_s, max_size=limits.message_bytes, max_queue=1, write_limit=65536)
        return self._server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        assert self._server is not None
        self._stopping = True
        self._server.close(close_connections=False)
        await asyncio.gather(*(c.close(GOING_AWAY, "the server is stopping") for c in list(self._idle)))
        await self._server.wait_closed()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """HTTP before the websocket opens: health, metrics, the key, the number of clients."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            healthy = self.host.healthy() and not self._stopping
            return connection.respond(HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE,
                                      "ok\n" if healthy else "ending\n")
        if not self.access.allows(_authorization(request)):
            self.host.metrics.count("connections", "wrong_key")
            response = connection.respond(HTTPStatus.UNAUTHORIZED, "a key is required: Authorization: Api-Key KEY\n")
            response.headers["WWW-Authenticate"] = "Api-Key"
            return response
        if path == "/metrics":
            response = connection.respond(HTTPStatus.OK, self.host.metrics.text())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = CONTENT_TYPE
            return response
        if not self.talks:
            return connection.respond(HTTPStatus.NOT_FOUND, "this port has /healthz and /metrics\n")
        if self._open >= self.limits.clients or self._stopping:
            self.host.metrics.count("connections", "too_many")
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{self._open} clients are connected, which is "
                                                                      "the limit\n")
        return None

    async def _talk(self, connection: ServerConnection) -> None:
        if self._open >= self.limits.clients:  # several handshakes in parallel
            await connection.close(TRY_AGAIN, "too many clients")
            return
        self._open += 1
        try:
            client = self.host.connect()
        except Refusal as refusal:
            self.host.metrics.count("connections", refusal.kind)
            self._open -= 1
            await connection.close(TRY_AGAIN, refusal.what)
            return
        self.host.metrics.count("connections", "accepted")
        try:
            await self._serve(connection, client)
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == TOO_BIG:
                self.host.metrics.count("requests", "oversize")
        finally:
            self.host.disconnect(client)
            self._open -= 1

    async def _serve(self, connection: ServerConnection, client) -> None:
        if not await self._send(connection, pack(self.host.described())):
            return
        while not self._stopping:
            self._idle.add(connection)
            try:
                async with asyncio.timeout(self.limits.idle_s):
                    message = await connection.recv()
            except TimeoutError:
                self.host.metrics.count("connections", "idle")
                await connection.close(GOING_AWAY, f"no message for {self.limits.idle_s:g} s")
                return
            finally:
                self._idle.discard(connection)
            try:
                answer: bytes | str = await self._answer(client, message)
            except Refusal as refusal:
                self.host.metrics.count("requests", refusal.kind)
                sent = await self._send(connection, str(refusal))
                if refusal.kind == "malformed":
                    await connection.close(INVALID if isinstance(message, bytes) else UNSUPPORTED, refusal.what)
                    return
            except RuntimeFailure as failure:
                self.host.metrics.count("requests", "failed")
                sent = await self._send(connection, str(failure))
            else:
                self.host.metrics.count("requests", "ok")
                sent = await self._send(connection, answer)
            if not sent:
                return
        await connection.close(GOING_AWAY, "the server is stopping")

    async def _answer(self, client, message: bytes | str) -> bytes:
        if isinstance(message, str):
            raise Refusal("the message is text", where=f"{len(message)} characters",
                          why="observations are binary messages: one MessagePack dictionary each",
                          fix="use openpi_client.websocket_client_policy", kind="malformed")
        begin = time.perf_counter()
        future = self.host.submit(client, self.intake.read(unpack(message)))
        reply = await asyncio.wrap_future(future)
        timing = {"infer_ms": reply.infer_s * 1e3, "queue_ms": reply.wait_s * 1e3,
                  "total_ms": (time.perf_counter() - begin) * 1e3}
        return pack({**reply.outputs, "server_timing": timing})

    async def _send(self, connection: ServerConnection, content: bytes | str) -> bool:
        """False: the client does not read and was disconnected."""
        try:
            async with asyncio.timeout(self.limits.send_s):
                await connection.send(content)
            return True
        except TimeoutError:
            self.host.metrics.count("connections", "slow")
            connection.transport.abort()
            return False


def _authorization(request: Request) -> str | None:
    given = request.headers.get_all("Authorization")
    return given[0] if len(given) == 1 else None
