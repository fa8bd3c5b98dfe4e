"""A result that does not reach stdout is a failure: a full disk is said in four lines, a closed pipe ends the program
as shells expect."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlart.errors import OutputError
from vlart.standard_output import BROKEN_PIPE, until_written

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "help": ("vlacompile.cli.main", "--help"), "version": ("vlacompile.cli.main", "--version"),
    "table": ("vlacompile.cli.main", "recipes"), "JSON": ("vlacompile.cli.main", "recipes", "--json"),
    "script": ("vlacompile.cli.main", "completion", "bash"), "doctor": ("vlacompile.doctor.examine", "--json"),
    "server, help": ("vlart.serve.program", "--help")}
FAILURE = ["error: the result cannot be written", "  where: stdout", f"  why:   {os.strerror(errno.ENOSPC)}",
           "  fix:   free space where the output goes, then run this again"]


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def ran(request):
    def run(words, **options) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": request.param}
        return subprocess.run([sys.executable, "-m", *words], text=True, timeout=120, check=False, env=environment,
                              **({"stderr": subprocess.PIPE} | options))

    return run


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_full_disk(ran, program):
    with Path("/dev/full").open("w") as full:
        done = ran(PROGRAMS[program], stdout=full)
        assert (done.returncode, done.stderr.splitlines()) == (OutputError.exit_code, FAILURE)
        if program == "table":
            assert ran(PROGRAMS[program], stdout=full, stderr=full).returncode == OutputError.exit_code


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_pipe_that_nobody_reads(ran, program):
    reader, writer = os.pipe()
    os.close(reader)
    done = ran(PROGRAMS[program], stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")


def test_a_reader_that_reads_all(ran):
    """Negative control."""
    done = ran(PROGRAMS["table"], stdout=subprocess.PIPE)
    assert done.returncode == 0 and done.stdout and not done.stderr


def test_a_fault_of_another_file_is_none_of_the_output():
    def program() -> int:
        raise BrokenPipeError(errno.EPIPE, "of an ssh")

    with pytest.raises(BrokenPipeError):
        until_written(program, print)
    assert until_written(lambda: 5, print) == 5
