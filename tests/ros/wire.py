"""The double's transport over DDS: topics have the names and types by which ROS 2 puts them on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.core import InstanceState, Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from tests.ros.rclpy_double import Entity, Reliability, Transport, answered

HERE = """<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>
<Peers><Peer address="localhost"/></Peers></Discovery></Domain></CycloneDDS>"""
SECOND = 1_000_000_000
_DOMAINS: dict[int, Domain] = {}


def participant(domain: int) -> DomainParticipant:
    """On the loopback alone."""
    if domain not in _DOMAINS:
        _DOMAINS[domain] = Domain(domain, HERE)
    return DomainParticipant(domain)


def _quality(reliability: Reliability, depth: int) -> Qos:
    kind = Policy.Reliability.Reliable(SECOND) if reliability is Reliability.RELIABLE else Policy.Reliability.BestEffort
    return Qos(kind, Policy.History.KeepLast(depth), Policy.Durability.Volatile)


class Side:
    """A participant, its writers and readers by ROS's names."""

    def __init__(self, domain: int):
        self.participant = participant(domain)
        self._writers: dict[tuple[str, type], DataWriter] = {}
        self.sent: dict[str, int] = {}

    def topic(self, name: str, of: type) -> Topic:
        """rt: a topic; rq, rr: the requests and the replies of a service."""
        kind = "rq" if name.endswith("Request") else "rr" if name.endswith("Reply") else "rt"
        return Topic(self.participant, f"{kind}{name}", of)

    def writer(self, name: str, of: type, reliability: Reliability = Reliability.RELIABLE) -> DataWriter:
        if (name, of) not in self._writers:
            self._writers[name, of] = DataWriter(self.participant, self.topic(name, of),
                                                 qos=_quality(reliability, 1000))
        return self._writers[name, of]

    def reader(self, name: str, of: type, reliability: Reliability, depth: int) -> DataReader:
        return DataReader(self.participant, self.topic(name, of), qos=_quality(reliability, depth))

    def write(self, name: str, message: Any) -> None:
        self.writer(name, type(message)).write(message)
        self.sent[name] = self.sent.get(name, 0) + 1

    def client(self, name: str, of: Any) -> Client:
        return Client(self, name, of)

    def close(self, name: str, of: type) -> None:
        """Its writer."""
        del self._writers[name, of]

    def require_matched(self, timeout_s: float = 10.0) -> None:
        """Waits until every writer has found a reader."""
        until = time.monotonic() + timeout_s
        while not all(w.get_matched_subscriptions() for w in self._writers.values()):
            assert time.monotonic() < until
            time.sleep(1e-3)


class Client:
    """Of a service, as rmw_cyclonedds_cpp's: a reply has the number of its request."""

    def __init__(self, side: Side, name: str, of: Any):
        self._of, self._asked = of, 0
        self._requests = side.writer(f"{name}Request", of.Request)
        self._replies = side.reader(f"{name}Reply", of.Response, Reliability.RELIABLE, 10)

    def call(self, serve: Callable[[], None], timeout_s: float = 10.0, **request: Any) -> Any:
        """serve: runs the service's side once. Returns the reply."""
        self._asked += 1
        self._requests.write(self._of.Request(guid=id(self), seq=self._asked, **request))
        until = time.monotonic() + timeout_s
        while True:
            serve()
            for reply in self._replies.take(N=10):
                if (reply.guid, reply.seq) == (id(self), self._asked):
                    return reply
            assert time.monotonic() < until, "no reply came"
            time.sleep(1e-4)


class DdsTransport(Transport):
    """The node's side. `spin` runs the callbacks of what came, `serve` those of services."""

    def __init__(self, domain: int):
        super().__init__()
        self.side = Side(domain)
        self._readers: dict[Entity, DataReader] = {}
        self._asked: dict[Entity, DataReader] = {}
        self._found = BuiltinDataReader(self.side.participant, BuiltinTopicDcpsPublication)
        self.received: dict[str, int] = {}

    def add(self, entity: Entity) -> None:
        super().add(entity)
        if entity.kind == "subscription":
            self._readers[entity] = self.side.reader(entity.name, entity.of, entity.quality.reliability,
                                                     entity.quality.depth)
        elif entity.kind == "service":
            self._asked[entity] = self.side.reader(f"{entity.name}Request", entity.of.Request, Reliability.RELIABLE, 10)
            self.side.writer(f"{entity.name}Reply", entity.of.Response)
        else:
            self.side.writer(entity.name, entity.of)

    def remove(self, entity: Entity) -> None:
        super().remove(entity)
        self._readers.pop(entity, None)
        self._asked.pop(entity, None)

    def publish(self, publisher: Entity, message: Any) -> None:
        super().publish(publisher, message)
        if publisher.name != "/diagnostics":  # whose bytes of one byte the binding writes as numbers
            self.side.write(publisher.name, message)

    def serve(self) -> None:
        """Answers the requests that are there."""
        for entity, reader in list(self._asked.items()):
            for request in reader.take(N=10):
                response = entity.of.Response(guid=request.guid, seq=request.seq)
                self.side.writer(f"{entity.name}Reply", entity.of.Response).write(answered(entity, request, response))

    def spin(self, sent: dict[str, int], timeout_s: float = 10.0) -> None:
        """Until as many messages came as were sent on the topics that are subscribed to."""
        until = time.monotonic() + timeout_s
        while True:
            for entity, reader in list(self._readers.items()):
                for sample in reader.take(N=entity.quality.depth):
                    self.received[entity.name] = self.received.get(entity.name, 0) + 1
                    entity.callback(sample)
            missing = {n: c - self.received.get(n, 0) for n, c in sent.items()
                       if any(e.name == n for e in self._readers) and self.received.get(n, 0) < c}
            if not missing:
                return
            assert time.monotonic() < until, f"did not come: {missing}"
            time.sleep(1e-4)

    def types_on(self, name: str) -> set[str]:
        alive = InstanceState.Alive
        return {s.type_name.replace("::dds_::", "::").rstrip("_").replace("::", "/")
                for s in self._found.read(N=1000) if s.topic_name == f"rt{name}"
                and s.sample_info.instance_state == alive}
