"""The first replay of a bundle on this machine: in a child process with limits, since what an engine makes of a bundle
may have no end, take all memory or crash, whoever checked its files.

`python -c CHILD BUNDLE THREADS STAND_IN NATIVE_CODE MEMORY_BYTES` is the child, which `try_bundle` starts.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlart.bundle.directory import Bundle, read_bundle
from vlart.errors import RuntimeFailure, VlaError
from vlart.runtime.session import RECORDED, Session
from vlart.verify.frames import golden_frames

SPARE_BYTES = 4 << 30
REFUSED = 3  # exit status of a child whose last line is an error
# Without the working directory on its path, which -P keeps away from Python 3.11 on.
CHILD = "import sys; sys.path.pop(0); from vlart.verify.trial import child; sys.exit(child(sys.argv[1:]))"
FIELDS = ("what", "where", "why", "fix", "status")


@dataclass(frozen=True)
class TrialLimits:
    """seconds: without progress, which is opening the bundle or one frame. memory_bytes: that the child may take for
    itself, the mapped files apart; None: what fits the bundle."""

    seconds: float = 300.0
    memory_bytes: int | None = None

    def memory_for(self, bundle: Bundle) -> int:
        return self.memory_bytes or 3 * (bundle.bytes + bundle.plan.arena_bytes) + SPARE_BYTES


def try_bundle(path: str | Path, *, threads: int = 0, stand_in: bool = False, native_code: bool = False,
               limits: TrialLimits = TrialLimits()) -> None:
    """Replay the golden frames in a child process, without comparing. Raises RuntimeFailure where that does not end,
    crashes, or fails."""
    bundle = read_bundle(path)
    command = [sys.executable, "-c", CHILD, str(bundle.path), str(threads),
               str(int(stand_in)), str(int(native_code)), str(limits.memory_for(bundle))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}) as child:
        try:
            said = "".join(_lines(child, limits.seconds, path))
        finally:
            child.kill()
    if child.returncode == 0:
        return
    failure = _failure(said.rpartition("\n")[2]) if child.returncode == REFUSED else None
    if failure is None:
        raise RuntimeFailure("the bundle crashes", where=str(path), why=f"its first run ended with {child.returncode}",
                             fix="do not use this bundle; build it again")
    raise failure


def _lines(child: subprocess.Popen, seconds: float, path: str | Path) -> Iterator[str]:
    """What the child says, until it ends."""
    assert child.stdout is not None
    fd = child.stdout.fileno()
    while select.select([fd], [], [], seconds)[0]:
        piece = os.read(fd, 65536)
        if not piece:
            break
        yield piece.decode(errors="replace")
    else:
        raise RuntimeFailure("the bundle does not end", where=str(path),
                             why=f"its first run did nothing for {seconds:g} s",
                             fix="do not use this bundle; on a slow machine, run it by vlart-run --seconds")
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeFailure("the bundle does not end", where=str(path), why=f"it was closing for {seconds:g} s",
                             fix="do not use this bundle; build it again") from None


def _failure(line: str) -> RuntimeFailure | None:
    try:
        said = json.loads(line)
        what, where, why, fix, status = (said[f] for f in FIELDS)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return RuntimeFailure(str(what), where=str(where), why=str(why), fix=str(fix), status=str(status))


def _limit(memory_bytes: int) -> None:
    """RLIMIT_DATA counts private memory that can be written: what the child has already, and so much more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    most = pages * os.sysconf("SC_PAGE_SIZE") + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _advance() -> None:
    sys.stdout.write(".")
    sys.stdout.flush()


def main(path: Path, threads: int, stand_in: bool, native_code: bool, memory_bytes: int) -> None:
    frames = golden_frames(path)
    _limit(memory_bytes)
    with Session(path, threads=threads, stand_in=stand_in, accept=RECORDED, native_code=native_code) as session:
        session.select(None)
        _advance()
        for frame in frames:
            if frame.begins:
                session.reset()
            for name, array in frame.writes.items():
                session.write(name, array)
            try:
                session.step(0)
            except RuntimeFailure as failure:
                if failure.status != "ACTION_NOT_DECODED":  # perturbed inputs
                    raise
            _advance()


def child(argv: list[str]) -> int:
    """Returns the exit status."""
    try:
        main(Path(argv[0]), int(argv[1]), argv[2] == "1", argv[3] == "1", int(argv[4]))
    except VlaError as error:
        told = error.as_dict() | {"status": getattr(error, "status", "BACKEND_FAILED")}
        sys.stdout.write("\n" + json.dumps({f: told[f] for f in FIELDS}))
        sys.stdout.flush()
        return REFUSED
    return 0
