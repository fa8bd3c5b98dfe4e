"""What a session and asynchronous control hand out, written down a second time: from the definitions of chunks, ticks,
tasks and episodes alone, with lists of all predictions where libvlart keeps running means and counters.

A model predicts a chunk [H,D] from named inputs; `kind` is how chunks become actions ("queue", "ensemble", "realtime").
A call that libvlart refuses returns the name of its status instead of an action.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Predict = Callable[..., np.ndarray]
COUNTED = ("tick", "chunks", "discarded", "failures", "safe_actions", "deadline_misses", "idle_ticks")


@dataclass
class Rules:
    """H: rows of a chunk. delay, horizon: of real-time chunks. tasks, observations: names of the sources of the two
    classes."""

    kind: str
    steps: int
    execute: int
    dim: int
    decay: float = 0.01
    delay: int = 0
    horizon: int = 0
    tasks: tuple[str, ...] = ("tokens",)
    observations: tuple[str, ...] = ("state",)
    most: float | None = None  # a tick may change each number by this much
    refuse: bool = False  # an action that is farther is not handed out, instead of brought to that

    def too_far(self, action: np.ndarray, last: np.ndarray | None) -> bool:
        return self.most is not None and last is not None and bool((abs(action - last) > self.most * (1 + 1e-6)).any())

    def limited(self, action: np.ndarray, last: np.ndarray | None) -> np.ndarray:
        return np.clip(action, last - self.most, last + self.most) if self.too_far(action, last) else action


def mean(predictions: list[np.ndarray], decay: float) -> np.ndarray:
    """Zhao et al. 2023, Algorithm 2: exp(-m * i), i = 0 the oldest."""
    weights = np.exp(-decay * np.arange(len(predictions)))
    return (np.stack(predictions).astype(np.float64) * weights[:, None]).sum(axis=0) / weights.sum()


def prefix(rules: Rules, last: np.ndarray | None, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """(previous [1,H,D], weights [H]): what is left of the last chunk `shift` ticks after it began."""
    previous, weights = np.zeros((1, rules.steps, rules.dim), np.float32), np.zeros(rules.steps, np.float32)
    left = 0 if last is None else max(0, rules.steps - shift)
    if left:
        previous[0, :left] = last[shift:]
    end = min(rules.horizon, left)
    start = min(rules.delay, end)
    for i in range(end):
        weights[i] = 1 if i < start else 1 - (i - start + 1) / (end - start + 1)
    return previous, weights


class Computed:
    """A session's knowledge of what it computed: inputs -> chunk, and what of the last chunk the next one continues.
    Equal bytes are no change; bytes that return to what they were are two."""

    def __init__(self, rules: Rules, predict: Predict):
        self.rules, self.predict = rules, predict
        self.content: dict[str, np.ndarray] = {}
        self.changes: dict[str, int] = {}
        self.backbone = 0
        self.chunk: np.ndarray | None = None
        self.asked: tuple | None = None  # the inputs that `chunk` answers
        self.task: tuple | None = None  # that `chunk` was for; None: it ended
        self.number = 0  # of tasks that gave a chunk
        self.running: tuple[int, np.ndarray] | None = None  # (its tick, the chunk) that a real-time one continues

    def put(self, name: str, array: np.ndarray) -> None:
        if name not in self.content or not np.array_equal(self.content[name], array):
            self.changes[name] = self.changes.get(name, 0) + 1
        self.content[name] = array.copy()

    def now_asked(self) -> tuple:
        return (self.backbone, *sorted(self.changes.items()))

    def now_task(self) -> tuple:
        return (self.backbone, *(self.changes[n] for n in self.rules.tasks))

    def is_another_task(self) -> bool:
        return self.task != self.now_task()

    def is_set(self, observed: set[str]) -> bool:
        """observed: what was written in this episode, which a task's sources need not be."""
        return {*self.rules.tasks} <= self.content.keys() and {*self.rules.observations} <= observed

    def prepare(self, tick: int) -> bool:
        """Whether a chunk must be computed for an observation of this tick."""
        if self.is_another_task():
            self.running = None
        if self.rules.kind == "realtime" and (self.asked != self.now_asked() or self.running is None):
            last, shift = (None, 0) if self.running is None else (self.running[1], tick - self.running[0])
            for name, array in zip(("previous", "weights"), prefix(self.rules, last, shift), strict=True):
                self.put(name, array)
        return self.asked != self.now_asked()

    def compute(self) -> np.ndarray:
        return self.predict(self.backbone, **self.content)

    def accept(self, chunk: np.ndarray) -> None:
        self.number += self.is_another_task()
        self.chunk, self.task, self.asked = chunk, self.now_task(), self.now_asked()


