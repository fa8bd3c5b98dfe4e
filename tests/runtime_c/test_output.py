"""A result that does not reach stdout is a failure: a full disk is said in four lines, a closed pipe ends the program
as shells expect. What the shell closed takes everything, and no file of the program gets it instead."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
from sample_bundles import Flow
from sample_lock import lock_bytes, sample_lock

from tests.runtime_c.running import BUILD
from tests.runtime_c.tensorrt import for_tensorrt
from tests.runtime_c.test_tools import with_golden

PROGRAMS = {
    "run": ("vlart-run", "BUNDLE", "--ort", "ORT"), "run as JSON": ("vlart-run", "BUNDLE", "--ort", "ORT", "--json"),
    "self-test": ("vlart-run", "BUNDLE", "--ort", "ORT", "--self-test"), "run, help": ("vlart-run", "--help"),
    "failure as JSON": ("vlart-run", "BUNDLE", "--ort", "/nothing", "--json"),
    "dump": ("vlart-dump", "BUNDLE"), "dump of engines": ("vlart-dump", "--engines", "BUNDLE"),
    "dump, help": ("vlart-dump", "-h"), "build, help": ("vlart-build", "--help")}
FAILS = {"failure as JSON"}


@pytest.fixture(scope="module")
def bundle(lib, tmp_path_factory):
    root = with_golden(Flow(2)).write(tmp_path_factory.mktemp("output") / "a.vlab")
    (root / "engines").mkdir()
    (root / "engines/lock.bin").write_bytes(lock_bytes(sample_lock()))
    return root


def ran(words, bundle, ort, **options) -> subprocess.CompletedProcess:
    command = [{"BUNDLE": str(bundle), "ORT": ort}.get(word, word) for word in words]
    return subprocess.run([str(BUILD / command[0]), *command[1:]], stderr=subprocess.PIPE, text=True, timeout=60,
                          check=False, **options)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_full_disk(bundle, ort, program):
    with Path("/dev/full").open("w") as full:
        done = ran(PROGRAMS[program], bundle, ort, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "what:  the result cannot be written [IO]", "where: stdout", f"why:   {os.strerror(errno.ENOSPC)}",
        "fix:   free space where the output goes, then run this again"]


@pytest.mark.parametrize("ignored", [False, True], ids=["SIGPIPE", "SIGPIPE ignored"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_pipe_that_nobody_reads(bundle, ort, program, ignored):
    """Also of what a child of the program prints. Where the caller ignores SIGPIPE, writing fails."""
    begin = {"preexec_fn": lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN), "restore_signals": False}
    reader, writer = os.pipe()
    os.close(reader)
    done = ran(PROGRAMS[program], bundle, ort, stdout=writer, **(begin if ignored else {}))
    os.close(writer)
    if ignored:
        assert done.returncode == 1 and os.strerror(errno.EPIPE) in done.stderr
    else:
        assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize("closed", [(1,), (0, 1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_the_shell_has_closed(bundle, ort, program, closed):
    done = ran(PROGRAMS[program], bundle, ort, preexec_fn=lambda: [os.close(number) for number in closed])
    assert (done.returncode, done.stderr) == (int(program in FAILS), "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_reader_that_reads_all(bundle, ort, program):
    """Negative control."""
    done = ran(PROGRAMS[program], bundle, ort, stdout=subprocess.PIPE)
    assert done.returncode == int(program in FAILS) and done.stdout and not done.stderr


def test_a_build_that_cannot_say_what_it_did(board, ort, tmp_path):
    """The engines are built all the same; and none of what it prints is in a file of the bundle."""
    words = ("vlart-build", "BUNDLE", "--tensorrt", str(board.library), "--tensorrt-builder", str(board.builder),
             "--ort", "ORT", "--repeat", "3")
    whole, full, closed = (for_tensorrt(with_golden(Flow(3))).write(tmp_path / name) for name in "abc")
    assert ran(words, whole, ort, stdout=subprocess.DEVNULL).returncode == 0
    with Path("/dev/full").open("w") as disk:
        done = ran(words, full, ort, stdout=disk)
    assert done.returncode == 1 and "the result cannot be written" in done.stderr
    done = ran(words, closed, ort, preexec_fn=lambda: os.close(1))
    assert done.returncode == 0, done.stderr
    printed = ran(words, whole, ort, stdout=subprocess.PIPE).stdout.splitlines()[1].encode()
    assert b"peak memory" in printed
    for root in (full, closed):
        files = sorted((root / "engines").iterdir())
        assert [f.name for f in files] == sorted(f.name for f in (whole / "engines").iterdir())
        assert not any(printed in f.read_bytes() for f in files)
