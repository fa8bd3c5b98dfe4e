"""`Tasks`: what is carried out: the instruction, the backbone that a router chose for it, and which outcomes count.

A task is an instruction in an episode. It has a number, by which its outcome is told, so that none counts for another
task, or twice. Must not know messages, nor when something is published.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vlart.errors import ConfigError, RuntimeFailure
from vlart.ros.account import Account
from vlart.runtime.router import Routed, Router
from vlart.serve.refusal import Refusal

REMEMBERED = 64  # tasks of which it is known how they ended
OUTCOME = "ReportOutcome"
# {backbone: {input: content}} of an instruction; the key is None where none is chosen
Tokens = Callable[[str], Mapping[str | None, Mapping[str, np.ndarray]]]


@dataclass
class Task:
    """instruction: "" of a policy that takes none. said: {input: content}. decision: None where nothing is chosen.
    asked: a chunk was asked for. acted: an action of it was published."""

    number: int
    instruction: str
    said: Mapping[str, np.ndarray]
    decision: Routed | None = None
    asked: bool = False
    acted: bool = False

    @property
    def backbone(self) -> str | None:
        return None if self.decision is None else self.decision.backbone


class Tasks:
    """tokens: of an instruction, raises Refusal. router: chooses among backbones; its state is this object's alone.

    For any thread; whoever calls more than once for one change holds `turn`, never while holding another lock."""

    def __init__(self, tokens: Tokens, router: Router | None = None):
        self.turn = threading.RLock()
        self._tokens, self._router = tokens, router
        self.current: Task | None = None
        self.begun = 0
        self.outcomes = Account()
        self.succeeded, self.failed = 0, 0
        self.unsaved = ""  # why the last outcome is not on disk
        self._ended: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)

    def begin(self, instruction: str, why: str) -> Task:
        """why: the last one ends, in words. Raises Refusal for an instruction that does not fit, which changes nothing:
        the last task goes on, and its outcome counts."""
        with self.turn:
            every = self._tokens(instruction)  # before the router decides, who then waits for the outcome of that
            decision = None if self._router is None else self._decided(self._router, instruction)
            self.end(why)
            self.begun += 1
            said = every[None if decision is None else decision.backbone]
            self.current = Task(self.begun, instruction, said, decision)
            return self.current

    def end(self, why: str) -> None:
        """Of the task that there is, if there is one: its outcome is refused from now on, because of `why`."""
        with self.turn:
            if self.current is not None:
                self._ended.append((self.current.number, why))
            self.current = None

    def outcome(self, number: int, success: bool, instruction: str = "") -> str:
        """Of the task of that number, which ends with it. instruction: which the teller believes it had; "": not said.
        Returns what became of it, in words. Raises Refusal for one that counts nothing."""
        with self.turn:
            self.outcomes.received += 1
            try:
                task = self._task_of(number, instruction)
            except Refusal as refusal:
                self.outcomes.refuse("unfit", str(refusal))
                raise
            told = "success" if success else "failure"
            if self._router is not None:
                self._report(self._router, success)
            self.outcomes.used += 1
            self.succeeded, self.failed = self.succeeded + bool(success), self.failed + (not success)
            self.end(f"its outcome was told: {told}")
            return f"task {task.number}: {told}; {self.succeeded} succeeded, {self.failed} failed" + (
                f"; it counts, and is not on disk: {self.unsaved}" if self.unsaved else "")

    @property
    def routed(self) -> bool:
        """A backbone is chosen for every task."""
        return self._router is not None

    @property
    def backbones(self) -> tuple[str, ...]:
        """Those that are chosen among, in the order of a decision's numbers."""
        return () if self._router is None else self._router.backbones

    def state_words(self) -> str:
        """Of the router: how often its state was saved, and whether a part of it was lost; for a person."""
        with self.turn:
            if self._router is None:
                return "there is no router"
            info = self._router.info()
            return f"saved {info.generation} times" + (", one of its two files was unusable" if info.recovered else "")

    def close(self) -> None:
        with self.turn:
            self.end("the node was cleaned up")
            if self._router is not None:
                self._router.close()

    def _decided(self, router: Router, instruction: str) -> Routed:
        try:
            return router.decide(instruction)
        except (ConfigError, RuntimeFailure) as failure:
            raise Refusal("the instruction cannot be routed", where="router", why=failure.why,
                          fix="give an instruction of words, of at most 512 bytes") from failure

    def _report(self, router: Router, success: bool) -> None:
        try:
            router.report_outcome(success)
            self.unsaved = ""
        except RuntimeFailure as failure:
            if failure.status != "IO":  # the router counts it, and saves it with the next one
                raise
            self.unsaved = str(failure)

    def _task_of(self, number: int, instruction: str) -> Task:
        task = self.current
        if task is not None and number == task.number:
            if instruction not in ("", task.instruction):
                raise Refusal(f"task {number} has another instruction", where=f"{OUTCOME}.instruction",
                              why=f'it is "{task.instruction}", not "{instruction}"',
                              fix="give the number that the service `instruction` answered with, and that instruction")
            if not task.acted:
                raise Refusal(f"no action of task {number} was published yet", where=f"{OUTCOME}.task",
                              why="it has no outcome before", fix="call the service `reset` to end it without one")
            return task
        now = "there is no task now" if task is None else f'the task now is {task.number}, "{task.instruction}"'
        how = next((why for ended, why in self._ended if ended == number), None)
        if how is not None:
            raise Refusal(f"task {number} is over", where=f"{OUTCOME}.task", why=f"{how}; {now}",
                          fix="tell the outcome once, before another task begins")
        raise Refusal("an outcome without a task" if number == 0 else f"task {number} is not known",
                      where=f"{OUTCOME}.task",
                      why=f"{now}; {'none began yet' if not self.begun else f'{self.begun} began'}",
                      fix="give the number that the service `instruction` answered with, or that of the diagnostics")
