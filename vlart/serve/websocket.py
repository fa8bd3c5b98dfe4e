"""openpi's protocol: MessagePack over a websocket, as spoken by `openpi_client.websocket_client_policy`.

On connecting the client gets one binary message (a dictionary about the policy). From then on every binary message is
an observation and is answered, in order, by one binary message with "actions" [h,action_dim]. A refused observation is
answered by a text message, which the client raises as an error; the connection stays open. So is one that a newer
observation of the same client superseded before its turn. A message that is not of this protocol closes the
connection. The same port answers GET /healthz and GET /metrics.

Two keys of a message are no inputs of the policy. "reset": true: an episode begins with this observation, or with the
next one if the message has none (openpi's `reset()` sends nothing; a new connection begins an episode too).
"observation_id": a number or a short text that names the observation. The answer has "observation_id" (or how many
observations this connection sent before) and "episode", counted from 0.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from vlart.errors import RuntimeFailure
from vlart.serve.access import Access
from vlart.serve.messages import pack, unpack
from vlart.serve.metrics import CONTENT_TYPE
from vlart.serve.observations import Intake
from vlart.serve.policy_host import PolicyHost, Reply
from vlart.serve.refusal import Refusal

RESET, OBSERVATION_ID = "reset", "observation_id"  # keys of a message that are no inputs
MAX_NAME = 64
GOING_AWAY, UNSUPPORTED, INVALID, TOO_BIG, TRY_AGAIN = 1001, 1003, 1007, 1009, 1013  # RFC 6455 and its registry

CAMERA_BYTES = 1920 * 1080 * 4  # of a frame as cameras of robots give them
UNANSWERED = 64  # observations of one client; further ones are not read before
OPENING = 128  # connections whose handshake is not complete; of more, the oldest is closed
UNREAD_BYTES = 1 << 20  # of answers to pings that may wait for a client to read them
_QUIET = logging.getLogger("vlart.serve.websocket")  # failed handshakes are counted, not printed
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


class _Connection(ServerConnection):
    """Pings are answered by the library at once, whether or not the client reads the answers; one that does not is
    disconnected here."""

    unread_bytes = UNREAD_BYTES
    unread = False  # disconnected for this
    unanswered = 0  # observations
    ended = False  # no more answers are sent
    opening: dict[_Connection, None]  # of this server, oldest first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.opening[self] = None
        if len(self.opening) > OPENING:
            oldest = next(iter(self.opening))
            del self.opening[oldest]
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.opening.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_write_buffer_size() > self.unread_bytes and not self.transport.is_closing():
            self.unread = True
            self.transport.abort()


@dataclass
class _Answer:
    """To one observation. future: what is computed; None: it is `refusal`, or else `content`."""

    binary: bool
    since: float
    future: Future[Reply] | None = None
    refusal: Refusal | None = None
    content: bytes = b""
    what: str = ""


def message_bytes(host: PolicyHost) -> int:
    """Upper bound on the size of one observation in any packing (numbers as f64, lists of f64), including its keys. A
    camera may give frames of another size than the policy's: they are resized, or refused with a text that names it."""
    return 65536 + sum(max(math.prod(i.dims) * (2 if i.dtype == "u8" else 9), CAMERA_BYTES if i.is_image() else 0)
                       for i in host.inputs.values())


