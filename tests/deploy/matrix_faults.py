"""The rows of matrix.py."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from unittest import mock

from tests.deploy.matrix import POINTS, Fault, Stage, answering, cut_at, damaged, mounted, powerless, struck, through
from tests.deploy.sshd import AS_IT_IS
from vlacompile.deploy import answers, ssh
from vlacompile.deploy.flash import Options, connect

STEPS = ("hold", "probe", "missing", "put", "link", "self_test", "activate")
SHA = "0" * 64


def _name(point: tuple) -> str:
    step, tool, nth, moment = point
    return f"step {step}, {moment} {tool} {nth}"


def cuts() -> Iterator[Fault]:
    for point in (("missing", "rm", 1, "before"), ("put", "mv", 1, "after"), ("link", "rm", 2, "after"),
                  ("link", "cp", 5, "after"), ("self_test", "mv", 1, "before"), ("activate", "ln", 1, "after"),
                  ("activate", "mv", 1, "before"), ("activate", "mv", 1, "after"), ("activate", "cp", 1, "before")):
        new = point in (("activate", "mv", 1, "after"), ("activate", "cp", 1, "before"))
        tidying = point[1] == "cp" and new  # which is no failure
        yield Fault("shell killed", _name(point), struck(*point), codes=(0,) if tidying else (12,),
                    runs=("new",) if new else ("old",))
    for step in STEPS:
        runs = ("old", "new") if step == "activate" else ("old",)
        yield Fault("connection cut", f"step {step}", cut_at(step), runs=runs)
    for point in (("link", "cp", 6, "after"), ("self_test", "mv", 1, "before"), ("self_test", "mv", 1, "after"),
                  ("activate", "ln", 1, "after"), ("activate", "mv", 1, "after"), ("activate", "mv", 2, "after")):
        runs = ("new",) if point in (("activate", "mv", 1, "after"), ("activate", "mv", 2, "after")) else ("old",)
        yield Fault("power lost", _name(point), powerless(*point), runs=runs)


def disks() -> Iterator[Fault]:
    full = ("dd if=/dev/zero of=ROOT/filler bs=1M >/dev/null 2>&1 || :; "
            "dd if=/dev/zero of=ROOT/filler bs=1 count=5000 oflag=append conv=notrunc >/dev/null 2>&1 || :")
    for point in POINTS:
        late = point[0] == "activate"  # what needs space is written by then
        yield Fault("disk full", _name(point), mounted(point, full), codes=(0,) if late else (12,),
                    runs=("new",) if late else ("old",), told="" if late else "space")
    # Later on no file system becomes read-only by a command, as the lock of the flash is open for writing.
    yield Fault("read-only", _name(POINTS[0]), mounted(POINTS[0], "mount -o remount,ro ROOT"),
                told="find out why it is read-only there")


def clocks() -> Iterator[Fault]:
    date = '#!/bin/sh\nexec /usr/bin/date -d @100 "$@"\n'

    @contextlib.contextmanager
    def early(stage: Stage) -> Iterator[None]:
        shim = stage.board.sshd.path / "date"
        usual = shim.read_text() if shim.exists() else None
        shim.write_text(date)
        shim.chmod(0o755)
        try:
            yield
        finally:
            shim.unlink() if usual is None else shim.write_text(usual)

    yield Fault("clock", "of the device says 1970", early, codes=(0,), runs=("new",))


def _truncate(name: str, part: float = 0.5) -> Callable[[Stage], None]:
    def damage(stage: Stage) -> None:
        path = stage.slot / name
        path.chmod(0o644)
        os.truncate(path, int(path.stat().st_size * part))
    return damage


def _flip(name: str) -> Callable[[Stage], None]:
    def damage(stage: Stage) -> None:
        path = stage.slot / name
        data, mode = bytearray(path.read_bytes()), path.stat().st_mode
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(mode)
    return damage


def _linked(stage: Stage) -> None:
    path = stage.slot / "bundle.vlab" / "plan.bin"
    path.rename(stage.board.root / "plan.bin")
    path.symlink_to(stage.board.root / "plan.bin")


def _folder_linked(stage: Stage) -> None:
    shutil.move(stage.slot / "bundle.vlab", stage.board.root / "elsewhere")
    (stage.slot / "bundle.vlab").symlink_to(stage.board.root / "elsewhere")


def _current(to: str) -> Callable[[Stage], None]:
    def damage(stage: Stage) -> None:
        link = stage.board.policy / "current"
        link.unlink()
        if to == "folder":
            shutil.copytree(stage.slot, link)
        elif to:
            link.symlink_to(to)
    return damage


def _extra(name: str) -> Callable[[Stage], None]:
    return lambda stage: (stage.slot / name).write_text("x") and None


def _both(stage: Stage) -> None:
    for slot in "ab":
        for path in (stage.board.policy / "slots" / slot / "bundle.vlab" / "stages").iterdir():
            path.unlink()


def _left_over(stage: Stage) -> None:
    """What steps that were interrupted in other versions may have left, and what is not ours."""
    policy = stage.board.policy
    (policy / "files.new").write_text("x")
    (policy / "history.new").mkdir()
    (policy / "current.new").symlink_to("slots/c")
    (stage.board.root / "signers.new").write_text("x")
    (stage.board.root / "policies" / "a copy (2)").mkdir()
    (policy / "slots" / "a" / "bundle.vlab" / "engines").symlink_to("/nowhere")
    (policy / "slots" / "a" / "passed").unlink()


def damages() -> Iterator[Fault]:
    def row(name: str, damage: Callable[[Stage], None], seen: bool = True, **more) -> Fault:
        return Fault("slot damaged", name, damaged(damage), again=True, codes=(0,), damaged=seen, **more)

    yield row("libvlart.so truncated", _truncate("bin/libvlart.so"))
    yield row("a byte of the weights flipped", _flip("bundle.vlab/stages/weights.bin"))
    yield row("manifest torn", _truncate("bundle.vlab/manifest.json"))
    yield row("manifest empty", _truncate("bundle.vlab/manifest.json", 0))
    yield row("plan torn", _truncate("bundle.vlab/plan.bin"))
    yield row("a link in a file's place", _linked)
    yield row("a link in a folder's place", _folder_linked)
    yield row("vlart-run lost its mode", lambda s: (s.slot / "bin" / "vlart-run").chmod(0o644))
    yield row("a file too many in the bundle", _extra("bundle.vlab/stages/more.onnx"))
    yield row("a file too many beside vlart-run", _extra("bin/libonnxruntime.so.0"))
    yield row("identity torn", _truncate("identity"))
    yield row("list of files torn", _truncate("files"))
    yield row("list of files empty", _truncate("files", 0))
    yield row("arguments empty", _truncate("arguments", 0))
    yield row("passed is gone", lambda s: (s.slot / "passed").unlink())
    yield row("passed is no time", lambda s: (s.slot / "passed").write_text("\x1b[31m \xff"), seen=False)
    yield row("its folder is gone", lambda s: shutil.rmtree(s.slot))
    yield row("both slots have lost their stages", _both)
    yield row("`current` is gone", _current(""), seen=False)
    yield row("`current` points nowhere", _current("slots/c"))
    yield row("`current` points out", _current("/etc"))
    yield row("`current` is a folder", _current("folder"))
    yield row("another owner", lambda s: [os.chown(p, 12345, 12345) for p in s.board.root.rglob("*")] and None,
              seen=False, runs=("old",))
    yield row("history torn", lambda s: (s.board.policy / "history").write_bytes(b"2026-01-01T00:00:00Z flas\0\0"),
              seen=False)
    yield row("history is gone", lambda s: (s.board.policy / "history").unlink(), seen=False)
    yield row("release counter torn", lambda s: (s.board.policy / "release").write_text("many"))
    yield row("store empty", lambda s: [p.unlink() for p in (s.board.root / "store").iterdir()] and None, seen=False)
    yield row("leftovers of other versions", _left_over, seen=False)
    denied = 'echo "rm: cannot remove: Permission denied" >&2; exit 1'
    yield Fault("slot damaged", "the idle slot is another's", struck("link", "rm", 1, "before", denied),
                told="sudo chown -R")


def liars() -> Iterator[Fault]:
    def row(name: str, step: str, script: str, **more) -> Fault:
        return Fault("lying device", name, hurried(answering(step, script)), told="does not answer as a device does",
                     **more)

    def hurried(around):
        @contextlib.contextmanager
        def inner(stage: Stage) -> Iterator[None]:
            with mock.patch.object(ssh, "SILENT_S", 4.0), mock.patch.object(answers, "MOST_SILENCES", 3), \
                    mock.patch.object(answers, "MOST_BYTES", 4 << 20), around(stage):
                yield
        return inner

    yield row("silence when it connects", "hold", "sleep 60")
    yield row("silence in a step", "probe", "sleep 60")
    yield row("a word now and then, for ever", "probe", "while :; do echo still; sleep 1; done")
    yield row("endless answers", "probe", "exec yes 'vlacompile ort /x'")
    yield row("an endless line", "probe", "exec tr '\\0' x </dev/zero")
    yield row("escapes", "probe", "printf 'vlacompile arch \\033[31m\\nvlacompile root /\\nvlacompile free_kib 1\\n'")
    yield row("a number that is none", "probe", "printf 'vlacompile %s\\n' 'arch x' 'root /' 'free_kib 1e9'")
    yield row("an answer of another step", "missing", "echo vlacompile passed")
    yield row("a slot that is none", "link", "cat >/dev/null; echo vlacompile slot c")
    yield row("no answer at the switch", "activate", "echo done")
    yield row("bytes that are no text", "activate", "head -c 5000 /dev/urandom")
    yield Fault("lying device", "wants what nobody has", answering("missing", f"echo vlacompile need {SHA} 0"),
                told="asks for files that are none")
    yield Fault("lying device", "its login shell is fish", through(
        AS_IT_IS.replace("exec sh", "exec fish --no-config")), codes=(0,), runs=("new",))


def others() -> Iterator[Fault]:
    @contextlib.contextmanager
    def held(stage: Stage) -> Iterator[None]:
        with connect("board", Options(config=stage.board.sshd.config)):
            yield

    yield Fault("two at once", "another one flashes", held, told="is being flashed already")
    yield Fault("two at once", "another one takes over", struck(
        "link", "cp", 2, "before", 'echo other@there:1 >"$HOME/.local/share/vlacompile/lock"'),
        told="another flash took over")


def every_fault() -> list[Fault]:
    return [*cuts(), *disks(), *clocks(), *damages(), *liars(), *others()]
