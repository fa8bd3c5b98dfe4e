"""One engine in a process of its own; the parent says when to run, so that engines take turns.

Reads lines of JSON on stdin ({"replans": n, "instruction": "same" | "new"}), answers each with one
line on stdout. The first line it writes is its build time, memory and first chunk's distance from
eager PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np


def observations(member: str) -> list[dict[str, np.ndarray]]:
    """The recorded observations as policy inputs, all with the first instruction."""
    from examples.libero_goal import recordings
    from examples.libero_goal.encoders import tokenize
    from examples.libero_goal.policy import IMAGES, MASK, STATE, TOKENS

    rows = recordings.load()
    tokens, mask = (t.numpy() for t in tokenize(member, rows[0].instruction))
    return [{TOKENS: tokens, MASK: mask, **{IMAGES[c]: i[None] for c, i in r.images.items()}, STATE: r.state[None]}
            for r in rows]


def instructions(member: str) -> list[dict[str, np.ndarray]]:
    from examples.libero_goal.encoders import tokenize
    from examples.libero_goal.policy import MASK, TOKENS
    from examples.libero_goal.train import INSTRUCTIONS

    pairs = [tokenize(member, text) for text in INSTRUCTIONS.values()]
    return [{TOKENS: t.numpy(), MASK: m.numpy()} for t, m in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine")
    parser.add_argument("--member", default="light")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # libraries print to stdout

    from benchmarks.engines import ENGINES, TorchEager
    from examples.libero_goal import policy as pair

    policy = getattr(pair, arguments.member)()
    frames, texts = observations(arguments.member), instructions(arguments.member)
    began = time.perf_counter()
    engine = ENGINES[arguments.engine](policy, arguments.threads, arguments.work)
    build_s = time.perf_counter() - began
    want = TorchEager(policy, arguments.threads, arguments.work).replan(frames[0])
    difference = float(np.abs(engine.replan(frames[0]) - want).max())

    def answer(row: dict) -> None:
        print(json.dumps(row), file=answers, flush=True)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer({"build_s": build_s, "max_abs": difference, "peak_rss_mb": peak})
    at = 0
    for line in sys.stdin:
        job = json.loads(line)
        wall, cpu = [], []
        for _ in range(job["replans"]):
            at += 1
            inputs = dict(frames[at % len(frames)])
            if job["instruction"] == "new":
                inputs |= texts[at % len(texts)]
            w, c = time.perf_counter(), time.process_time()
            engine.replan(inputs)
            wall.append(time.perf_counter() - w)
            cpu.append(time.process_time() - c)
        answer({"wall_ms": [1e3 * x for x in wall], "cpu_ms": [1e3 * x for x in cpu]})


if __name__ == "__main__":
    main()
