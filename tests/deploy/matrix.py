"""What can go wrong with `vlacompile flash`, and what must hold after it: rows of faults, each played on a device with
two good slots, by the tests (thinned) and by `python -m benchmarks.flash_faults`.

After every fault the device runs one whole bundle, the one before or the new one; `--status` says which; the same
command again ends well; the other slot is gone back to, or refused; nothing is left behind on either side.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from tests.deploy.board import Board
from tests.deploy.sshd import AS_IT_IS
from vlacompile.cli.main import main
from vlacompile.deploy import ssh
from vlart.bundle.directory import Bundle

LONGEST_S = 240.0  # of one command, on a machine that does other things too
POINTS = (("hold", "mkdir", 1, "before"), ("put", "chmod", 1, "before"), ("link", "cp", 2, "before"),
          ("self_test", "date", 1, "before"), ("activate", "ln", 1, "before"), ("activate", "mv", 1, "after"))
SYNC = """\
#!/bin/sh
/usr/bin/sync "$@" || exit
stat -c '%i %s %.9Y' -- "$@" >>FOLDER/synced
"""


class Wrong(AssertionError):
    """What did not hold."""


@dataclass
class Stage:
    """A device that runs `old` in slot b, with `older` in slot a; `new` is what it gets. base: its folder, before."""

    board: Board
    old: Bundle
    new: Bundle
    other: str  # hash of what is in slot a
    base: Path

    def restore(self) -> None:
        self.board.calm()
        self.board.sshd.commands_go_through(AS_IT_IS)
        shutil.rmtree(self.board.root, ignore_errors=True)
        subprocess.run(["cp", "-a", self.base, self.board.root], check=True)

    @property
    def slot(self) -> Path:
        return self.board.policy / "slots" / "b"

    def command(self, *words: str) -> tuple[int, str, str, float]:
        """Exit code, output, errors and seconds of a command of this machine."""
        out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, "--ssh-config", str(self.board.sshd.config)])
        return code, out.getvalue(), err.getvalue(), time.monotonic() - began

    def flash(self, bundle: Bundle) -> tuple[int, str, str, float]:
        return self.command("flash", str(bundle.path), "board", "--ort", self.board.ort)

    def status(self, *more: str) -> dict[str, Any]:
        code, out, err, _ = self.command("flash", "--status", "board", "--json", *more)
        if code:
            raise Wrong(f"--status: {err}")
        return json.loads(out)["policies"][0]


@dataclass(frozen=True)
class Fault:
    """around: a context manager in which the first command runs; before it nothing is wrong, after it nothing is any
    more, but for what it did to the device. again: the first command is to flash what is current, and repairs it.
    codes: exit codes of the first command. runs: which bundles may be current after it. told: a part of what it says.
    damaged: --status --check says so before it is repaired."""

    kind: str
    name: str
    around: Callable[[Stage], contextlib.AbstractContextManager]
    again: bool = False
    codes: tuple[int, ...] = (12,)
    runs: tuple[str, ...] = ("old",)
    told: str = ""
    damaged: bool = False


@dataclass
class Row:
    kind: str
    fault: str
    code: int
    said: str
    runs: str
    status: str
    again: int
    rollback: str
    seconds: float
    wrong: list[str] = field(default_factory=list)


def play(fault: Fault, stage: Stage) -> Row:
    """Raises nothing: what did not hold is in `wrong`."""
    stage.restore()
    names = {stage.old.hash: "old", stage.new.hash: "new", stage.other: "older"}
    row = Row(fault.kind, fault.name, -1, "", "", "", -1, "", 0.0)
    sockets = stage.base.with_name("sockets")
    sockets.mkdir(exist_ok=True)
    try:
        with mock.patch.object(ssh, "SOCKETS", sockets), fault.around(stage):
            if fault.damaged:
                row.status = ", ".join(_damages(stage.status("--check")))
                _hold(row, bool(row.status), "--status --check does not see the damage")
            row.code, _, err, seconds = stage.flash(stage.old if fault.again else stage.new)
        said = next((line[7:] for line in err.splitlines() if line.startswith("error: ")), "")
        row.said = said.replace(str(stage.board.root), "ROOT")
        row.seconds = seconds
        _hold(row, row.code in fault.codes, f"exit code {row.code}: {err}")
        _hold(row, "Traceback" not in err and fault.told in err, f"it says: {err}")
        _hold(row, row.code == 0 or all(f"  {key}:" in err for key in ("where", "why", "fix")), f"it says: {err}")
        stage.board.calm()
        stage.board.sshd.commands_go_through(AS_IT_IS)
        row.runs = names[stage.board.runs()]
        _hold(row, row.runs in fault.runs, f"it runs {row.runs}")
        _truth(stage, row)
        row.again, _, err, seconds = stage.flash(stage.new)
        row.seconds = max(row.seconds, seconds)
        _hold(row, row.again == 0 and names[stage.board.runs()] == "new", f"again: {err}")
        _hold(row, not _damages(stage.status("--check"))[1:], "what flashing again left is damaged")
        code, _, err, _ = stage.command("flash", "--rollback", "board")
        row.rollback = names[stage.board.runs()]
        _hold(row, (code, row.rollback) in ((0, "old"), (0, "older"), (12, "new")), f"rollback: {code} {err}")
        left = [p.name for p in stage.board.root.rglob("*") if p.name in ("used", "week", "current.old", "files.new")
                or p.name.endswith(".new")]
        _hold(row, not left, f"left on the device: {left}")
        _hold(row, not list(sockets.iterdir()), "a folder is left on this machine")
        _hold(row, row.seconds < LONGEST_S, f"it took {row.seconds:.0f} s")
    except (Wrong, AssertionError, OSError, KeyError) as error:
        row.wrong.append(f"{type(error).__name__}: {error}"[:2000])
    return row


def _hold(row: Row, holds: bool, otherwise: str) -> None:
    if not holds:
        row.wrong.append(otherwise)


def _damages(policy: dict[str, Any]) -> list[str]:
    return [*policy["damaged"], *(f"{s['name']}: {s['damaged']}" for s in policy["slots"] if s["damaged"])]


def _truth(stage: Stage, row: Row) -> None:
    """The slot that it calls current is the one that runs, has passed and is whole, by its word and by its files."""
    policy = stage.status("--check")
    current = [s for s in policy["slots"] if s["current"]]
    slot = (stage.board.policy / "current").readlink().name
    _hold(row, [s["name"] for s in current] == [slot], f"--status says {current}, slot {slot} is current")
    _hold(row, all(s["passed"] and not s["damaged"] for s in current), f"--status says {current}")
    row.status = row.status or f"slot {slot}"


# ---- faults

def struck(step: str, tool: str, nth: int = 1, moment: str = "before", act: str = ""):
    """In the midst of a step of the device; the shell is killed, unless something else is done."""
    @contextlib.contextmanager
    def around(stage: Stage) -> Iterator[None]:
        stage.board.strike(step, tool, nth, moment, act)
        yield
        if not stage.board.struck:
            raise Wrong("the fault was never reached")
    return around


def through(script: str):
    """Every command of the device goes through it."""
    @contextlib.contextmanager
    def around(stage: Stage) -> Iterator[None]:
        stage.board.sshd.commands_go_through(script)
        yield
    return around


def damaged(damage: Callable[[Stage], None]):
    @contextlib.contextmanager
    def around(stage: Stage) -> Iterator[None]:
        damage(stage)
        yield
    return around


def mounted(point: tuple[str, str, int, str], act: str):
    """The device's folder is a file system of 96 MB, to which `act` happens at a point."""
    @contextlib.contextmanager
    def around(stage: Stage) -> Iterator[None]:
        root = stage.board.root
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", root], check=True)
        try:
            subprocess.run(["cp", "-a", f"{stage.base}/.", root], check=True)
            stage.board.strike(*point, act=act.replace("ROOT", str(root)))
            yield
            stage.board.calm()
            subprocess.run(["mount", "-o", "remount,rw", root], check=True)
            (root / "filler").unlink(missing_ok=True)
            kept = root.with_name("kept")
            subprocess.run(["cp", "-a", root, kept], check=True)
        finally:
            subprocess.run(["umount", "-l", root], check=True)
        shutil.rmtree(root)
        kept.rename(root)
    return around


