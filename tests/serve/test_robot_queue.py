"""Random puts, takes and closes against the definition: the newest of every robot, in turns, and nothing is lost."""

from __future__ import annotations

import itertools
import random
import threading
import time

import pytest

from vlart.serve.robot_queue import QueueClosed, RobotQueue


class Reference:
    """A list of [robot, place, item], oldest turn first, and the places that are taken."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.taken: set[int] = set()

    def put(self, robot: int, item: int, place: int) -> int | None:
        for row in self.rows:
            if row[0] == robot:
                replaced, row[1:] = row[2], [place, item]
                return replaced
        self.rows.append([robot, place, item])
        return None

    def free(self) -> list[list[int]]:
        return [row for row in self.rows if row[1] not in self.taken]

    def take(self) -> int:
        row = self.free()[0]
        self.rows.remove(row)
        self.taken.add(row[1])
        return row[2]


def test_it_is_what_the_definition_says():
    rng = random.Random(0)
    for _ in range(2000):
        queue, reference, number, places = RobotQueue[int](), Reference(), 0, rng.randrange(1, 4)
        for _ in range(rng.randrange(60)):
            word = rng.choice(["put"] * 5 + ["take"] * 3 + ["done"] * 2)
            if word == "put":
                robot, number = rng.randrange(5), number + 1
                assert queue.put(robot, number, robot % places) == reference.put(robot, number, robot % places)
                assert queue.waiting(robot) == number
            elif word == "take" and reference.free():
                assert queue.take() == reference.take()
            elif word == "done" and reference.taken:
                place = rng.choice(sorted(reference.taken))
                queue.done(place)
                reference.taken.discard(place)
            assert len(queue) == len(reference.rows)
        queue.close()
        with pytest.raises(QueueClosed):
            queue.put(0, 0)
        for place in reference.taken:
            queue.done(place)
        reference.taken.clear()
        while reference.rows and rng.random() < 0.7:
            assert queue.take() == reference.take()
            queue.done(*reference.taken)
            reference.taken.clear()
        assert queue.drain() == [item for *_, item in reference.rows] and queue.take() is None


def test_every_other_robot_that_waits_has_its_turn_before_one_has_its_next():
    rng = random.Random(1)
    for _ in range(500):
        queue, turns, robots = RobotQueue[int](), [], rng.randrange(2, 8)
        for robot in range(robots):
            queue.put(robot, robot)
        for _ in range(6 * robots):  # robots of different speeds: some ask again many times, all wait always
            for robot in rng.choices(range(robots), weights=range(1, robots + 1), k=rng.randrange(9)):
                queue.put(robot, robot)
            taken = queue.take()
            turns.append(taken)
            queue.put(taken, taken)
            queue.done()
        for robot in range(robots):
            at = [i for i, r in enumerate(turns) if r == robot]
            assert all(b - a <= robots for a, b in itertools.pairwise(at)), (robot, turns)


def test_among_threads_each_item_is_taken_or_replaced_once():
    queue, found, lock = RobotQueue[tuple[int, int]](), {"replaced": [], "taken": []}, threading.Lock()
    working: set[int] = set()  # places

    def robot(number: int) -> None:
        for i in range(400):
            replaced = queue.put(number, (number, i), number % 4)
            if replaced is not None:
                with lock:
                    found["replaced"].append(replaced)

    def worker() -> None:
        while (item := queue.take()) is not None:
            with lock:
                assert item[0] % 4 not in working
                working.add(item[0] % 4)
                found["taken"].append(item)
            time.sleep(0)
            with lock:
                working.discard(item[0] % 4)
            queue.done(item[0] % 4)

    robots = [threading.Thread(target=robot, args=(n,)) for n in range(8)]
    workers = [threading.Thread(target=worker) for _ in range(3)]
    for thread in [*workers, *robots]:
        thread.start()
    for thread in robots:
        thread.join(30)
    queue.close()
    for thread in workers:
        thread.join(30)
    every = found["replaced"] + found["taken"]
    assert sorted(every) == [(n, i) for n in range(8) for i in range(400)]
    assert all((n, 399) in found["taken"] for n in range(8))  # the newest is never the one that is replaced
