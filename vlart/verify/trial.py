"""The first replay of a bundle on this machine: by `vlart-run`, in a child process with limits, since what an engine
makes of a bundle may have no end, take all memory or crash, whoever checked its files."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vlart.bundle.directory import read_bundle
from vlart.errors import RuntimeFailure
from vlart.runtime.library import native_file
from vlart.runtime.programs import engine_arguments

MIB = 1 << 20


@dataclass(frozen=True)
class TrialLimits:
    """seconds: without progress, which is opening the bundle or one frame. memory_bytes: that the child may take for
    itself, the mapped files apart; None: what fits the bundle."""

    seconds: float = 300.0
    memory_bytes: int | None = None


def try_bundle(path: str | Path, *, threads: int = 0, stand_in: bool = False, native_code: bool = False,
               limits: TrialLimits = TrialLimits(), frames: Path | None = None) -> None:
    """Replay the golden frames in a child process; how far values are off is not told. frames: a file of others, which
    are run alone. Raises RuntimeFailure where that does not end, crashes, or fails, and where there is nothing to
    compare, BundleError where there is no bundle."""
    read_bundle(path)
    what = ["--self-test"] if frames is None else ["--frames", str(frames)]
    command = [str(native_file("vlart-run")), str(path), *what, "--json", "--threads", str(threads),
               "--seconds", str(math.ceil(limits.seconds)), *engine_arguments()]
    if limits.memory_bytes is not None:
        command += ["--memory", str(math.ceil(limits.memory_bytes / MIB))]
    command += [option for option, on in (("--stand-in", stand_in), ("--native-code", native_code)) if on]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        said = json.loads(ended.stdout.splitlines()[-1])
        failure = RuntimeFailure(said["what"], where=said["where"], why=said["why"], fix=said["fix"],
                                 status=said["status"]) if said["status"] != "OK" else None
        compared = bool(said.get("values"))
    except (ValueError, IndexError, KeyError, TypeError):
        raise RuntimeFailure("the bundle crashes", where=str(path),
                             why=f"vlart-run ended with {ended.returncode} {ended.stderr.decode(errors='replace')}",
                             fix="do not use this bundle; build it again") from None
    if failure is not None and not (failure.status == "SELF_TEST_FAILED" and compared):
        raise failure
