"""One engine in a process of its own: `prepare` writes its artefact, `run` loads it and executes requests.

`prepare` writes work/ENGINE/ and prints its duration. `run` reads lines of JSON on stdin ({"replans": n,
"instruction": "same" | "new"}) and answers each with one line on stdout, so that the parent can alternate between
engines. Its first line has its load time, its memory and the difference of its first chunk from eager PyTorch.
Nothing here imports torch unless the engine itself needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.engines import ENGINES, open_policy

INPUTS = "inputs.npz"  # frame_I_NAME and text_I_NAME arrays, names, and eager PyTorch's chunk of frame 0


def write_inputs(member: str, path: Path) -> None:
    """Write the recorded observations, all with the first one's instruction, and the instructions, as policy inputs."""
    import torch

    from examples.libero_goal import recordings
    from examples.libero_goal.encoders import tokenize
    from examples.libero_goal.policy import IMAGES, MASK, STATE, TOKENS
    from examples.libero_goal.train import INSTRUCTIONS

    policy, rows = open_policy(member), recordings.load()
    texts = [tokenize(member, text) for text in (rows[0].instruction, *INSTRUCTIONS.values())]
    words = [{TOKENS: tokens.numpy(), MASK: mask.numpy()} for tokens, mask in texts]
    frames = [words[0] | {IMAGES[c]: i[None] for c, i in r.images.items()} | {STATE: r.state[None]} for r in rows]
    frames = [{n: frame[n] for n in policy.example_inputs} for frame in frames]
    with torch.no_grad():
        want = policy.infer(**{n: torch.from_numpy(a) for n, a in frames[0].items()})["action"].numpy()
    arrays = {f"frame_{i}_{n}": a for i, frame in enumerate(frames) for n, a in frame.items()}
    arrays |= {f"text_{i}_{n}": a for i, text in enumerate(words[1:]) for n, a in text.items()}
    np.savez(path, names=np.array(list(policy.example_inputs)), want=want, **arrays)


def read_inputs(path: Path) -> tuple[list[dict], list[dict], np.ndarray]:
    """(frames, instructions, wanted chunk of frame 0)"""
    with np.load(path) as data:
        names = [str(n) for n in data["names"]]
        columns = {k: data[k] for k in data.files}

    def rows(kind: str) -> list[dict]:
        count = 1 + max(int(k.split("_")[1]) for k in columns if k.startswith(f"{kind}_"))
        return [{n: columns[f"{kind}_{i}_{n}"] for n in names if f"{kind}_{i}_{n}" in columns} for i in range(count)]

    return rows("frame"), rows("text"), columns["want"]


def prepare(member: str, engine: str, work: Path) -> dict:
    policy = open_policy(member)
    began = time.perf_counter()
    ENGINES[engine].prepare(policy, work)
    return {"prepare_s": time.perf_counter() - began}


def run(member: str, name: str, threads: int, work: Path, answers) -> None:
    frames, texts, want = read_inputs(work.parent / INPUTS)
    began = time.perf_counter()
    engine = ENGINES[name](member, tuple(frames[0]), threads, work)
    load_s = time.perf_counter() - began
    difference = float(np.abs(engine.replan(frames[0]) - want).max())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"load_s": load_s, "max_abs": difference, "peak_rss_mb": peak, "rss_mb": resident_mb()}),
          file=answers,
          flush=True)
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
        print(json.dumps({"wall_ms": [1e3 * x for x in wall], "cpu_ms": [1e3 * x for x in cpu]}),
              file=answers, flush=True)


def resident_mb() -> float:
    """Current resident memory of this process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["inputs", "prepare", "run"])
    parser.add_argument("engine", nargs="?", choices=list(ENGINES))
    parser.add_argument("--member", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True, help="the engine's folder; the inputs are beside it")
    arguments = parser.parse_args()
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # libraries print to stdout
    if arguments.verb == "inputs":
        write_inputs(arguments.member, arguments.work / INPUTS)
    elif arguments.verb == "prepare":
        print(json.dumps(prepare(arguments.member, arguments.engine, arguments.work)), file=answers, flush=True)
    else:
        run(arguments.member, arguments.engine, arguments.threads, arguments.work, answers)


if __name__ == "__main__":
    main()
