"""Independent tasks on several processes of this machine, or on the machines of a cluster.

Episodes of a closed loop, candidates of a search, plans of many systems, random policies of a fuzzer: one function,
many arguments. A standard concurrent.futures.Executor does them: processes, or Dask. A task computes with one
thread in whatever process it runs, so that its result does not depend on who did it; a task whose process was lost is
done again. Must not know what the tasks are.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import torch

from vlart import errors
from vlart.errors import ConfigError, WorkerError

Task = TypeVar("Task")
Result = TypeVar("Result")
LOST_AT_MOST = 3  # processes that one task may take with it, as Dask's allowed failures


@dataclass(frozen=True)
class Workers:
    """count: processes of this machine. cluster: address of a Dask scheduler ("tcp://host:8786"), whose workers do the
    tasks instead; it reads the same files by the same paths, and runs the same version of vlacompile."""

    count: int = 1
    cluster: str | None = None

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task], *,
            done: Callable[[int, Result], None] = lambda index, result: None,
            told: Callable[[str], None] = lambda text: None) -> list[Result]:
        """[function(task)], in the order of the tasks.

        function: of a module that workers can import; it and the tasks are pickled. done: called in this thread with
        each result as it comes, in no particular order. told: what happened to workers. Raises what a task raises,
        ConfigError for a cluster of another version, and WorkerError if there is no cluster or a task is lost three
        times; the other tasks are ended then, as they are by Ctrl-C.
        """
        given = list(tasks)
        if self.cluster is not None:
            return _on_cluster(self.cluster, function, given, done, told)
        return _on_processes(self.count, function, given, done, told)

    def __str__(self) -> str:
        return self.cluster or f"{self.count} process{'es' if self.count > 1 else ''}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """--workers and --cluster, for `chosen`."""
    parser.add_argument("--workers", type=_count, default=processors(), metavar="N",
                        help="processes that share the work (default: one per processor)")
    parser.add_argument("--cluster", metavar="ADDRESS",
                        help="a Dask scheduler, whose workers do it instead: tcp://HOST:8786")


def chosen(arguments: argparse.Namespace) -> Workers:
    return Workers(arguments.workers, arguments.cluster)


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of processes from 1 to 1024')
    return int(text)


# Processes of this machine

def _on_processes(count: int, function, tasks: Sequence, done, told) -> list:
    results: dict[int, object] = {}
    lost = [0] * len(tasks)
    while len(results) < len(tasks):
        left = [i for i in range(len(tasks)) if i not in results]
        suspects = [i for i in left if lost[i]]  # of taking their process with them: alone, so that it is known
        running: dict[Future, int] = {}
        try:
            for i, result in _ended(suspects[:1] or left, count, function, tasks, running):
                results[i] = result
                done(i, result)
        except BrokenProcessPool:
            for i in running.values():
                lost[i] += 1
            if lost[max(running.values(), key=lost.__getitem__)] >= LOST_AT_MOST:
                raise WorkerError(
                    "a task was given up", where=f"{function.__module__}.{function.__qualname__}",
                    why=f"the process that ran it ended {LOST_AT_MOST} times without a result, as one does for which "
                        "memory is short, or which cannot import the module",
                    fix="read what it printed; give it more memory, or fewer --workers") from None
            told(f"a worker was lost: {len(running)} of {len(tasks)} tasks are done again")
    return [results[i] for i in range(len(tasks))]


def _ended(which: Sequence[int], count: int, function, tasks: Sequence,
           running: dict[Future, int]) -> Iterator[tuple[int, object]]:
    """(index, result) of these tasks as they end. running: those that a process has now, also after an error."""
    before = set(multiprocessing.active_children())
    at_once, queue = min(count, len(which)), deque(which)
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _begin_process) as pool:
        try:
            while queue or running:
                while queue and len(running) < at_once:
                    i = queue.popleft()
                    running[pool.submit(_run_task, function, tasks[i], version())] = i
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BaseException:  # GeneratorExit and Ctrl-C too: nobody waits for what they compute
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise


def _begin_process() -> None:
    """Ctrl-C is the parent's to handle, and whoever has no parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


# A cluster

def _on_cluster(address: str, function, tasks: Sequence, done, told) -> list:
    """Dask does a lost worker's tasks again by itself."""
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise ConfigError("--cluster needs Dask", where=address, why="distributed is not installed",
                          fix="pip install 'vlacompile[cluster]'") from None
    try:
        client = Client(address, timeout=5, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WorkerError("the cluster cannot be reached", where=address, why=str(error) or type(error).__name__,
                          fix="start one: dask scheduler, and on every machine dask worker ADDRESS --nthreads 1"
                          ) from None
    with client:
        threads = client.nthreads()
        if not threads or max(threads.values()) > 1:
            raise ConfigError("the cluster has no workers that fit", where=address,
                              why="one computes several tasks at once in a process" if threads else "it has none",
                              fix="on every machine: dask worker ADDRESS --nthreads 1 --nworkers N")
        told(f"{len(threads)} workers of {address}")
        with client.get_executor(pure=False) as executor:
            running = {executor.submit(_run_task, function, task, version()): i for i, task in enumerate(tasks)}
            results: dict[int, object] = {}
            try:
                for future in as_completed(running):
                    i = running[future]
                    results[i] = future.result()
                    done(i, results[i])
            except KilledWorker as error:
                raise WorkerError("a task was given up", where=f"{function.__module__}.{function.__qualname__}",
                                  why=str(error), fix="give the workers more memory, or look at the log of the last one"
                                  ) from None
            finally:
                for future in running:
                    future.cancel()
    return [results[i] for i in range(len(tasks))]


# In whatever process runs a task

def _run_task(function, task, of: str):
    """of: the version of who asks."""
    if of != version():
        raise ConfigError("the workers have another version of vlacompile", where=socket.gethostname(),
                          why=f"{version()}, where {of} is asked for", fix="install the same version on every machine")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(task)
    finally:
        torch.set_num_threads(threads)


@functools.cache
def version() -> str:
    """Of all that decides what a task gives: the sources of vlart and vlacompile, and PyTorch."""
    digest = hashlib.sha256()
    for package in (Path(errors.__file__).parent, Path(__file__).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"vlacompile {metadata.version('vlacompile')} ({digest.hexdigest()[:12]}), torch {torch.__version__}"