class SessionReference:
    """Write, step, pop, reset, select."""

    def __init__(self, rules: Rules, predict: Predict):
        self.rules, self.computed = rules, Computed(rules, predict)
        self.pops = self.observed = 0  # ticks are pops
        self.reset()

    def reset(self) -> None:
        self.queue: list[np.ndarray] = []
        self.predictions: list[tuple[int, np.ndarray]] = []  # (tick of its first row, chunk), oldest first
        self.offered: np.ndarray | None = None
        self.computed.running = None
        self.observed = self.pops
        self.written: set[str] = set()
        self.last: np.ndarray | None = None

    def write(self, name: str, array: np.ndarray) -> None:
        self.computed.put(name, array)
        self.written.add(name)
        if name in self.rules.observations:
            self.observed = self.pops

    def select(self, backbone: int) -> None:
        self.computed.backbone = backbone

    def step(self) -> str:
        computed, late = self.computed, self.pops - self.observed
        if not computed.is_set(self.written):
            return "SOURCE_UNSET"
        if computed.prepare(self.observed):
            if self.rules.kind == "realtime" and late >= self.rules.steps:
                computed.asked = None
                return "CHUNK_TOO_LATE"
            if computed.is_another_task():
                self.predictions.clear()
            computed.accept(computed.compute())
        elif computed.is_another_task():  # after one that ended: the same chunk, anew
            computed.accept(computed.chunk)
        elif self.queue or self.offered is not None:
            return "OK"
        return self._begin(late)

    def _begin(self, late: int) -> str:
        """Hand the chunk out, from the row of this tick on."""
        chunk = self.computed.chunk
        if self.rules.kind == "ensemble":
            self.offered = chunk
        elif self.rules.kind == "queue":
            self.queue = list(chunk[: self.rules.execute])
        else:
            self.queue = list(chunk[late:])
            if not self.queue:
                return "CHUNK_TOO_LATE"
            self.computed.running = (self.observed, chunk)
        return "OK"

    def pop(self) -> np.ndarray | str:
        if self.rules.kind == "ensemble":
            if self.offered is None:
                return "QUEUE_EMPTY"
            self.predictions.append((self.pops, self.offered))
            self.offered = None
            rows = [c[self.pops - t] for t, c in self.predictions if self.pops - t < self.rules.steps]
            action = mean(rows, self.rules.decay)
        elif not self.queue:
            return "QUEUE_EMPTY"
        else:
            action = self.queue.pop(0)
        if self.rules.refuse and self.rules.too_far(action, self.last):
            self.queue, self.computed.running, self.computed.task = [], None, None
            self.predictions.clear()
            return "ACTION_TOO_FAR"
        self.pops += 1
        self.last = self.rules.limited(action, self.last)
        return self.last

    def pop_rows(self, rows: int) -> list[np.ndarray] | str:
        """All of them or none."""
        if rows > (1 if self.rules.kind == "ensemble" else len(self.queue)):
            return "QUEUE_EMPTY"
        before, found = (self.last, self.pops), []
        for _ in range(rows):
            action = self.pop()
            if isinstance(action, str):
                self.last, self.pops = before
                return action
            found.append(action)
        return found


