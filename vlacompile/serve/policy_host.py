"""`PolicyHost`: one session on one thread, shared by the clients of a server.

A session belongs to one thread; requests of all clients wait in one bounded queue and are answered in order. A request
carries everything that its step reads, so that clients cannot affect each other: an input equal to the previous
request's re-runs nothing, whoever sent it. A bundle with state (histories, temporal ensembling) serves one client at a
time. Must not know protocols.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlacompile.bundle.directory import one_backbone, read_bundle
from vlacompile.bundle.plan.action import Ensemble, Realtime
from vlacompile.bundle.precision_record import require_calibrated
from vlacompile.errors import ConfigError, RuntimeFailure, VlaError
from vlacompile.runtime.session import Session
from vlacompile.serve.metrics import Metrics
from vlacompile.serve.observations import Input, inputs_of
from vlacompile.serve.refusal import Refusal
from vlacompile.vocabulary import NUMPY_DTYPES

NOISE = ("client", "normal", "uniform")


@dataclass(frozen=True)
class Reply:
    """outputs: {name: array}; "actions" [h,action_dim], if the bundle has any. Times in seconds."""

    outputs: dict[str, np.ndarray]
    wait_s: float
    infer_s: float


@dataclass
class Client:
    """The host's state of one client: its instruction, its random number generator."""

    number: int
    task: dict[str, np.ndarray] = field(default_factory=dict)
    draw: np.random.Generator | None = None
    fresh: bool = True  # its first request begins an episode


@dataclass(frozen=True)
class _Job:
    client: Client
    writes: Mapping[str, np.ndarray]
    future: Future
    since: float


