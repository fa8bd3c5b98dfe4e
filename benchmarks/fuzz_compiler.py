"""The compiler fed with random policies (tests/fuzz), for a given time: built, run and compared with PyTorch.

    python -m benchmarks.fuzz_compiler [--seconds N] [--runs N] [--seed N] [--workers N] [--record]

A policy that shows a fault is shrunk by hypothesis, as far as a few minutes allow, and stored in build/fuzz/compiler as
a program; the run then goes on and only counts further policies with a fault of the same kind. --record adds the run to
profiles/fuzz/compiler.json, with a hash of the compiler's sources: runs at one hash add up. Ends with an error if there
was a finding: fix it, and keep its text in tests/fuzz/kept.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import hashlib
import importlib
import json
import re
import resource
import shutil
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.check import Finding, check
from tests.fuzz.policies import RandomPolicy, random_policies
from tests.fuzz.run_beside import Unsuitable
from vlacompile import workers
from vlacompile.profile import machine

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "build" / "fuzz" / "compiler"
RECORD = ROOT / "profiles" / "fuzz" / "compiler.json"
READ = ("vlacompile/**/*.py", "vlart/**/*.py", "recipes/*.toml", "targets/**/*.toml", "runtime_c/src/*/*.[ch]",
        "runtime_c/backends/onnxruntime/*.[ch]")
# packages that no random policy comes through: imported at most
APART = ("cli", "deploy", "doctor", "episodes", "export", "frontends", "recording", "report", "ros", "serve", "view",
         "zoo")
SHRINKING_SECONDS = 150
SEEDS = 1_000_000  # of one run at most
EXAMPLES = 100  # of one start of hypothesis; afterwards it starts anew with another seed


def sources() -> str:
    """sha256 of everything that a build and a run depend on here, independent of the commit."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in READ for p in ROOT.glob(pattern)):
        if path.relative_to(ROOT).parts[1] in APART:
            continue
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _Found(Exception):
    """A finding of a new kind, for hypothesis to shrink."""


class Fuzzer:
    """executions: distinct policies that were built and compared. unsuitable: those that were not, by reason. kinds:
    how many policies show each kind of finding. shrunk: {file name: program}, one per kind."""

    def __init__(self, seconds: float, first_seed: int, folder: Path):
        self.ends, self.seed, self.folder = time.monotonic() + seconds, first_seed, folder
        self.executions, self.unsuitable = 0, 0
        self.kinds: collections.Counter[str] = collections.Counter()
        self.shrunk: dict[str, str] = {}
        self._seen: dict[RandomPolicy, Finding | None] = {}
        self._shrinking: str | None = None
        self._shrinks_until = 0.0
        self._smallest: tuple[RandomPolicy, Finding] | None = None

    def run(self) -> None:
        while time.monotonic() < self.ends:
            self._shrinking = self._smallest = None
            self._seen.clear()
            try:
                seed(self.seed)(self._property())()
            except _Found:
                assert self._smallest is not None
                name, text = _program(*self._smallest)
                self.shrunk[name] = text
            self.seed += 1

    def _property(self):
        @settings(max_examples=EXAMPLES, deadline=None, database=None, report_multiple_bugs=False,
                  phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck), print_blob=False)
        @given(random_policies())
        def holds(policy: RandomPolicy) -> None:
            finding = self._checked(policy)
            if finding is not None and finding.kind == self._shrinking:
                if self._smallest is None or len(policy.text) <= len(self._smallest[0].text):
                    self._smallest = (policy, finding)
                raise _Found(finding.kind)

        return holds

    def _checked(self, policy: RandomPolicy) -> Finding | None:
        if policy in self._seen:
            return self._seen[policy]
        over = time.monotonic() > (self._shrinks_until if self._shrinking else self.ends)
        if over:
            return None
        finding = self._built(policy)
        self._seen[policy] = finding
        if finding is not None and self._shrinking is None:
            self.kinds[finding.kind] += 1
            print(f"{self.executions}: {policy.target} {policy.recipe or ''} {finding.kind}", flush=True)
            if self.kinds[finding.kind] == 1:
                self._shrinking, self._shrinks_until = finding.kind, time.monotonic() + SHRINKING_SECONDS
        return finding

    def _built(self, policy: RandomPolicy) -> Finding | None:
        within = self.folder / "policy"
        within.mkdir(parents=True)
        try:
            finding = check(policy.text, policy.target, policy.recipe, within)
        except Unsuitable:
            self.unsuitable += self._shrinking is None
            return None
        finally:
            shutil.rmtree(within)
        self.executions += self._shrinking is None
        return finding


