"""`PolicyHost`: the sessions of a server, shared by its clients.

Of every client the newest observation waits (robot_queue.py); clients are answered in turns. A request
carries everything that its step reads, so that clients cannot affect each other: an input equal to the previous
request's re-runs nothing, whoever sent it. Of a bundle with state (histories, carried values, temporal ensembling, a
rate limit) a session serves one client at a time. An episode begins with a client, or where a client says so; what
belongs to one ends in libvlart (`session/lifetimes.h`). Must not know protocols.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlart.bundle.directory import one_backbone, read_bundle
from vlart.bundle.plan.action import Ensemble, Realtime
from vlart.bundle.plan.plan import Action
from vlart.bundle.precision_record import require_calibrated
from vlart.errors import ConfigError, RuntimeFailure, VlaError
from vlart.runtime.own_process import OwnProcess
from vlart.runtime.process_exit import end_at_exit
from vlart.runtime.recorder import Recorded, Recorder
from vlart.runtime.session import Session
from vlart.serve.metrics import Metrics
from vlart.serve.observations import Input, inputs_of
from vlart.serve.refusal import Refusal
from vlart.serve.robot_queue import QueueClosed, RobotQueue
from vlart.vocabulary import NUMPY_DTYPES

NOISE = ("client", "normal", "uniform")


@dataclass(frozen=True)
class Reply:
    """outputs: {name: array}; "actions" [h,action_dim], if the bundle has any. Times in seconds. observation: the name
    that the client gave its observation, or how many it sent before. episode: how many this client began before."""

    outputs: dict[str, np.ndarray]
    wait_s: float
    infer_s: float
    observation: int | float | str
    episode: int


@dataclass
class Client:
    """The host's state of one client: its instruction, its random number generator; how many episodes it began, and how
    many observations it had accepted. named: inputs of class task that it ever gave."""

    number: int
    seat: _Seat
    task: dict[str, np.ndarray] = field(default_factory=dict)  # of its session's thread: as of its last observation
    named: set[str] = field(default_factory=set)
    draw: np.random.Generator | None = None
    episode: int = 0
    observations: int = 0


@dataclass(frozen=True)
class _Job:
    """writes: what it brought, and the noise that was drawn for it. said: its instruction, after those of the
    observations that it superseded, which nobody has judged yet."""

    client: Client
    writes: Mapping[str, np.ndarray]
    said: tuple[dict[str, np.ndarray], ...]
    episode: int
    observation: int | float | str | None
    future: Future
    since: float


@dataclass
class _Seat:
    """A session. robots: clients that were given it. at: (client, episode) of its last step."""

    number: int
    session: Session
    robots: int = 0
    at: tuple[int, int] | None = None


class PolicyHost:
    """bundle: its directory. threads: of the inference engine of each session, 0: its own choice. sessions: how many;
    they share the bundle's weights. A client keeps the one that it is given when it connects. As many of them step at a
    time as there are cores for their threads, so that observations are read meanwhile.
    noise: source of the initial noise of a sampling policy (sources of class step): "client", or this host, from
    N(0, 1) ("normal") or [0, 1) ("uniform"). seed: random seed; every client then gets the same sequence; None: the
    system's. backbone: which one to serve if the bundle has several; None: the first, or of lengths of a text the one
    that the text asks for. uncalibrated: accept a bundle
    whose quantisation error nobody has measured (bundle/precision_record.py). native_code: as Session's.
    record: with a track for each session; closed with them.
    Raises the errors of reading and opening a bundle, and ConfigError for a bundle that cannot be served."""

    def __init__(self, bundle: str | Path, *, threads: int = 0, sessions: int = 1, noise: str = "client",
                 seed: int | None = None, metrics: Metrics | None = None, backbone: str | None = None,
                 uncalibrated: bool = False, native_code: bool = False, record: Recorder | None = None):
        assert noise in NOISE and sessions >= 1
        self._owner = OwnProcess("policy host")
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
        limited = self.plan.action is not None and self.plan.action.rate_limit is not None
        remembers = bool(self.plan.histories or self.plan.carried)
        self.exclusive = remembers or self.ensembles or limited  # a session is at one episode
        self._numbers = 0
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._stopping = False
        self._queue: RobotQueue[_Job] = RobotQueue()
        self.metrics.gauge("sessions", sessions)
        self.metrics.gauge("queue", 0)
        self._recorder = record
        self._seats = self._open_sessions(sessions, threads, native_code, backbone)
        at_a_time = min(sessions, max(1, len(os.sched_getaffinity(0)) // threads if threads else 1))
        self._threads = [threading.Thread(target=self._work, name=f"vlart-session-{i}", daemon=True)
                         for i in range(at_a_time)]
        end_at_exit(self)
        self._left = at_a_time  # threads that have not ended
        for thread in self._threads:
            thread.start()

    def _open_sessions(self, count: int, threads: int, native_code: bool, backbone: str | None) -> list[_Seat]:
        opened: list[_Seat] = []
        try:
            for number in range(count):
                beside = opened[0].session if opened else None
                session = Session(self.bundle.path, threads=threads, native_code=native_code, beside=beside,
                                  record=self._recorder)
                opened.append(_Seat(number, session))
                if backbone is not None:
                    opened[-1].session.select(backbone)
        except VlaError:
            for seat in opened:
                seat.session.close()
            raise
        return opened

    # ---- any thread

    @property
    def recorded(self) -> Recorded | None:
        """What its recorder has counted, where there is one."""
        return None if self._recorder is None else self._recorder.info()

    def healthy(self) -> bool:
        return not self._stopping and all(t.is_alive() for t in self._threads)

    def connect(self) -> Client:
        """Raises Refusal if the bundle has state and every session serves another client."""
        self._owner.require(self.bundle.path)
        with self._lock:
            seat = min(self._seats, key=lambda s: s.robots)
            if self.exclusive and seat.robots:
                several = f"each of its {len(self._seats)} sessions" if len(self._seats) > 1 else "its session"
                raise Refusal("the policy is in use", where=f'bundle "{self.plan.name}"',
                              why=f"it keeps earlier observations or actions, so that {several} serves one client at a "
                                  "time", fix="disconnect another client, or have the operator add --sessions",
                              kind="busy")
            client = Client(self._numbers + 1, seat, draw=np.random.default_rng(self.seed))
            self._numbers += 1
            seat.robots += 1
        self.metrics.add("clients", 1)
        return client

    def disconnect(self, client: Client) -> None:
        self._owner.require(self.bundle.path)
        with self._lock:
            client.seat.robots -= 1
        self.metrics.add("clients", -1)

    def begin_episode(self, client: Client) -> None:
        """The client's next request begins an episode."""
        client.episode += 1

    def submit(self, client: Client, writes: Mapping[str, np.ndarray], observation: float | str | None = None,
               begins: bool = False, superseded: Sequence[Mapping[str, np.ndarray]] = ()) -> Future[Reply]:
        """writes: {source: array}, as `Intake.read` returns it. Inputs of class task may be omitted once they were
        given. observation: the client's name for it, which comes back with the reply. begins: it begins an episode.
        superseded: observations of this client that it took the place of, oldest first, of which nobody heard.
        The future yields a Reply, or raises RuntimeFailure, or Refusal (superseded) where a newer observation of this
        this client came before its turn. Raises Refusal: missing input, stopping. An instruction holds from its
        observation on, superseded or not, unless the session refuses it. An observation that is refused, here or by the
        session, changes nothing, its own instruction included."""
        self._owner.require(self.bundle.path)
        with self._lock:
            before = self._queue.waiting(client.number)  # its instruction is not superseded with it
            told = [task for w in (*superseded, writes) if (task := self.task_in(w))]
            named = client.named.union(*told)
            every = dict(writes)
            for name, wanted in self.inputs.items():
                if name not in every and name not in named:
                    every[name] = self._drawn(client, wanted)
            said = (before.said if before is not None else ()) + tuple(told)
            job = _Job(client, every, said, client.episode + begins, observation, Future(), time.perf_counter())
            try:
                replaced = self._queue.put(client.number, job, client.seat.number)
            except QueueClosed:
                raise _ended("it is stopping, or its session failed") from None
            client.episode = job.episode
            client.named = named
        self._count_waiting()
        if replaced is not None and replaced.future.set_running_or_notify_cancel():
            replaced.future.set_exception(_superseded())
        return job.future

    def stop(self, grace_s: float = 10.0) -> bool:
        """Answer the waiting requests, then close the sessions; nothing in a forked process. False: it took longer than
        grace_s."""
        if not self._owner.is_this():
            return True
        self._end_all()
        until = time.monotonic() + grace_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(t.is_alive() for t in self._threads)

    def _end_all(self) -> None:
        self._stopping = True
        self._queue.close()

    def end(self) -> None:
        """stop(), when the interpreter ends."""
        self.stop()

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

    # ---- the sessions' threads

    def _work(self) -> None:
        job = None
        try:
            while (job := self._queue.take()) is not None:
                self._count_waiting()
                if job.future.set_running_or_notify_cancel():  # the client has not disconnected
                    try:
                        job.future.set_result(self._answer(job))
                    except (RuntimeFailure, Refusal) as error:
                        job.future.set_exception(error)
                self._queue.done(job.client.seat.number)
        finally:  # even if a bug ends the thread: no client may wait forever
            self._end_all()
            left = [job] if job is not None and not job.future.done() else []
            for waiting in [*left, *self._queue.drain()]:
                if waiting.future.running() or waiting.future.set_running_or_notify_cancel():
                    waiting.future.set_exception(_ended("its session failed"))
            with self._lock:
                self._left -= 1
                last = self._left == 0
            for seat in self._seats if last else ():
                seat.session.close()
            if last and self._recorder is not None:
                self._recorder.close()

    def _answer(self, job: _Job) -> Reply:
        begin, seat = time.perf_counter(), job.client.seat
        session = seat.session
        if seat.at != (job.client.number, job.episode):
            session.reset()
            seat.at = None
        self._write(session, job)
        session.step()
        seat.at = (job.client.number, job.episode)
        outputs = self._outputs(session)
        name = job.client.observations if job.observation is None else job.observation
        job.client.observations += 1
        end = time.perf_counter()
        self.metrics.observe("wait_seconds", begin - job.since)
        self.metrics.observe("infer_seconds", end - begin)
        self.metrics.stages(seat.number, session.stats().stages)
        return Reply(outputs, begin - job.since, end - begin, name, job.episode)

    def _write(self, session: Session, job: _Job) -> None:
        """What the client said before is known only here: the observation before this one has been answered. Of the
        observations that this one superseded the session sees the instructions alone, each as if it had its turn: one
        that it refuses changes nothing."""
        client, own = job.client, self.task_in(job.writes)
        for said in job.said[:-1] if own else job.said:
            try:
                session.write_all(said)
            except RuntimeFailure:
                continue
            client.task = client.task | said
        every = client.task | job.writes
        for name, wanted in self.inputs.items():
            if name not in every:  # the observation that brought it was refused
                self._drawn(client, wanted)
        session.write_all(every)
        client.task = client.task | own

    def task_in(self, writes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The instruction that an observation brings."""
        return {n: a for n, a in writes.items() if self.inputs[n].update == "task"}

    def _count_waiting(self) -> None:
        with self._counting:
            self.metrics.gauge("queue", len(self._queue))

    def _outputs(self, session: Session) -> dict[str, np.ndarray]:
        """Actions: the whole chunk if it consists of robot actions; if the runtime decodes or ensembles it, or limits
        how fast they change, the actions popped from the queue."""
        action = self.plan.action
        if action is None:
            return {name: session.read(name) for name in self.bundle.manifest["provenance"]["outputs"]}
        if self.ensembles:
            return {"actions": session.pop()[None]}
        if self._pops(action):
            return {"actions": session.pop_rows(action.execute_steps)}
        chunk = session.read(session.action_output)
        return {"actions": chunk.reshape(action.chunk_steps, action.action_dim)}

    @staticmethod
    def _pops(action: Action) -> bool:
        return bool(action.decode) or action.rate_limit is not None

    def described(self) -> dict:
        """The first message to a client: plain numbers and text."""
        action = self.plan.action
        about = {"policy": self.plan.name, "bundle": self.bundle.hash, "outputs": ["actions"],
                 "inputs": {n: {"dtype": i.dtype, "shape": list(i.dims), "update": i.update}
                            for n, i in self.inputs.items()}}
        if self.plan.buckets:
            about["text_tokens"] = self.plan.buckets[0].length
        elif self.plan.backbones:
            about["backbone"] = self.plan.backbones[0].name
        if action is None:
            return about | {"outputs": list(self.bundle.manifest["provenance"]["outputs"])}
        rows = 1 if self.ensembles else action.execute_steps if self._pops(action) else action.chunk_steps
        return about | {"action_horizon": rows, "execute_steps": min(rows, action.execute_steps),
                        "action_dim": action.action_dim}


def _superseded() -> Refusal:
    return Refusal("the observation was superseded", where="the queue",
                   why="a newer one of this robot came before its turn, and takes it",
                   fix="execute the answer to the newest; nothing was computed of this one", kind="superseded")


def _ended(why: str) -> Refusal:
    return Refusal("the server is stopping", where="the queue", why=why, fix="connect again when it is back",
                   kind="stopping")