class PolicyHost:
    """bundle: its directory. threads: of the inference engine, 0: its own choice. queue_length: requests that may wait.
    noise: source of the initial noise of a sampling policy (sources of class step): "client", or this host, from
    N(0, 1) ("normal") or [0, 1) ("uniform"). seed: random seed; every client then gets the same sequence; None: the
    system's. backbone: which one to serve if the bundle has several; None: the first. uncalibrated: accept a bundle
    whose quantisation error nobody has measured (bundle/precision_record.py).
    Raises the errors of reading and opening a bundle, and ConfigError for a bundle that cannot be served."""

    def __init__(self, bundle: str | Path, *, threads: int = 0, queue_length: int = 8, noise: str = "client",
                 seed: int | None = None, metrics: Metrics | None = None, backbone: str | None = None,
                 uncalibrated: bool = False):
        assert noise in NOISE and queue_length >= 1
        self.bundle = one_backbone(read_bundle(bundle), backbone)
        require_calibrated(self.bundle, uncalibrated)
        self.plan = self.bundle.plan
        self.inputs = inputs_of(self.plan)
        self.metrics = metrics or Metrics()
        self.noise, self.seed = noise, seed
        consume = self.plan.action.consume if self.plan.action else None
        if isinstance(consume, Realtime):
            raise ConfigError("a bundle with real-time chunking cannot be served", where=str(bundle),
                              why="the runtime counts the executed actions; a client that takes whole chunks does not "
                                  "report them", fix="compile it with a recipe whose [action] consume is a queue")
        self.ensembles = isinstance(consume, Ensemble)
        self.exclusive = bool(self.plan.histories) or self.ensembles
        self._lent: Client | None = None
        self._numbers = 0
        self._lock = threading.Lock()
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._waiting, self._limit = 0, queue_length
        self._stopping = False
        self.metrics.gauge("queue_limit", queue_length)
        self.metrics.gauge("queue", 0)
        opened: Future = Future()
        self._thread = threading.Thread(target=self._work, args=(threads, opened), name="vlart-session", daemon=True)
        self._thread.start()
        opened.result()

    # ---- any thread

    def healthy(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def connect(self) -> Client:
        """Raises Refusal if the bundle has state and serves another client."""
        with self._lock:
            if self.exclusive and self._lent is not None:
                raise Refusal("the policy is in use", where=f'bundle "{self.plan.name}"',
                              why="it keeps earlier observations, so it serves one client at a time",
                              fix="disconnect the other client, or start another server", kind="busy")
            self._numbers += 1
            seeded = np.random.default_rng(self.seed)
            client = Client(self._numbers, draw=seeded)
            if self.exclusive:
                self._lent = client
        self.metrics.add("clients", 1)
        return client

    def disconnect(self, client: Client) -> None:
        with self._lock:
            if self._lent is client:
                self._lent = None
        self.metrics.add("clients", -1)

    def submit(self, client: Client, writes: Mapping[str, np.ndarray]) -> Future[Reply]:
        """writes: {source: array}, as `Intake.read` returns it. Inputs of class task may be omitted once they were
        given. The future yields a Reply, or raises RuntimeFailure. Raises Refusal: missing input, busy, stopping."""
        client.task |= {n: a for n, a in writes.items() if self.inputs[n].update == "task"}
        every = {**client.task, **writes}
        for name, wanted in self.inputs.items():
            if name not in every:
                every[name] = self._drawn(client, wanted)
        job = _Job(client, every, Future(), time.perf_counter())
        with self._lock:
            if self._stopping or not self._thread.is_alive():
                raise _ended("it is stopping, or its session failed")
            if self._waiting >= self._limit:
                raise Refusal("the server is busy", where="the queue",
                              why=f"{self._waiting} requests are waiting, which is the limit",
                              fix="send the newest observation again later", kind="busy")
            self._waiting += 1
            self.metrics.gauge("queue", self._waiting)
            self._jobs.put(job)
        return job.future

    def stop(self, grace_s: float = 10.0) -> bool:
        """Answer the waiting requests, then close the session. False: it took longer than grace_s."""
        with self._lock:
            first, self._stopping = not self._stopping, True
        if first:
            self._jobs.put(None)
        self._thread.join(grace_s)
        return not self._thread.is_alive()

    def _drawn(self, client: Client, wanted: Input) -> np.ndarray:
        if wanted.update != "step" or self.noise == "client":
            fix = "send every input of the policy"
            if wanted.update == "step":
                fix = "send random numbers, or have the operator set how the server draws them (--noise)"
            raise Refusal(f'"{wanted.name}" is missing', where="the message",
                          why=f"the policy expects {wanted.text()}, "
                          + ("with every observation" if wanted.update != "task" else "once per task"), fix=fix)
        drawn = client.draw.standard_normal(wanted.dims) if self.noise == "normal" else client.draw.random(wanted.dims)
        return drawn.astype(NUMPY_DTYPES[wanted.dtype])

    # ---- the session's thread

    def _work(self, threads: int, opened: Future) -> None:
        try:
            session = Session(self.bundle.path, threads=threads)
            if self.plan.backbones:
                session.select(self.plan.backbones[0].name)
        except VlaError as error:
            opened.set_exception(error)
            return
        opened.set_result(None)
        job = None
        try:
            while (job := self._jobs.get()) is not None:
                with self._lock:
                    self._waiting -= 1
                    self.metrics.gauge("queue", self._waiting)
                if not job.future.set_running_or_notify_cancel():
                    continue  # the client has disconnected
                try:
                    job.future.set_result(self._answer(session, job))
                except RuntimeFailure as error:
                    job.future.set_exception(error)
        finally:  # even if a bug ends the thread: no client may wait forever
            with self._lock:
                self._stopping = True
            left = [job] if job is not None and not job.future.done() else []
            while not self._jobs.empty():
                left.append(self._jobs.get_nowait())
            for waiting in filter(None, left):
                waiting.future.set_exception(_ended("its session failed"))
            session.close()

    def _answer(self, session: Session, job: _Job) -> Reply:
        begin = time.perf_counter()
        if job.client.fresh and self.exclusive:
            session.reset()
        job.client.fresh = False
        for name, array in job.writes.items():
            session.write(name, array)
        session.step()
        outputs = self._outputs(session)
        end = time.perf_counter()
        self.metrics.observe("wait_seconds", begin - job.since)
        self.metrics.observe("infer_seconds", end - begin)
        self.metrics.stages(session.stats().stages)
        return Reply(outputs, begin - job.since, end - begin)

    def _outputs(self, session: Session) -> dict[str, np.ndarray]:
        """Actions: the whole chunk if it consists of robot actions; if the runtime decodes or ensembles it, the actions
        popped from the queue."""
        action = self.plan.action
        if action is None:
            return {name: session.read(name) for name in self.bundle.manifest["provenance"]["outputs"]}
        if self.ensembles:
            return {"actions": session.pop()[None]}
        if action.decode:
            return {"actions": np.stack([session.pop() for _ in range(action.execute_steps)])}
        chunk = session.read(self.plan.values[action.value].name)
        return {"actions": chunk.reshape(action.chunk_steps, action.action_dim)}

    def described(self) -> dict:
        """The first message to a client: plain numbers and text."""
        action = self.plan.action
        about = {"policy": self.plan.name, "bundle": self.bundle.hash, "outputs": ["actions"],
                 "inputs": {n: {"dtype": i.dtype, "shape": list(i.dims), "update": i.update}
                            for n, i in self.inputs.items()}}
        if self.plan.backbones:
            about["backbone"] = self.plan.backbones[0].name
        if action is None:
            return about | {"outputs": list(self.bundle.manifest["provenance"]["outputs"])}
        rows = 1 if self.ensembles else action.execute_steps if action.decode else action.chunk_steps
        return about | {"action_horizon": rows, "execute_steps": min(rows, action.execute_steps),
                        "action_dim": action.action_dim}


def _ended(why: str) -> Refusal:
    return Refusal("the server is stopping", where="the queue", why=why, fix="connect again when it is back",
                   kind="stopping")