def _program(policy: RandomPolicy, finding: Finding) -> tuple[str, str]:
    """(file name, the policy under what was found)."""
    name = re.sub(r"\W+", "_", finding.kind).strip("_").lower()[:60]
    head = [f"{policy.target} {policy.recipe or ''}", finding.kind, *finding.words.splitlines()]
    return f"{name}.py", "".join(f"# {line}\n" for line in head) + policy.text


@dataclass(frozen=True)
class Run:
    """One process's share: random policies from `seed` on, for `seconds`."""

    seconds: int
    seed: int

    def fuzz(self) -> dict:
        """{"executions", "unsuitable", "kinds": {kind: how many policies}, "shrunk": {file name: program}, "megabytes"
        of this process at most}."""
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory() as folder:
            fuzzer = Fuzzer(self.seconds, self.seed, Path(folder))
            fuzzer.run()
        return {"executions": fuzzer.executions, "unsuitable": fuzzer.unsuitable, "kinds": dict(fuzzer.kinds),
                "shrunk": fuzzer.shrunk, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def record(row: dict) -> None:
    runs = json.loads(RECORD.read_text(encoding="utf-8"))["runs"] if RECORD.is_file() else []
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps({"runs": [*runs, row], "machine": machine.describe()}, indent=1) + "\n",
                      encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=120, help="of each run (default: 120)")
    parser.add_argument("--runs", type=int, metavar="N", help="from other seeds each (default: one per worker)")
    parser.add_argument("--seed", type=int, default=None, help="of the first policies; the day's time if not given")
    parser.add_argument("--record", action="store_true", help="add the run to profiles/fuzz")
    workers.add_options(parser)
    arguments = parser.parse_args()
    where = workers.chosen(arguments)
    read, first = sources(), arguments.seed if arguments.seed is not None else int(time.time())
    began = time.monotonic()
    runs = [Run(arguments.seconds, first + i * SEEDS) for i in range(arguments.runs or where.count)]

    def ended(index: int, found: dict) -> None:
        FOUND.mkdir(parents=True, exist_ok=True)
        for name, text in found["shrunk"].items():
            (FOUND / name).write_text(text, encoding="utf-8")
            print(f"stored as {FOUND / name}", flush=True)

    results = where.run(Run.fuzz, runs, done=ended, told=print)
    kinds = sum((collections.Counter(r["kinds"]) for r in results), collections.Counter())
    row = {"seconds": round(time.monotonic() - began), "executions": sum(r["executions"] for r in results),
           "unsuitable": sum(r["unsuitable"] for r in results), "findings": dict(sorted(kinds.items())), "seed": first,
           "runs": len(runs), "megabytes": max(r["megabytes"] for r in results),
           "day": dt.datetime.now(dt.UTC).date().isoformat(), "sources": read}
    print(f"{row['seconds']} s on {where}, {row['executions']} policies built and compared, {row['unsuitable']} "
          f"unsuitable, {sum(kinds.values())} with findings of {len(kinds)} kinds")
    if sources() != read:
        raise SystemExit("the compiler's sources changed meanwhile: the run says nothing about either")
    if arguments.record:
        record(row)
    if kinds:
        raise SystemExit(f"findings, each with a shrunk policy in {FOUND}: {', '.join(sorted(kinds))}")


if __name__ == "__main__":
    importlib.import_module(__spec__.name).main()  # under the name by which workers find its tasks
