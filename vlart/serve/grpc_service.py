"""LeRobot's asynchronous inference, as spoken by `lerobot.async_inference.robot_client` (0.4.4) over gRPC.

A client calls Ready, then SendPolicyInstructions (its features and how many actions it wants), then SendObservations
and GetActions in any order. The newest observation of each client is kept until GetActions takes it; GetActions without
one returns an empty answer after a while. The policy is the bundle being served, whichever one the client names.
Refusals are gRPC statuses with what/where/why/fix. Pickles are parsed as data (`pickled.py`).

Unlike LeRobot's server, it serves several clients, and answers every observation, even one similar to the last. Ready
begins an episode, also on a connection that called it before. Every action has the timestamp and timestep of its
observation (`observation_timestamp`, `observation_timestep`) besides its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from vlart.errors import ConfigError, RuntimeFailure
from vlart.serve.access import Access, require_free
from vlart.serve.observations import INSTRUCTION, Intake
from vlart.serve.pickled import HELPERS, Record, read_pickle, timed_actions
from vlart.serve.policy_host import Client, PolicyHost
from vlart.serve.refusal import Refusal
from vlart.serve.resize import can_resize, resized
from vlart.serve.transport_messages import Actions, Empty, Observation, PolicySetup

SERVICE = "transport.AsyncInference"
BEGIN, MIDDLE, END = 1, 2, 3  # TransferState of a part
PREFIX = "observation"
PICTURES = ("image", "video")  # dtypes of features
MOST_ACTIONS = 1 << 20  # of a chunk
SAID = 4  # instructions that are kept of observations that nobody asked for
CODES = {"malformed": grpc.StatusCode.INVALID_ARGUMENT, "refused": grpc.StatusCode.INVALID_ARGUMENT,
         "busy": grpc.StatusCode.RESOURCE_EXHAUSTED, "superseded": grpc.StatusCode.ABORTED,
         "stopping": grpc.StatusCode.UNAVAILABLE}


@dataclass(frozen=True)
class GrpcLimits:
    """message_bytes: of one observation, all its parts. part_bytes: of one part (LeRobot sends 2 MiB). send_s: for
    sending all parts. clients: at a time. idle_s: a client silent for longer is dropped. calls: of one client at a
    time."""

    message_bytes: int = 64 << 20
    clients: int = 16
    idle_s: float = 300.0
    part_bytes: int = 4 << 20
    send_s: float = 10.0
    calls: int = 4


@dataclass
class _Peer:
    """features: LeRobot's description of the robot's values. newest: what GetActions takes next. said: instructions of
    the observations that it took the place of."""

    client: Client
    seen: float
    features: dict[str, dict] | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    actions: int = 0
    newest: tuple[float, int, dict[str, np.ndarray]] | None = None
    said: deque[dict[str, np.ndarray]] = field(default_factory=lambda: deque(maxlen=SAID))
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class GrpcServer:
    """`await listen(address, port)`, `await close()`. fps: rate of the actions' timestamps. wait_s: how long GetActions
    waits for an observation."""

    def __init__(self, host: PolicyHost, intake: Intake, access: Access, limits: GrpcLimits, fps: float = 30.0,
                 wait_s: float = 2.0):
        if host.plan.action is None:
            raise ConfigError("this bundle has no actions", where=f'bundle "{host.plan.name}"',
                              why="LeRobot's protocol carries only actions", fix="serve it with --protocol openpi")
        self.host, self.intake, self.access, self.limits = host, intake, access, limits
        self.period_s, self.wait_s = 1 / fps, wait_s
        self._peers: dict[str, _Peer] = {}
        self._calls: Counter[str] = Counter()  # in progress, of every connection
        self._stopping = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def listen(self, address: str, port: int) -> tuple[str, int]:
        """Raises OSError."""
        limits = self.limits
        self._server = grpc.aio.server(options=[
            ("grpc.max_receive_message_length", limits.part_bytes + 1024), ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.max_connection_idle_ms", int(limits.idle_s * 1e3)), ("grpc.max_concurrent_streams", limits.calls),
            ("grpc.server_handshake_timeout_ms", int(limits.send_s * 1e3)),
        ], maximum_concurrent_rpcs=64 * limits.clients)
        # All are streams here, which are the same on the wire: a call whose message never comes is otherwise held by
        # gRPC itself, for ever, before anything of this file is asked.
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
            name: grpc.stream_unary_rpc_method_handler(self._guarded(method),
                                                       response_serializer=lambda m: m.SerializeToString())
            for name, method in (("Ready", self._of_one(self._ready, Empty)),
                                 ("SendPolicyInstructions", self._of_one(self._instruct, PolicySetup)),
                                 ("SendObservations", self._observe),
                                 ("GetActions", self._of_one(self._act, Empty)))}),))
        place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        require_free(address, port)  # gRPC prints lines of its own
        try:
            if self.access.certificate is None:
                bound = self._server.add_insecure_port(place)
            else:
                pair = (self.access.private_key.read_bytes(), self.access.certificate.read_bytes())
                bound = self._server.add_secure_port(place, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:  # gRPC's error for a port in use
            raise OSError(str(error)) from error
        await self._server.start()
        return address, bound

    async def close(self) -> None:
        self._stopping.set()
        if self._server is None:
            return
        for peer in self._peers.values():
            peer.arrived.set()  # wakes up the calls that wait for an observation
        await self._server.stop(grace=None if not self._peers else 3600)  # the caller has a timeout
        for name in list(self._peers):
            self._forget(name)

    def _guarded(self, method: Callable) -> Callable:
        """Check the key first; convert errors to gRPC statuses."""

        async def call(request: Any, context: grpc.aio.ServicerContext):
            sent = dict(context.invocation_metadata() or ())
            if not self.access.allows(sent.get("authorization")):
                self.host.metrics.count("connections", "wrong_key")
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a key is required: authorization: Api-Key KEY")
            try:
                if self._stopping.is_set():
                    raise Refusal("the server is stopping", where=SERVICE, why="it received a signal to stop",
                                  fix="connect again when it is back", kind="stopping")
                return await self._counted(method, request, context.peer())
            except Refusal as refusal:
                self.host.metrics.count("requests", refusal.kind)
                await context.abort(CODES[refusal.kind], str(refusal))
            except RuntimeFailure as failure:
                self.host.metrics.count("requests", "failed")
                await context.abort(grpc.StatusCode.INTERNAL, str(failure))

        return call

    async def _counted(self, method: Callable, request: Any, name: str) -> Any:
        """No client has more calls in progress than its share, and one that did not call Ready has one at most: others
        always find room."""
        most = self.limits.calls if name in self._peers else 1
        if self._calls[name] >= most:
            raise Refusal("too many calls at a time", where=SERVICE, kind="busy",
                          why=f"{self._calls[name]} of this connection are in progress, which is the limit",
                          fix="wait for an answer before the next call")
        self._calls[name] += 1
        try:
            return await method(request, name)
        finally:
            self._calls[name] -= 1
            if not self._calls[name]:
                del self._calls[name]

    def _of_one(self, method: Callable, kind: Any) -> Callable:
        """A method of one message, which has to come in time."""

        async def call(parts: AsyncIterator[bytes], name: str):
            try:
                async with asyncio.timeout(self.limits.send_s):
                    request = await _first(parts)
            except TimeoutError as error:
                self.host.metrics.count("connections", "slow")
                raise Refusal("the call's message did not arrive in time", where=SERVICE,
                              why=f"none after {self.limits.send_s:g} s", fix="send it with the call") from error
            return await method(_parsed(kind, request), name)

        return call

    # ---- the four methods

    async def _ready(self, _request: Any, name: str):
        self._forget_idle()
        if name in self._peers:
            self._forget(name)
        if len(self._peers) >= self.limits.clients:
            self.host.metrics.count("connections", "too_many")
            raise Refusal("too many clients", where=SERVICE, why=f"{len(self._peers)} are connected, which is the "
                                                                 "limit",
                          fix="disconnect one, or start another server", kind="busy")
        self._peers[name] = _Peer(self.host.connect(), time.monotonic())
        self.host.metrics.count("connections", "accepted")
        return Empty()

    async def _instruct(self, request: Any, name: str):
        peer = self._peer(name)
        fields = _fields(read_pickle(request.data), "RemotePolicyConfig")
        features, renamed, actions = (fields.get(n) for n in ("lerobot_features", "rename_map", "actions_per_chunk"))
        renamed = {} if renamed is None else renamed
        several = type(actions) is int and 1 <= actions <= MOST_ACTIONS
        if not (several and _are_features(features) and _are_names(renamed)):
            raise Refusal("the instructions are incomplete", where="RemotePolicyConfig",
                          why="lerobot_features, actions_per_chunk or rename_map is missing or of the wrong type",
                          fix="send what LeRobot 0.4.4's robot_client.py sends", kind="malformed")
        features = {k: f for k, f in features.items() if not self.intake.ignored & {k, renamed.get(k, k)}}
        given: dict[str, str] = {}
        for key in features:
            source = self.intake.source_of(renamed.get(key, key))
            if source in given:
                raise Refusal(f'two of the robot\'s values are "{source}"', where="lerobot_features, rename_map",
                              why=f'"{given[source]}" and "{key}" are', fix="name each another input, or have the "
                              "operator ignore one (--ignore)")
            given[source] = key
        own = {n for n, i in self.host.inputs.items() if i.update in ("observation", "tick")}
        if own - given.keys():
            raise Refusal(f'the robot has no "{min(own - given.keys())}"', where="lerobot_features",
                          why=f"the policy needs {', '.join(sorted(own))}; the robot has {', '.join(sorted(given))}",
                          fix="name the robot's cameras as the policy does, or have the operator map them (--map)")
        peer.features, peer.renamed, peer.actions = features, renamed, actions
        return Empty()

    async def _observe(self, parts: AsyncIterator[bytes], name: str):
        peer = self._peer(name)
        if peer.features is None:
            raise _out_of_order("SendPolicyInstructions")
        data = await self._joined(parts)
        fields = _fields(read_pickle(data), "TimedObservation")
        stamp, step, raw = fields.get("timestamp"), fields.get("timestep"), fields.get("observation")
        if not isinstance(stamp, float) or not math.isfinite(stamp) or type(step) is not int or not isinstance(
                raw, dict) or not 0 <= step < 2**30:
            raise Refusal("the observation is incomplete", where="TimedObservation",
                          why="timestamp, timestep or observation is missing or of the wrong type",
                          fix="send what LeRobot 0.4.4's robot_client.py sends", kind="malformed")
        writes = self.intake.read(self._named(peer, raw))
        if peer.newest is not None:  # the actions that come name the observation that they are of
            self.host.metrics.count("requests", "superseded")
            _keep(peer.said, self.host.task_in(peer.newest[2]))
        peer.newest = (stamp, step, writes)
        peer.arrived.set()
        return Empty()

    async def _act(self, _request: Any, name: str):
        peer = self._peer(name)
        try:
            async with asyncio.timeout(self.wait_s):
                await peer.arrived.wait()
        except TimeoutError:
            return Actions()
        newest, peer.newest = peer.newest, None
        peer.arrived.clear()
        if newest is None:
            return Actions()
        stamp, step, writes = newest
        said = list(peer.said)
        peer.said.clear()
        reply = await asyncio.wrap_future(self.host.submit(peer.client, writes, step, superseded=said))
        self.host.metrics.count("requests", "ok")
        return Actions(data=timed_actions(reply.outputs["actions"][:peer.actions], stamp, step, self.period_s))

    # ----

    def _named(self, peer: _Peer, raw: dict[str, Any]) -> dict[str, Any]:
        """The robot's values under the policy's names, arranged as in a frame of a LeRobot data set: numbers in the
        order of the feature's names, images under the camera's name. An image of another size is resized as by
        LeRobot's server."""
        out = {key: raw[key] for key in INSTRUCTION if key in raw}
        if self.intake.instructions is None and "task" in out and not self._takes_text():
            del out["task"]  # LeRobot's client always sends one
        for key, feature in peer.features.items():
            name = peer.renamed.get(key, key)
            wanted = self.host.inputs[self.intake.source_of(name)]
            try:
                if feature["dtype"] in PICTURES:
                    out[name] = raw[key.removeprefix(f"{PREFIX}.images.")]
                    if wanted.is_image() and self.intake.resize is None and can_resize(out[name]):
                        out[name] = resized(out[name], wanted.dims[1:3], "bilinear-plain")
                else:
                    out[name] = np.array([_number(raw[n]) for n in feature["names"]], np.float64)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise Refusal(f'"{key}" is not in the observation', where="TimedObservation.observation",
                              why=f"{type(error).__name__}: {error}",
                              fix="send every value that lerobot_features names, and numbers as numbers") from error
        return out

    def _takes_text(self) -> bool:
        return any(i.update == "task" for i in self.host.inputs.values())

    async def _joined(self, parts: AsyncIterator[bytes]) -> bytes:
        data = bytearray()
        try:
            async with asyncio.timeout(self.limits.send_s):
                async for content in parts:
                    part = _parsed(Observation, content)
                    if part.transfer_state not in (BEGIN, MIDDLE, END):
                        raise Refusal("a part of unknown kind", where="SendObservations", kind="malformed",
                                      why=f"transfer_state is {part.transfer_state}", fix="send begin, middle, end")
                    if part.transfer_state == BEGIN:
                        data.clear()
                    if len(data) + len(part.data) > self.limits.message_bytes:
                        self.host.metrics.count("requests", "oversize")
                        raise Refusal("the observation is too large", where="SendObservations",
                                      why=f"more than {self.limits.message_bytes} bytes",
                                      fix="send smaller frames, or have the operator raise --max-message")
                    data += part.data
                    if part.transfer_state == END:
                        return bytes(data)
        except TimeoutError as error:
            self.host.metrics.count("connections", "slow")
            raise Refusal("the observation did not arrive in time", where="SendObservations",
                          why=f"no end after {self.limits.send_s:g} s", fix="send it faster, or smaller") from error
        raise Refusal("the observation has no end", where="SendObservations", kind="malformed",
                      why="the stream ended before its last part", fix="send begin, middle, end")

    def _peer(self, name: str) -> _Peer:
        if name not in self._peers:
            raise _out_of_order("Ready")
        self._peers[name].seen = time.monotonic()
        return self._peers[name]

    def _forget(self, name: str) -> None:
        self.host.disconnect(self._peers.pop(name).client)

    def _forget_idle(self) -> None:
        """gRPC does not report that a client has disconnected, but a live client keeps asking for actions. At the limit
        of clients (or if the bundle serves one client at a time), drop those that were silent for longer than two such
        calls take, longest first; otherwise drop those that were silent for longer than idle_s."""
        now, silent_s = time.monotonic(), min(self.limits.idle_s, 2 * self.wait_s)
        for name, peer in sorted(self._peers.items(), key=lambda item: item[1].seen):
            full = self.host.exclusive or len(self._peers) >= self.limits.clients
            if now - peer.seen > (silent_s if full else self.limits.idle_s):
                self._forget(name)


