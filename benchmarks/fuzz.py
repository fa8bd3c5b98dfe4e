"""The readers of libvlart under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer, and those in Python
under mutated messages (fuzz_messages.py), for a given time.

    python -m benchmarks.fuzz [--seconds N | --hours N] [--record] [--corpus]

The readers of plans, frames, locks, tokenizers, routing tables and their states are one target of libFuzzer; they have
seven tenths of the time. The check of a signed bundle is another. Needs clang: both are built as OSS-Fuzz builds them
(runtime_c/fuzz/build.sh). Starts from runtime_c/tests/corpus and the sample files of every kind; new inputs
are stored in build/fuzz/found. --record adds the runs to profiles/host/fuzz.json, each with a hash of its sources.
--corpus then rewrites the corpus: the fewest small files that reach the same edges. A crash, or an input that takes a
minute, is stored in build/fuzz and ends with an error: fix it, and keep the input as
runtime_c/tests/corpus/regression-NAME.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import fuzz_messages
from vlacompile.profile import machine

ROOT = Path(__file__).parents[1]
RUNTIME, BUILD = ROOT / "runtime_c", ROOT / "build" / "fuzz"
CORPUS, SEEDS, FOUND = RUNTIME / "tests" / "corpus", BUILD / "seeds", BUILD / "found"
TARGET = BUILD / "fuzz" / "fuzz_open"
IN_C = {"libvlart": TARGET, "signatures": TARGET.with_name("fuzz_signed")}
SHARES = {"libvlart": 7 / 10, "signatures": 1 / 10}
RECORD = ROOT / "profiles" / "host" / "fuzz.json"
LARGEST, MOST_BYTES = 65536, 300_000
READ = ("src/*/*.[ch]", "backends/*.[ch]", "backends/*/*.[ch]", "include/vlart/*.h", "fuzz/*.[ch]",
        "tests/null_backend.[ch]", "tools/s*.[ch]")


def sources() -> str:
    """sha256 of all sources of the target, independent of the commit."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in READ for p in RUNTIME.glob(pattern)):
        digest.update(str(path.relative_to(RUNTIME)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def build() -> None:
    subprocess.run(["make", "-s", "-C", str(RUNTIME), f"BUILD={BUILD}", f"TEST_PYTHON={sys.executable}", str(TARGET)],
                   check=True)
    for folder in (SEEDS, FOUND):
        folder.mkdir(parents=True, exist_ok=True)
    samples = BUILD / "samples"
    for path in samples.rglob("*.bin"):
        if path.name != "weights.bin":
            shutil.copy(path, SEEDS / "-".join(path.relative_to(samples).with_suffix("").parts))


def run(target: str, seconds: int) -> dict:
    """One run: executions, edges reached, and inputs that crashed."""
    before, began = set(BUILD.glob("crash-*")), time.monotonic()
    found = FOUND if target == "libvlart" else FOUND.with_name(f"found_{target}")
    found.mkdir(exist_ok=True)
    corpora = [found, SEEDS, CORPUS] if target == "libvlart" else [found, RUNTIME / "fuzz" / "corpus_signed"]
    done = subprocess.run([str(IN_C[target]), f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-timeout=60",
                           "-print_final_stats=1", f"-artifact_prefix={BUILD}/crash-", *map(str, corpora)],
                          capture_output=True, text=True, errors="replace", check=False)
    taken = time.monotonic() - began
    reached = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    edges = re.search(r"\((\d+) inline 8-bit counters\)", done.stderr)
    executed = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    crashes = sorted(p.name for p in set(BUILD.glob("crash-*")) - before)
    if not (reached and edges and executed) or (done.returncode != 0 and not crashes):
        raise SystemExit(f"libFuzzer did not run:\n{done.stderr[-2000:]}")
    return {"target": target, "seconds": round(taken), "executions": int(executed[1]), "edges": int(reached[-1][0]),
            "features": int(reached[-1][1]), "edges_in_all": int(edges[1]), "crashes": crashes}


def covered() -> dict[Path, frozenset[int]]:
    """{input: edges that it reaches}, for all available inputs."""
    control, nowhere = BUILD / "merge", BUILD / "merged"
    for path in (control, nowhere):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    nowhere.mkdir()
    subprocess.run([str(TARGET), "-set_cover_merge=1", "-use_counters=0", "-use_cmp=0", f"-max_len={LARGEST}",
                    f"-merge_control_file={control}", str(nowhere), str(FOUND), str(SEEDS), str(CORPUS)], check=True,
                   capture_output=True)
    lines = control.read_text().splitlines()
    files = [Path(x) for x in lines[2:2 + int(lines[0])]]
    rows = (x.split() for x in lines if x.startswith("FT "))
    return {files[int(number)]: frozenset(map(int, edges)) for _, number, *edges in rows}


def minimise() -> tuple[int, int]:
    """Rewrite the corpus: the samples, then the inputs that reach most new edges per byte, up to MOST_BYTES. Returns
    the numbers of files and bytes. Regressions are kept."""
    reached = covered()
    chosen = [p for p in reached if p.parent == SEEDS or p.name.startswith("regression-")]
    seen = frozenset().union(*(reached[p] for p in chosen))
    size = sum(p.stat().st_size for p in chosen)
    left = {p: e - seen for p, e in reached.items()}
    while left := {p: e - seen for p, e in left.items() if not e <= seen}:
        best = max(left, key=lambda p: len(left[p]) / (p.stat().st_size + 64))
        seen |= left.pop(best)
        size += best.stat().st_size
        if size > MOST_BYTES:
            break
        chosen.append(best)
    kept = {(p.name if len(p.name) < 40 else p.name[:16]): p.read_bytes() for p in chosen}
    for path in CORPUS.iterdir():
        path.unlink()
    for name, data in kept.items():
        (CORPUS / name).write_bytes(data)
    return len(kept), sum(map(len, kept.values()))


def record(row: dict, read: str) -> None:
    runs = json.loads(RECORD.read_text(encoding="utf-8"))["runs"] if RECORD.is_file() else []
    dated = row | {"day": dt.datetime.now(dt.UTC).date().isoformat(), "sources": read}
    RECORD.write_text(json.dumps({"runs": [*runs, dated], "machine": machine.describe()}, indent=1) + "\n",
                      encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--hours", type=float, help="instead of --seconds")
    parser.add_argument("--only", choices=(*IN_C, *fuzz_messages.TARGETS), help="this target, all the time")
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    parser.add_argument("--corpus", action="store_true", help="rewrite runtime_c/tests/corpus")
    arguments = parser.parse_args()
    seconds = arguments.seconds if arguments.hours is None else round(3600 * arguments.hours)
    share = SHARES | dict.fromkeys(fuzz_messages.TARGETS, 1 / 5 / len(fuzz_messages.TARGETS))
    if arguments.only:
        share = {arguments.only: 1}
    if IN_C.keys() & share.keys():
        build()
    crashes = 0
    for target, part in share.items():
        if target in IN_C:
            of, row = sources(), run(target, round(part * seconds))
        else:
            of, row = fuzz_messages.sources(), fuzz_messages.run(target, part * seconds)
        edges = f", {row['edges']} of {row['edges_in_all']} edges" if "edges" in row else ""
        print(f"{row['target']}: {row['seconds']} s, {row['executions']} executions{edges}, "
              f"{len(row['crashes'])} crashes", *row["crashes"], flush=True)
        crashes += len(row["crashes"])
        if arguments.record:
            record(row, of)
    if arguments.corpus:
        print("corpus: {} files, {} bytes".format(*minimise()))
    if crashes:
        raise SystemExit(f"inputs that crash it: {BUILD}")


if __name__ == "__main__":
    main()
