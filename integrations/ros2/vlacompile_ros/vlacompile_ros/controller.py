"""`Controller`: messages in, one action per control tick out. All of the node but ROS.

Owns when an observation is taken, when a chunk is asked for, what is published on a tick that no chunk covers, and when
publishing stops. Must not know rclpy, nor what a published message looks like.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlacompile_ros.opened import Opened, open_policy
from vlacompile_ros.tasks import Task
from vlart.errors import RuntimeFailure, VlaError
from vlart.ros.account import Account
from vlart.ros.contents import stamp_ns, text_of
from vlart.ros.mapping import TopicMap
from vlart.ros.synchronise import MS, Synchroniser
from vlart.runtime.recorder import Recorder
from vlart.serve.refusal import Refusal

RUNNING, WAITING, FAILING, STOPPED = "running", "waiting", "failing", "stopped"
JUMP_NS = 1_000_000_000  # that a clock may gain on the steady one between two ticks


@dataclass(frozen=True)
class Command:
    """action: [action_dim]. status: as AsyncSession's `Popped`. observation_ns: the time of the observation that it was
    made of; row: which action of its chunk."""

    action: np.ndarray
    status: str
    observation_ns: int
    row: int


@dataclass
class Observations:
    """What became of those that were taken. refused: by libvlart, or too old by the policy's own rule."""

    taken: int = 0
    requested: int = 0
    refused: int = 0