class WebsocketServer:
    """`async with WebsocketServer(...)`: it listens on `address`. `await close(grace_s)`: requests in progress are
    answered, then every connection is closed. talks: False for a port with only /healthz and /metrics."""

    def __init__(self, host: PolicyHost, intake: Intake, access: Access, limits: Limits, talks: bool = True):
        self.host, self.intake, self.access, self.limits, self.talks = host, intake, access, limits, talks
        self._reading: set[_Connection] = set()
        self._opening: dict[_Connection, None] = {}
        self._open = 0
        self._stopping = False
        self._server: Server | None = None

    async def listen(self, address: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Returns the address and the port (port 0: a free one). Raises OSError."""
        limits = self.limits
        self._server = await serve(
            self._talk, address, port, ssl=tls, create_connection=self._connection,
            origins=[None],  # only web pages send an Origin header
            process_request=self._admit, compression=None, server_header=None, logger=_QUIET,
            open_timeout=limits.handshake_s, close_timeout=limits.send_s, ping_interval=limits.ping_s,
            ping_timeout=limits.ping_s, max_size=limits.message_bytes, max_queue=1, write_limit=65536)
        return self._server.sockets[0].getsockname()[:2]

    def _connection(self, *given: Any, **named: Any) -> _Connection:
        made = _Connection(*given, **named)
        made.opening = self._opening
        return made

    async def close(self) -> None:
        self._stopping = True
        if self._server is None:
            return
        self._server.close(close_connections=False)
        idle = [c for c in self._reading if not c.unanswered]  # the others are closed when they are answered
        await asyncio.gather(*(c.close(GOING_AWAY, "the server is stopping") for c in idle))
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

    async def _talk(self, connection: _Connection) -> None:
        self._opening.pop(connection, None)
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
            if connection.unread:
                self.host.metrics.count("connections", "slow")
        finally:
            self.host.disconnect(client)
            self._open -= 1

    async def _serve(self, connection: _Connection, client) -> None:
        """Observations are read while earlier ones are computed, so that a newer one can supersede one that waits;
        answers are sent in the order of the observations."""
        if not await self._send(connection, pack(self.host.described() | self.intake.described())):
            return
        answers: asyncio.Queue[_Answer | None] = asyncio.Queue(UNANSWERED)
        sending = asyncio.create_task(self._send_answers(connection, answers))
        try:
            while not self._stopping and not sending.done() and not connection.ended:
                message = await self._received(connection)
                if message is None:
                    return
                connection.unanswered += 1
                await answers.put(self._begun(client, message))
        finally:
            if not sending.done():
                await answers.put(None)
            await sending
        await connection.close(GOING_AWAY, "the server is stopping")

    async def _received(self, connection: _Connection) -> bytes | str | None:
        """None: the client was silent for too long, and was disconnected."""
        while True:
            self._reading.add(connection)
            try:
                async with asyncio.timeout(self.limits.idle_s):
                    return await connection.recv()
            except TimeoutError:
                if connection.unanswered:
                    continue
                self.host.metrics.count("connections", "idle")
                await connection.close(GOING_AWAY, f"no message for {self.limits.idle_s:g} s")
                return None
            finally:
                self._reading.discard(connection)

    async def _send_answers(self, connection: _Connection, answers: asyncio.Queue[_Answer | None]) -> None:
        """Until None comes, or the connection ends; what is left is not computed."""
        try:
            while not connection.ended and (answer := await answers.get()) is not None:
                text, kind = await self._content(answer)
                self.host.metrics.count("requests", kind)
                connection.ended = not await self._send(connection, text) or kind == "malformed"
                connection.unanswered -= 1
                if kind == "malformed":
                    await connection.close(INVALID if answer.binary else UNSUPPORTED, answer.what)
                if self._stopping and not connection.unanswered:
                    connection.ended = True
                    await connection.close(GOING_AWAY, "the server is stopping")
        except ConnectionClosed:
            pass  # the reader is told, too
        finally:
            connection.ended = True
            while not answers.empty():  # the reader may wait for room
                left = answers.get_nowait()
                if left is not None and left.future is not None:
                    left.future.cancel()

    async def _content(self, answer: _Answer) -> tuple[bytes | str, str]:
        """(what is sent, the outcome for the metrics)."""
        try:
            if answer.future is None:
                if answer.refusal is not None:
                    raise answer.refusal
                return answer.content, "ok"
            reply = await asyncio.wrap_future(answer.future)
        except Refusal as refusal:
            answer.what = refusal.what
            return str(refusal), refusal.kind
        except RuntimeFailure as failure:
            return str(failure), "failed"
        timing = {"infer_ms": reply.infer_s * 1e3, "queue_ms": reply.wait_s * 1e3,
                  "total_ms": (time.perf_counter() - answer.since) * 1e3}
        return pack({**reply.outputs, "server_timing": timing, "observation_id": reply.observation,
                     "episode": reply.episode}), "ok"

    def _begun(self, client, message: bytes | str) -> _Answer:
        answer = _Answer(isinstance(message, bytes), time.perf_counter())
        try:
            self._submit(client, message, answer)
        except Refusal as refusal:
            answer.refusal = refusal
        return answer

    def _submit(self, client, message: bytes | str, answer: _Answer) -> None:
        """Raises Refusal."""
        if isinstance(message, str):
            raise Refusal("the message is text", where=f"{len(message)} characters",
                          why="observations are binary messages: one MessagePack dictionary each",
                          fix="use openpi_client.websocket_client_policy", kind="malformed")
        sent, resets, name = told_apart(unpack(message), self.host.inputs)
        writes = self.intake.read(sent)  # what is refused begins no episode
        if resets and not writes:
            self.host.begin_episode(client)
            answer.content = pack({"episode": client.episode})
        else:
            answer.future = self.host.submit(client, writes, name, resets)

    async def _send(self, connection: _Connection, content: bytes | str) -> bool:
        """False: the client does not read and was disconnected."""
        connection.unread_bytes = UNREAD_BYTES + len(content)
        try:
            async with asyncio.timeout(self.limits.send_s):
                await connection.send(content)
            return True
        except TimeoutError:
            self.host.metrics.count("connections", "slow")
            connection.transport.abort()
            return False


def told_apart(message: Any, inputs: Collection[str]) -> tuple[Any, bool, int | float | str | None]:
    """(the observation, whether it begins an episode, its name). Keys that are inputs of the policy are its own.
    Raises Refusal."""
    own = [k for k in (RESET, OBSERVATION_ID) if isinstance(message, dict) and k in message and k not in inputs]
    if not own:
        return message, False, None
    resets, name = (message[k] if k in own else None for k in (RESET, OBSERVATION_ID))
    if resets is not None and not isinstance(resets, (bool, np.bool_)):
        raise Refusal(f'"{RESET}" is neither true nor false', where=f'key "{RESET}"', why=f"it is a "
                      f"{type(resets).__name__}", fix="send true with the first observation of an episode")
    name = name.item() if isinstance(name, np.generic) else name
    known = name is None or (isinstance(name, (int, float, str)) and not isinstance(name, bool))
    if not known or (isinstance(name, str) and len(name) > MAX_NAME):
        raise Refusal(f'"{OBSERVATION_ID}" names nothing', where=f'key "{OBSERVATION_ID}"',
                      why=f"it is a {type(name).__name__}" + (f" of {len(name)} characters" if known else ""),
                      fix=f"send a number, or a text of at most {MAX_NAME} characters")
    return {k: v for k, v in message.items() if k not in own}, bool(resets), name


def _authorization(request: Request) -> str | None:
    given = request.headers.get_all("Authorization")
    return given[0] if len(given) == 1 else None
