"""A server in the test's own process: its event loop on a thread, so that blocking clients can talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from torch import nn

import vlacompile as vc
from vlart.serve.access import Access
from vlart.serve.observations import Intake
from vlart.serve.policy_host import PolicyHost

AVERAGED = 4  # actions of a chunk of `averaging`
KEY = "a-key-of-some-length"  # of clients that must have one


class Sampling(nn.Module):
    """A chunk that begins as noise."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.head = nn.Linear(9, 16), nn.Linear(16, 7)

    def forward(self, state, noise) -> dict[str, torch.Tensor]:
        return {"action": noise * torch.sigmoid(self.head(torch.tanh(self.state(state))))[:, None]}


def sampling(steps: int = 10) -> vc.Policy:
    torch.manual_seed(0)
    return vc.Policy("sampling", Sampling().eval(), {"state": vc.Source("observation"), "noise": vc.Source("step")},
                     {"state": torch.randn(1, 9), "noise": torch.randn(1, steps, 7)})


class Averaged(nn.Module):
    """Every action of a chunk is the state: a mean of several says which states are in it."""

    def forward(self, tokens, state) -> dict[str, torch.Tensor]:
        return {"action": state[:, None, :].repeat(1, AVERAGED, 1) + 1000.0 * tokens[:, :1, None].float()}


def averaging() -> vc.Policy:
    return vc.Policy("averaged", Averaged().eval(), {"tokens": vc.Source("task"), "state": vc.Source("observation")},
                     {"tokens": torch.zeros(1, 1, dtype=torch.int64), "state": torch.zeros(1, 2)})


def certify(certificate: Path, key: Path) -> None:
    """A certificate for localhost and 127.0.0.1, signed by itself."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)


class Loop:
    """`run(coroutine)`: its result, from any thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine, timeout_s: float = 20.0):
        return self.start(coroutine).result(timeout_s)

    def start(self, coroutine) -> Future:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


class Running:
    """server, host, loop; `place`: (address, port)."""

    def __init__(self, server, host: PolicyHost, loop: Loop, place: tuple[str, int]):
        self.server, self.host, self.loop, self.place = server, host, loop, place
        self.ended = False

    def end(self) -> bool:
        self.ended = True
        self.loop.run(self.server.close())
        return self.host.stop(10)


@contextlib.contextmanager
def websocket_server(bundle: vc.Bundle, *, names=None, ignored=(), access=Access(), limits=None, talks=True,
                     instructions=None, resize=None, **host_settings) -> Iterator[Running]:
    """limits: of `Limits`, by name."""
    from vlart.serve.websocket import Limits, WebsocketServer, message_bytes

    host, loop = PolicyHost(bundle.path, threads=1, **host_settings), Loop()
    try:
        server = WebsocketServer(host, Intake(host.plan, names, ignored, instructions, resize), access, Limits(**(
            {"message_bytes": message_bytes(host)} | (limits or {}))), talks)
        running = Running(server, host, loop, loop.run(server.listen("127.0.0.1", 0, access.tls())))
        yield running
        if not running.ended:
            running.end()
    finally:
        host.stop(10)
        loop.close()


def in_process(bundle: vc.Bundle, episode: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """The chunk after every observation, by a session of the test's own."""
    with vc.Session(bundle.path, threads=1) as session:
        name, chunks = session.plan.values[session.plan.action.value].name, []
        for observation in episode:
            for source, array in observation.items():
                session.write(source, array)
            session.step()
            chunks.append(session.read(name)[0])
        return chunks


def episode_of(policy: vc.Policy, length: int = 5, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Observations as a robot makes them: frames and state differ, the instruction stays. Of a history the newest."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(length):
        observation = {}
        for name, tensor in policy.example_inputs.items():
            array = tensor.numpy()
            if policy.sources[name].history > 1:
                array = array[:, -1]
            if policy.sources[name].update != "task":
                array = (rng.integers(0, 256, array.shape, np.uint8) if array.dtype == np.uint8 else
                         rng.standard_normal(array.shape).astype(array.dtype))
            observation[name] = np.ascontiguousarray(array)
        out.append(observation)
    return out