class Controller:
    """bundle: its directory. where: says the line of a key of the map. options: as open_policy's. Raises VlaError.

    `message`, `lost`, `instruct` and `instruct_message` are for any thread; the others for one, the control loop's."""

    def __init__(self, bundle: str | Path, topics: TopicMap, where: Callable[[str], str] = str, **options: Any):
        self.topics = topics
        self._opened: Opened = open_policy(bundle, topics, where, **options)
        self._policy, self._readers = self._opened.session, self._opened.readers
        self.tasks = self._opened.tasks
        self._lock = threading.Lock()  # of the synchroniser, the accounts and what the next tick changes to
        self.synchroniser = Synchroniser(topics.observation, topics.synchronise)
        self.instructions = Account()
        self.observations = Observations()
        self.instruction: str | None = None if self._opened.needs_text else ""
        self._task: Task | None = None  # of the control loop
        self._changed: str | None = None  # how the running chunk ends: another task began
        self._chunks_before = 0  # those of the tasks before
        self.state, self.trouble = WAITING, ""
        self._failing_since_ns: int | None = None
        self._first_awaited = True  # the first chunk of an instruction or episode
        self._unasked = False  # no chunk was asked for since the instruction came
        self.last_observation_ns: int | None = None
        self._last = 0, 0
        self._executed = 0  # the observation of the chunk that is executed
        text = None if topics.instruction is None else topics.instruction.text
        try:
            if text is not None or not self._opened.needs_text:
                self.instruct(text or "")
        except VlaError:
            self._opened.close()
            raise

    # ---- any thread

    def message(self, name: str, message: Any, now_ns: int) -> str | None:
        """A message of an input's topic, which came now. None: it is kept; otherwise why it is not."""
        topic = self.topics.observation[name]
        try:
            time_ns = now_ns if topic.stamp == "arrival" else stamp_ns(message)
            content = self._readers[name].read(message)
        except Refusal as refusal:
            with self._lock:
                self.synchroniser.refuse(name, "unfit", str(refusal))
            return "unfit"
        with self._lock:
            return self.synchroniser.add(name, time_ns, content, now_ns)

    def lost(self, name: str, count: int) -> None:
        """The middleware says that messages of an input's topic were lost on the way."""
        with self._lock:
            self.synchroniser.accounts[name].lost += count

    def instruct_message(self, message: Any) -> None:
        """Of the instruction's topic: one that is refused is counted."""
        with self._lock:
            self.instructions.received += 1
        try:
            new = self.instruct(text_of(message))
        except Refusal as refusal:
            with self._lock:
                self.instructions.refuse("unfit", str(refusal))
        else:
            with self._lock:
                self.instructions.used += new
                self.instructions.superseded += not new

    def instruct(self, text: str) -> bool:
        """From the next tick on. False: it is the instruction already. Raises Refusal, which changes nothing."""
        with self.tasks.turn:
            if self.tasks.current is not None and text == self.instruction:
                return False
            self.tasks.begin(text, f'another instruction came: "{text}"')
            with self._lock:
                self.instruction = text
                self._changed = self.topics.instruction.running if self.topics.instruction else "drop"
            return True

    # ---- the control loop

    def tick(self, now_ns: int, steady_ns: int) -> Command | None:
        """Once per period. now_ns: of the clock that stamps messages. steady_ns: of one that never jumps. None: nothing
        is to be published."""
        try:
            return self._ticked(now_ns, steady_ns)
        except RuntimeFailure as failure:  # there is not even a safe action
            self.trouble = str(failure)
            self._fail(steady_ns)
            return None

    def _ticked(self, now_ns: int, steady_ns: int) -> Command | None:
        self._policy.time(steady_ns // 1000)
        with self._lock:
            if (now_ns - self._last[0]) - (steady_ns - self._last[1]) > JUMP_NS and self._last[1]:
                self.synchroniser.clock_jumped(now_ns)
            self.synchroniser.tell(now_ns)  # which sees when it goes back
            self._last = now_ns, steady_ns
            changed, self._changed = self._changed, None
        if changed is not None:
            self._begin_task(changed)
        if self.state == STOPPED and self.topics.on_failure.resume == "reset":
            return None
        if self._unasked or self._policy.info().due:
            self._observe(now_ns, steady_ns)
        return self._command(steady_ns)

    def reset(self, why: str = "an episode began by the service reset") -> None:
        """Begin an episode: nothing of the last one is executed, and what was observed is forgotten. A task of which
        something was asked for is over, and another one begins with the same instruction. why: it is over, in words."""
        with self.tasks.turn:
            task = self.tasks.current
            if self.instruction is not None and (task is None or task.asked):
                self.tasks.begin(self.instruction, why)
            self._end_episode()

    def end(self, why: str = "the node was deactivated") -> None:
        """The episode and its task, without another one."""
        with self.tasks.turn:
            self.tasks.end(why)
            self._end_episode()

    def outcome(self, task: int, success: bool, instruction: str = "") -> str:
        """Of the task of that number, which ends with it and its episode; another one begins. instruction: as of
        Tasks.outcome. Returns what became of it, in words. Raises Refusal, which changes nothing."""
        with self.tasks.turn:
            said = self.tasks.outcome(task, success, instruction)
            self.reset()
            return said

    def info(self) -> Any:
        """AsyncSession.info."""
        return self._policy.info()

    def accounts(self) -> dict[str, Account]:
        """{input: what became of its messages}, and of "instruction"."""
        with self._lock:
            return {name: a.copy() for name, a in (*self.synchroniser.accounts.items(),
                                                   ("instruction", self.instructions))}

    def close(self) -> None:
        self._opened.close()

    @property
    def recorder(self) -> Recorder | None:
        """What records the policy and the router."""
        return self._opened.recorder

    def _end_episode(self) -> None:
        with self._lock:
            self.synchroniser.forget()
            self._changed = None
        self._begin_task("episode")
        self.state, self.trouble, self._failing_since_ns = WAITING, "", None

    def _begin_task(self, chunk: str) -> None:
        """In the control loop. chunk: what becomes of the one that is executed."""
        self._policy.cancel(chunk)
        self._first_awaited = self._unasked = True
        self._chunks_before, self._task = self._policy.info().chunks, self.tasks.current
        if self._task is not None and self._task.backbone is not None:
            self._policy.select(self._task.backbone)

    def _observe(self, now_ns: int, steady_ns: int) -> None:
        with self._lock:
            found = None if self._task is None else self.synchroniser.take(now_ns)
        if found is None or self._task is None:
            return
        self.observations.taken += 1
        age_us = max(0, now_ns - found.time_ns) // 1000
        try:
            written = {**found.contents, **self._task.said, **self._opened.without_topic()}
            self._policy.write_all(written, found.time_ns, max(1, steady_ns // 1000 - age_us))
            asked = self._policy.request()
        except VlaError as error:
            asked, self.trouble = False, str(error)
        self.observations.requested += asked
        self.observations.refused += not asked
        if asked:
            self._unasked, self._task.asked = False, True
            self.last_observation_ns = found.time_ns

    def _command(self, steady_ns: int) -> Command | None:
        try:
            popped = self._policy.pop()
        except RuntimeFailure as failure:
            if failure.status != "QUEUE_EMPTY":
                raise
            self._note_trouble()
            return None
        if popped.status != "SAFE_ACTION":
            self.state, self._failing_since_ns, self._first_awaited = RUNNING, None, False
            if popped.observation != self._executed:
                self._executed, self.trouble = popped.observation, ""  # a chunk came since
            if self._task is not None and not self._task.acted:  # the chunk may be of the one before, which goes on
                self._task.acted = self._policy.info().chunks > self._chunks_before
            return Command(popped.action, popped.status, popped.observation, popped.row)
        self._note_trouble()
        if self._first_awaited and self._policy.info().busy:
            self.state, self._failing_since_ns = WAITING, None
        else:
            self._fail(steady_ns)
        if self.state == STOPPED or self._opened.silent:
            return None
        return Command(popped.action, popped.status, popped.observation, popped.row)

    def _fail(self, steady_ns: int) -> None:
        since = self._failing_since_ns = steady_ns if self._failing_since_ns is None else self._failing_since_ns
        self.state = STOPPED if steady_ns - since >= MS * self.topics.on_failure.stop_after_ms else FAILING

    def _note_trouble(self) -> None:
        failure = self._policy.trouble()
        if failure is not None:
            self.trouble = str(failure)

    def lacks_instruction(self) -> bool:
        return self.instruction is None
