"""Readers in Python under mutated input: what robots send to a server, and what a device answers while it is flashed.

    python -m benchmarks.fuzz_messages [--seconds N]

Targets: "openpi" (MessagePack to arrays of a plan), "lerobot" (pickles to arrays), "device" (a device's output to the
answers of a step). Whatever comes must be read as what it is or refused in the reader's own way, within its limits; an
input that does anything else is kept in build/fuzz/crash-TARGET-HASH. `benchmarks.fuzz` runs them and records.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.serve.lerobot_messages import RemotePolicyConfig, TimedObservation, pickled
from vlacompile.deploy.answers import FORMS, Unbelievable, check, listen
from vlart.bundle.plan.plan import Plan
from vlart.bundle.plan.text import parse_plan
from vlart.errors import printable
from vlart.serve.messages import pack, unpack
from vlart.serve.observations import Intake
from vlart.serve.pickled import read_pickle
from vlart.serve.refusal import Refusal
from vlart.serve.websocket import told_apart

ROOT = Path(__file__).parents[1]
KEPT, PLAN = ROOT / "build" / "fuzz", ROOT / "tests" / "golden" / "late_fusion.plan.txt"
LARGEST = 65536
READ = ("vlart/serve/*.py", "vlacompile/deploy/answers.py", "vlart/errors.py", "benchmarks/fuzz_messages.py")
NUMBERS = tuple(n.to_bytes(w, order, signed=n < 0) for w in (1, 2, 4, 8) for order in ("big", "little")
                for n in (-1, 0, 1, 127, 2 ** (8 * w - 1) - 1))


@dataclass(frozen=True)
class Target:
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], None]


def mutated(data: bytes, seeds: tuple[bytes, ...], rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(8)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at % len(out)] = rng.randrange(256)
        elif kind == 2:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 3:
            del out[at:at + rng.choice((1, 2, 8, 64, 512))]
        elif kind == 4:
            out[at:at] = out[at:at + rng.randrange(1, 65)] * rng.choice((1, 2, 16))
        elif kind == 5:
            number = rng.choice(NUMBERS)
            out[at:at + len(number)] = number
        elif kind == 6:
            other = rng.choice(seeds)
            cut = rng.randrange(len(other) + 1)
            out[at:] = other[cut:]
        else:
            other = rng.choice(seeds)
            cut = rng.randrange(len(other) + 1)
            out[at:at] = other[cut:cut + rng.randrange(1, 129)]
    return bytes(out[:LARGEST])


def arrays_of(plan: Plan, message: object) -> None:
    """Exactly what the session takes, or a refusal."""
    intake = Intake(plan)
    for name, array in intake.read(message).items():
        wanted = intake.inputs[name]
        assert array.shape == wanted.dims and array.flags.c_contiguous
        assert array.dtype.kind != "f" or np.isfinite(array).all()


def openpi(plan: Plan) -> Target:
    rng, inputs = np.random.default_rng(0), Intake(plan).inputs
    whole = {n: rng.integers(0, 2, i.dims).astype({"f32": "f4", "u8": "u1", "i64": "i8", "bool": "?"}[i.dtype])
             for n, i in inputs.items()}
    small = {n: a for n, a in whole.items() if a.nbytes < 512}
    seeds = (pack(whole), pack(small | {"reset": True}), pack({**small, "observation_id": "a"}),
             pack({n: a.tolist() for n, a in small.items()}), pack({"a": {"b": small}}), pack([1, 2.5, None, "x"]))

    def read(data: bytes) -> None:
        message, _, name = told_apart(unpack(data), inputs)
        assert name is None or isinstance(name, (int, float, str))
        arrays_of(plan, message)

    return Target(seeds, read)


def lerobot(plan: Plan) -> Target:
    observation = {"joint.pos": 1.5, "task": "go", "image": np.zeros((4, 4, 3), np.uint8)}
    config = RemotePolicyConfig("act", "x", {"observation.state": {"dtype": "float32", "names": ["joint.pos"]}}, 10)
    seeds = tuple(pickled(value, protocol) for protocol in (2, 4, 5) for value in (
        TimedObservation(1.0, 3, observation, True), config, {"a": [1, 2.0, None, b"x", "y", (True,)]}))

    def read(data: bytes) -> None:
        found = read_pickle(data)
        if isinstance(found, dict):
            arrays_of(plan, found)

    return Target(seeds, read)


def device(_plan: Plan) -> Target:
    lines = [f"vlacompile {key} {value}" for key, value in (
        ("arch", "aarch64"), ("root", "/opt/vlacompile"), ("model", "Jetson"), ("free_kib", "1024"),
        ("signers", "a" * 64),
        ("current", "a " + "b" * 64), ("need", "c" * 64 + " 12"), ("stored", ""), ("part", "7"), ("active", "b"),
        ("slot", "pick a"), ("policy", "pick"), ("history", "pick 2026-01-01T00:00:00Z flash a 12ab"))]
    seeds = ("\n".join(lines).encode(), "\r\nsaid \x1b[31mred\n".join(lines).encode(), b"\xff\xfe\n" * 9,
             lines[0].encode() * 200)

    def read(data: bytes) -> None:
        ours, theirs = os.pipe()
        writing = threading.Thread(target=_write, args=(theirs, data))
        writing.start()
        try:
            heard = listen(ours, lambda line: None, 5.0)
        finally:
            os.close(ours)
            writing.join()
        for line in [*heard.said, *(value for _, value in heard.answers)]:
            assert printable(line) == line  # nothing reaches a terminal as such
        for step in FORMS:
            try:
                check(step, heard.answers)
            except Unbelievable:
                continue

    return Target(seeds, read)


def _write(end: int, data: bytes) -> None:
    try:
        os.write(end, data[:60_000])  # a pipe holds that much
    finally:
        os.close(end)


TARGETS = {"openpi": openpi, "lerobot": lerobot, "device": device}


def sources() -> str:
    """sha256 of all sources of the targets."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in READ for p in ROOT.glob(pattern)):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def run(name: str, seconds: float, seed: int | None = None) -> dict:
    """One run of a target: {"target", "seconds", "executions", "refused", "crashes"}."""
    target = TARGETS[name](parse_plan(PLAN.read_text(encoding="utf-8")))
    rng, began = random.Random(seed), time.monotonic()
    pool, executions, refused, crashes = list(target.seeds), 0, 0, []
    while time.monotonic() < began + seconds:
        data = mutated(rng.choice(pool), target.seeds, rng)
        executions += 1
        try:
            target.read(data)
        except (Refusal, Unbelievable):
            refused += 1
        except Exception as error:  # noqa: BLE001  whatever it is, it is a fault
            KEPT.mkdir(parents=True, exist_ok=True)
            path = KEPT / f"crash-{name}-{hashlib.sha256(data).hexdigest()[:16]}"
            path.write_bytes(data)
            crashes.append(f"{path.name}: {type(error).__name__}: {error}")
        else:
            pool = [*pool[-400:], data] if len(data) < 4096 else pool  # what is read leads to more that is
    return {"target": name, "seconds": round(time.monotonic() - began), "executions": executions, "refused": refused,
            "crashes": crashes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each target")
    parser.add_argument("--target", choices=list(TARGETS))
    arguments = parser.parse_args()
    for name in [arguments.target] if arguments.target else TARGETS:
        print(run(name, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