@dataclass
class Observation:
    tick: int
    epoch: int
    episode: int
    backbone: int
    content: dict[str, np.ndarray]
    written: set[str]  # in its episode


LEFT_OVER = Observation(0, -1, -1, 0, {}, set())  # of an episode before


@dataclass
class Answer:
    of: Observation
    task: int = 0
    chunk: np.ndarray | None = None  # None: the observation gave none


@dataclass
class AsyncReference:
    """Write, request, answer (or compute and deliver), pop, cancel, select. expire: "time" or "execution". safe: the
    safe action; None: the episode's last action. lead, stale, deadline: ticks; stale, deadline 0: none.

    Deadlines are those of what was handed over and has no answer yet. The control thread sees of its worker what it
    was answered: the first of them is the one that is computed, and after an answer the worker has taken the newest.
    """

    rules: Rules
    predict: Predict
    expire: str = "time"
    safe: np.ndarray | None = None
    lead: int = 0
    stale: int = 0
    deadline: int = 0
    content: dict[str, np.ndarray] = field(default_factory=dict)
    backbone: int = 0
    tick: int = 0  # of those that chunks, and what is late, are counted by
    standing: bool = True  # no action of a chunk was handed out since the episode began or the chunk was dropped
    epoch: int = 0
    episode: int = 1
    waiting: Observation | None = None  # for the worker
    asked: list[Observation] = field(default_factory=list)  # and not answered, by what was taken; oldest first
    made: Answer | None = None  # computed and not delivered
    came: Answer | None = None
    chunk: Answer | None = None
    predictions: list[Answer] = field(default_factory=list)
    fresh: bool = False  # `chunk` is not among the predictions yet
    task: int | None = None
    last: np.ndarray | None = None
    written: set[str] = field(default_factory=set)  # in this episode
    counts: Counter = field(default_factory=Counter)  # of what `info` counts, by its names

    def __post_init__(self) -> None:
        self.computed = Computed(self.rules, self.predict)
        self.seen_epoch = self.seen_episode = 0
        self.limit = min(self.rules.steps, self.rules.execute + self.stale) if self.stale else self.rules.steps

    def leave(self) -> None:
        """What an episode before has handed over still waits for the worker."""
        self.waiting, self.asked = LEFT_OVER, [LEFT_OVER]

    def write(self, name: str, array: np.ndarray) -> None:
        self.content[name] = array.copy()
        self.written.add(name)

    def select(self, backbone: int) -> None:
        self.backbone = backbone

    def request(self) -> None:
        self.take()  # whose successor the worker has begun, and not this one
        self.waiting = Observation(self.tick, self.epoch, self.episode, self.backbone, dict(self.content),
                                   set(self.written))
        self.asked.append(self.waiting)

    def answer(self) -> None:
        self.compute()
        self.deliver()

    def compute(self) -> None:
        """The worker's turn, on the newest observation that waits."""
        o, self.waiting = self.waiting, None
        if o is not None:
            self.made = Answer(o, *self._computed(o))

    def _computed(self, o: Observation) -> tuple[int, np.ndarray] | tuple[()]:
        c = self.computed
        if o.episode != self.seen_episode or o.epoch != self.seen_epoch:
            c.running = c.task = None
        self.seen_episode, self.seen_epoch = o.episode, o.epoch
        for name, array in o.content.items():
            if name in self.rules.tasks or name in o.written:
                c.put(name, array)
        c.backbone = o.backbone
        if not c.is_set(o.written):
            return ()
        if c.prepare(o.tick):
            if o.epoch != self.epoch:
                return ()  # cancelled before its first stage
            c.accept(c.compute())
        elif c.is_another_task():
            c.accept(c.chunk)
        c.running = (o.tick, c.chunk)
        return c.number, c.chunk

    def deliver(self) -> None:
        if self.made is not None:
            self.came, self.made = self.made, None

    def take(self) -> None:
        """What the worker made arrives with the next request, pop or info."""
        came, self.came = self.came, None
        if came is None:
            return
        behind = [o is came.of for o in self.asked].index(True) + 1
        self.asked = self.asked[behind:][-1:]  # the newest replaced the others
        if came.of.epoch != self.epoch:
            self.counts["discarded"] += 1
        elif came.chunk is None:
            self.counts["failures"] += 1
        else:
            self._begin(came)

    def _begin(self, came: Answer) -> None:
        self.counts["chunks"] += 1
        if self.task != came.task:
            self.predictions.clear()
        self.task = came.task
        if self.tick - came.of.tick < self.limit:
            self.chunk, self.fresh = came, True
        else:  # over before it came
            self.counts["discarded"] += 1

    def awaited(self) -> list[Observation]:
        """A cancel ends the wait, though the worker may be busy with it for a while."""
        return [o for o in self.asked if o.epoch == self.epoch]

    def since(self) -> int:
        """The tick that a deadline is counted from, where something is awaited."""
        return self.awaited()[0].tick

    def is_late(self) -> bool:
        return self.deadline > 0 and bool(self.awaited()) and self.tick - self.since() > self.deadline

    def info(self) -> dict[str, int]:
        self.take()
        row = None if self.chunk is None else self.tick - self.chunk.of.tick
        due = not self.awaited() and (row is None or row + self.lead >= self.rules.execute)
        return {"remaining": 0 if row is None else max(0, self.limit - row), "due": int(due),
                "busy": int(bool(self.asked)), **{name: self.counts[name] for name in COUNTED}}

    def cancel(self, how: str) -> None:
        self.epoch += 1
        if how != "keep":
            self.chunk, self.standing, self.fresh = None, True, False
            self.predictions.clear()
        if how == "episode":
            self.episode += 1
            self.last = None
            self.written = set()

    def pop(self) -> tuple[str, np.ndarray | None]:
        status, action = self._pop()
        self.counts["tick"] += 1
        self.counts["deadline_misses"] += status == "DEADLINE_MISSED"
        self.counts["safe_actions"] += status == "SAFE_ACTION"
        return status, action

    def _pop(self) -> tuple[str, np.ndarray | None]:
        self.take()
        action = self._action()
        if action is not None and self.rules.refuse and self.rules.too_far(action, self.last):
            self._refused()
            action = None
        if action is not None:
            status = "DEADLINE_MISSED" if self.is_late() else "OK"  # the last chunk goes on in either case
            self.standing, self.last = False, self.rules.limited(action, self.last)
            self.tick += 1
            return status, self.last
        if not self.standing and self.expire == "time":
            self.tick += 1
        else:
            self.counts["idle_ticks"] += 1
        if self.safe is not None:
            self.last = self.rules.limited(self.safe, self.last)
            return "SAFE_ACTION", self.last
        return ("QUEUE_EMPTY", None) if self.last is None else ("SAFE_ACTION", self.last)

    def _refused(self) -> None:
        """The chunk ends, and none continues it."""
        self.counts["failures"] += 1
        self.chunk, self.fresh = None, False
        self.predictions.clear()
        self.epoch += self.rules.kind == "realtime"

    def _action(self) -> np.ndarray | None:
        if self.chunk is None or self.tick - self.chunk.of.tick >= self.limit:
            return None
        if self.rules.kind != "ensemble":
            return self.chunk.chunk[self.tick - self.chunk.of.tick]
        if self.fresh:
            self.predictions.append(self.chunk)
            self.fresh = False
        self.predictions = [p for p in self.predictions if self.tick - p.of.tick < self.rules.steps]
        rows = [p.chunk[self.tick - p.of.tick] for p in self.predictions]
        return mean(rows, self.rules.decay) if rows else None
