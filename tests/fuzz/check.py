"""A policy's text built and held against the policy itself: what must hold for every one.

Claims: the bundle's outputs are the policy's, in whatever order its sources are written; a write of one source runs no
stage whose results it cannot change; nothing is raised but a VlaError, and it names a line of the policy; all of it in
bounded time. Owns `Finding` and `check`. Must not know how texts come about.
"""

from __future__ import annotations

import hashlib
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import vlacompile as vc
from tests.fuzz.run_beside import RERUNS, Beside, Frames, Unsuitable
from tests.samples.policies import EVERY_STAGE
from vlacompile.compiler.passes import pass_list
from vlacompile.compiler.passes.split_batch_by_rate import SplitBatchByRate
from vlacompile.policy.policy import Policy
from vlart.errors import VlaError

# Refusals that are right: what the precision asks of a policy, which most random ones are too small for.
LISTED = (
    r"BudgetError: int8 is applied nowhere",  # no layer is large enough
    # a whole number made of numbers in 8 bits: whether an engine rounds one to the other side is chance
    r'ParityError: "extra\d" differs from the policy in full precision, by more than when it was built',
    r"PrecisionError: (fp16|int8) is applied nowhere",  # nothing is left between the inputs and the action
)
# {recipe: (error that the precision may make, as a share of an output's scale, and at each op)}. Ranges for int8 come
# from a few drawn observations: numbers that are larger are clipped.
PRECISIONS = {"fp16": (0.03, 2e-3), "int8": (0.5, 2e-2)}
MOST_SECONDS = 240  # of one policy, on a machine that others use as well


@dataclass(frozen=True)
class Finding:
    """kind: what went wrong, without the particulars, so that equal faults have equal kinds."""

    kind: str
    words: str


class _Late(BaseException):
    """Not an Exception, so that nothing on the way catches it."""


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def late(*_):
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def every_part_apart() -> Iterator[None]:
    """Within this context, rows of joined sources get stages of their own however little a weight is used for them: by
    choice a small layer is computed for all of them at once, which is no fault."""
    with mock.patch.object(pass_list, "SplitBatchByRate", partial(SplitBatchByRate, least_uses=0.0)):
        yield


@dataclass(frozen=True)
class Written:
    """A policy's text in a file, so that messages carry its lines."""

    path: Path
    make: Callable[[], Policy]
    ranges: dict[str, tuple[float, float]]

    @staticmethod
    def at(folder: Path, text: str) -> Written:
        path = folder / f"policy_{hashlib.sha256(text.encode()).hexdigest()[:12]}.py"
        path.write_text(text, encoding="utf-8")
        names: dict = {"__name__": path.stem}
        exec(compile(text, str(path), "exec"), names)
        return Written(path, names["make"], names["RANGES"])


def check(text: str, target: str, recipe: str | None, folder: Path, seconds: int = MOST_SECONDS) -> Finding | None:
    """What is wrong with the bundle of a policy, or None. folder: for its text and its bundle. Raises Unsuitable for a
    policy that is no number itself, or whose rounding in PyTorch is already visible."""
    written = Written.at(folder, text)
    share, disturb = PRECISIONS.get(recipe if target == "host" else "fp16", (0.0, 0.0))
    frames = Frames(written.make, written.ranges, disturb)
    out = folder / f"{written.path.stem}.vlab"
    if recipe == "every-stage":
        (folder / "every-stage.toml").write_text(EVERY_STAGE, encoding="utf-8")
    path = str(folder / "every-stage.toml") if recipe == "every-stage" else recipe
    try:
        with _limited(seconds):
            vc.build(written.make(), target=target, recipe=path, out=out)
            report = vc.verify(out, stand_in=target != "host")
            if not report.passed:
                return Finding("verify", "the bundle fails its own replay")
            found = _found(Beside(frames, out, share, stand_in=target != "host"))
            if found is not None and found.kind == RERUNS:
                with every_part_apart():
                    vc.build(written.make(), target=target, recipe=path, out=out)
                found = _found(Beside(frames, out, share, stand_in=target != "host"))
            return found
    except _Late:
        return Finding("hang", f"more than {seconds} s")
    except VlaError as error:
        listed = any(re.match(r, f"{type(error).__name__}: {error.what}") for r in LISTED)
        return None if listed else _refused(error, written.path)
    except Unsuitable:
        raise
    except Exception as error:  # noqa: BLE001  any at all is what is looked for
        return _crashed(error)


def _found(beside: Beside) -> Finding | None:
    for kind, words in beside.run():
        return Finding(kind, words)
    return None


def _refused(error: VlaError, path: Path) -> Finding:
    what = re.sub(r'"[^"]*"', '""', re.sub(r"[\w.]+/[\w./]*:\d+[^\n]*", "LINE", error.what))
    what = re.sub(r"-?\d[\d.e+-]*|\bv\d*\b", "N", what)
    missing = "" if path.name in str(error) else ", without a line"
    return Finding(f"refused{missing}: {type(error).__name__}: {what[:120]}", str(error))


def _crashed(error: Exception) -> Finding:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/vlacompile/" in f.filename]
    at = f"{Path(frames[-1].filename).name} {frames[-1].name}" if frames else "?"
    return Finding(f"crash: {type(error).__name__} at {at}", "".join(traceback.format_exception(error))[-3000:])
