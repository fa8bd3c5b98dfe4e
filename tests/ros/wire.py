"""The double's transport over DDS: topics have the names and types by which ROS 2 puts them on the wire."""

from __future__ import annotations

import time
from typing import Any

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.core import InstanceState, Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from tests.ros.rclpy_double import Entity, Reliability, Transport

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
        return Topic(self.participant, f"rt{name}", of)

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

    def close(self, name: str, of: type) -> None:
        """Its writer."""
        del self._writers[name, of]

    def require_matched(self, timeout_s: float = 10.0) -> None:
        """Waits until every writer has found a reader."""
        until = time.monotonic() + timeout_s
        while not all(w.get_matched_subscriptions() for w in self._writers.values()):
            assert time.monotonic() < until
            time.sleep(1e-3)


class DdsTransport(Transport):
    """The node's side. `spin` runs the callbacks of what came."""

    def __init__(self, domain: int):
        super().__init__()
        self.side = Side(domain)
        self._readers: dict[Entity, DataReader] = {}
        self._found = BuiltinDataReader(self.side.participant, BuiltinTopicDcpsPublication)
        self.received: dict[str, int] = {}

    def add(self, entity: Entity) -> None:
        super().add(entity)
        if entity.kind == "subscription":
            self._readers[entity] = self.side.reader(entity.name, entity.of, entity.quality.reliability,
                                                     entity.quality.depth)
        else:
            self.side.writer(entity.name, entity.of)

    def remove(self, entity: Entity) -> None:
        super().remove(entity)
        self._readers.pop(entity, None)

    def publish(self, publisher: Entity, message: Any) -> None:
        super().publish(publisher, message)
        if publisher.name != "/diagnostics":  # whose bytes of one byte the binding writes as numbers
            self.side.write(publisher.name, message)

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
