"""What LeRobot's robot client sends and reads, without LeRobot: pickles of classes that have its names."""

from __future__ import annotations

import contextlib
import pickle
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from vlart.serve.pickled import HELPERS


@dataclass
class TimedObservation:
    timestamp: float
    timestep: int
    observation: dict[str, Any]
    must_go: bool = False


@dataclass
class TimedAction:
    timestamp: float
    timestep: int
    action: Any


@dataclass
class RemotePolicyConfig:
    policy_type: str
    pretrained_name_or_path: str
    lerobot_features: dict
    actions_per_chunk: int
    device: str = "cpu"
    rename_map: dict = field(default_factory=dict)


CLASSES = (TimedObservation, TimedAction, RemotePolicyConfig)


@contextlib.contextmanager
def named_as_in_lerobot() -> Iterator[None]:
    """Inside, pickles name and find these classes where LeRobot has them."""
    module = types.ModuleType(HELPERS)
    parents = {".".join(HELPERS.split(".")[:n]): types.ModuleType("package") for n in (1, 2)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(sys.modules, {**parents, HELPERS: module}))
        for c in CLASSES:
            setattr(module, c.__name__, c)
            stack.enter_context(mock.patch.object(c, "__module__", HELPERS))
        yield


def pickled(value: Any, protocol: int = 4) -> bytes:
    with named_as_in_lerobot():
        return pickle.dumps(value, protocol=protocol)


def unpickled(data: bytes) -> Any:
    with named_as_in_lerobot():
        return pickle.loads(data)


class Robot:
    """The four calls of the protocol over a gRPC channel. metadata: of each."""

    def __init__(self, channel, instructions: RemotePolicyConfig, metadata=None):
        from vlart.serve import transport_messages  # what gRPC needs is not in every environment

        self.metadata, self.instructions, self.kinds = metadata, instructions, transport_messages
        empty = transport_messages.Empty
        call = lambda kind, name, reply: getattr(channel, kind)(
            f"/transport.AsyncInference/{name}", lambda m: m.SerializeToString(), reply.FromString)
        self.ready_call = call("unary_unary", "Ready", empty)
        self._get = call("unary_unary", "GetActions", transport_messages.Actions)
        self._setup = call("unary_unary", "SendPolicyInstructions", empty)
        self.send_call = call("stream_unary", "SendObservations", empty)

    def ready(self, instructions: RemotePolicyConfig | None = None) -> None:
        self.ready_call(self.kinds.Empty(), metadata=self.metadata, timeout=10)
        self.setup(pickled(instructions or self.instructions))

    def setup(self, data: bytes) -> None:
        self._setup(self.kinds.PolicySetup(data=data), metadata=self.metadata, timeout=10)

    def send(self, observation, step: int = 0, part: int = 1000) -> None:
        data = observation
        if not isinstance(data, bytes):
            data = pickled(TimedObservation(100.0, step, observation, True))
        states = {s: 3 if s + part >= len(data) else 1 if s == 0 else 2 for s in range(0, len(data), part)}
        self.send_call(iter([self.kinds.Observation(transfer_state=kind, data=data[s:s + part])
                             for s, kind in states.items()]),
                   metadata=self.metadata, timeout=10)

    def get(self) -> list | None:
        data = self.answer()
        return unpickled(data) if data else None

    def answer(self) -> bytes:
        """As it comes; empty where there is no new observation."""
        return self._get(self.kinds.Empty(), metadata=self.metadata, timeout=10).data