def powerless(step: str, tool: str, nth: int, moment: str):
    """As a loss of power, where the names of files reach the disk before what was written into them, of which only what
    was synchronised stays."""
    @contextlib.contextmanager
    def around(stage: Stage) -> Iterator[None]:
        folder, log = stage.board.sshd.folder, stage.board.sshd.folder / "synced"
        log.write_text("".join(_state(p) for p in stage.board.root.rglob("*") if p.is_file()))
        stage.board.strike(step, tool, nth, moment)
        shim = stage.board.sshd.path / "sync"
        usual = shim.read_text()
        shim.write_text(SYNC.replace("FOLDER", str(folder)))
        try:
            yield
        finally:
            shim.write_text(usual)
        if not stage.board.struck:
            raise Wrong("the fault was never reached")
        synced = set(log.read_text().splitlines(True))
        for path in stage.board.root.rglob("*"):
            if path.is_file() and not path.is_symlink() and _state(path) not in synced:
                os.truncate(path, path.stat().st_size // 2)
    return around


def _state(path: Path) -> str:
    of = path.lstat()
    return f"{of.st_ino} {of.st_size} {of.st_mtime_ns // 10**9}.{of.st_mtime_ns % 10**9:09d}\n"


def cut_at(step: str):
    """The process of sshd that carries the session is killed as the step begins, as when the network goes."""
    return through(AS_IT_IS.replace("exec sh", f'[ "$STEP" != {step} ] || {{ kill -9 $PPID; sleep 0.2; }}\nexec sh'))


def answering(step: str, script: str):
    """Another answer than the step's."""
    return through(AS_IT_IS.replace("exec sh", f'if [ "$STEP" = {step} ]; then {script}; exit; fi\nexec sh'))
