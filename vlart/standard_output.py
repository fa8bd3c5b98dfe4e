"""What a program prints reaches stdout, or its exit status says that it did not: a disk is full, a reader has gone."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from vlart.errors import OutputError, VlaError

BROKEN_PIPE = 141  # as of a program that SIGPIPE ended
STREAMS = ("stdout", "stderr")


def until_written(program: Callable[[], int], tell: Callable[[VlaError], None]) -> int:
    """The exit status of `program`, once all that it printed is written. Where it cannot be: that of an OutputError,
    which `tell` shows, or BROKEN_PIPE, of which a shell says nothing. What the shell closed (`>&-`) takes all."""
    before = [getattr(sys, name) for name in STREAMS]
    for name, stream in zip(STREAMS, before, strict=True):
        if stream is None or stream is getattr(sys, f"__{name}__"):  # not what a test or a notebook put there
            setattr(sys, name, _recording(stream))
    try:
        try:
            status = program()
        except SystemExit:
            status = 0
            if _fault(sys.stdout) is None:
                raise
        except OSError as error:
            if not is_of_output(error):
                raise
            return _lost(error, tell)
        fault = _fault(sys.stdout)
        return status if fault is None else _lost(fault, tell)
    finally:
        for name, stream in zip(STREAMS, before, strict=True):
            _discard(getattr(sys, name))
            setattr(sys, name, stream)


def is_of_output(error: BaseException) -> bool:
    """Whether it says that stdout or stderr took nothing."""
    return any(_fault(getattr(sys, name)) is error for name in STREAMS)


def print_failure(failure: VlaError) -> None:
    """Its four lines on stderr."""
    print(f"error: {failure.what}\n  where: {failure.where}\n  why:   {failure.why}\n  fix:   {failure.fix}",
          file=sys.stderr, flush=True)


def _lost(fault: OSError, tell: Callable[[VlaError], None]) -> int:
    if isinstance(fault, BrokenPipeError):
        return BROKEN_PIPE
    with contextlib.suppress(OSError):  # stderr may be what is full
        tell(OutputError("the result cannot be written", where="stdout", why=str(fault.strerror),
                         fix="free space where the output goes, then run this again"))
    return OutputError.exit_code


class _Recording(io.FileIO):
    """fault: why something was not written to it."""

    fault: OSError | None = None

    def write(self, data) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            self.fault = self.fault or error
            raise


def _recording(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123  as long as the program
    stream.flush()
    file = io.BufferedWriter(_Recording(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=stream.line_buffering,
                            write_through=stream.write_through)


def _fault(stream: TextIO) -> OSError | None:
    """Of all that was printed so far."""
    file = getattr(getattr(stream, "buffer", None), "raw", None)
    try:
        stream.flush()
    except OSError as error:
        return getattr(file, "fault", None) or error
    return getattr(file, "fault", None)


def _discard(stream: TextIO) -> None:
    """What it still holds and cannot write, so that nobody fails to write it later."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