def _keep(said: deque[dict[str, np.ndarray]], task: dict[str, np.ndarray]) -> None:
    """A robot says the same with every observation: it is kept once."""
    last = said[-1] if said else {}
    if task and (task.keys() != last.keys() or not all(np.array_equal(a, last[n]) for n, a in task.items())):
        said.append(task)


def _are_names(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


def _are_features(value: Any) -> bool:
    """LeRobot's description of a robot's values: {key: {"dtype": text, "names": texts}}."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(feature, dict) and isinstance(feature.get("dtype"), str)
        and (feature["dtype"] in PICTURES or _are_texts(feature.get("names"))) for key, feature in value.items())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(n, str) for n in value)


def _number(value: Any) -> float:
    """Raises TypeError: a text of digits is no number."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, (int, float, np.number, np.bool_)):
        raise TypeError(f"a {type(value).__name__} where a number should be")
    return float(value)


def _fields(value: Any, kind: str) -> dict[str, Any]:
    if not isinstance(value, Record) or value.kind != kind:
        raise Refusal(f"the message is not a {kind}", where=f"{HELPERS}.{kind}", kind="malformed",
                      why=f"it is a {value.kind if isinstance(value, Record) else type(value).__name__}",
                      fix="send what LeRobot 0.4.4's robot_client.py sends")
    return value.fields


async def _first(parts: AsyncIterator[bytes]) -> bytes:
    async for content in parts:
        return content
    raise Refusal("the call has no message", where=SERVICE, why="it ended without one",
                  fix="send what LeRobot 0.4.4's robot_client.py sends", kind="malformed")


def _parsed(kind: Any, content: bytes) -> Any:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise Refusal("the message cannot be read", where=SERVICE, why=f"{len(content)} bytes are no protocol buffer",
                      fix="send what LeRobot 0.4.4's robot_client.py sends", kind="malformed") from error


def _out_of_order(first: str) -> Refusal:
    return Refusal(f"{first} must be called first", where=SERVICE,
                   why="this connection has not called it, or was dropped as idle",
                   fix="call Ready, SendPolicyInstructions, then the rest, over one channel")
