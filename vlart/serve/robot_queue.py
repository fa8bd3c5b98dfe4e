"""`RobotQueue`: what waits for the sessions: at most the newest item of every robot, in turns.

An item that comes while an older one of the same robot waits takes its place, and its turn. Whoever was answered goes
to the end: between two turns of a robot, every other one that waits has one. An item is for a place, a session, where
one is worked on at a time. Must not know what items are.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class RobotQueue(Generic[T]):
    """For any thread."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[int, T]] = {}  # {robot: (place, item)}, in the order of their turns
        self._taken: set[int] = set()  # places
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return len(self._waiting)

    def put(self, robot: int, item: T, place: int = 0) -> T | None:
        """Returns the item that it replaces. Raises QueueClosed."""
        with self._changed:
            if self._closed:
                raise QueueClosed
            replaced = self._waiting.get(robot)
            self._waiting[robot] = place, item
            self._changed.notify()
            return None if replaced is None else replaced[1]

    def waiting(self, robot: int) -> T | None:
        with self._changed:
            found = self._waiting.get(robot)
            return None if found is None else found[1]

    def take(self) -> T | None:
        """The item whose turn it is, of those whose place is free; waits for one. Its place is taken until `done`.
        None: the queue was closed, and nothing waits any more."""
        with self._changed:
            while self._waiting or not self._closed:
                for robot, (place, item) in self._waiting.items():
                    if place not in self._taken:
                        del self._waiting[robot]
                        self._taken.add(place)
                        return item
                self._changed.wait()
            return None

    def done(self, place: int = 0) -> None:
        """With what was taken for a place."""
        with self._changed:
            self._taken.discard(place)
            self._changed.notify_all()

    def close(self) -> None:
        """No more items; those that wait are still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[T]:
        """All that waits, whatever its place, for one who cannot work on it any more."""
        with self._changed:
            left = [item for _, item in self._waiting.values()]
            self._waiting.clear()
            self._changed.notify_all()
            return left


class QueueClosed(Exception):
    """Nothing is taken any more."""
