"""One original: build it for the host in fp32, and compare the bundle with the original function. A process of its own.

    python -m benchmarks.gauntlet.measure GLUE.py CHECKOUT WORK      writes WORK/KEY.json
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import vlacompile as vc
from benchmarks.gauntlet.original import Glue, Original, read_glue
from vlart.bundle.directory import GOLDEN_FILE
from vlart.errors import VlaError
from vlart.verify.frames import read_frames
from vlart.vocabulary import UPDATES

ROUNDS = 3


def measure(glue: Glue, checkout: Path, work: Path, progress=print) -> dict:
    """The row of the table. result: "equal", "differs", "refused" (a VlaError) or "failed" (any other exception)."""
    row = {"name": glue.original.name, "repository": glue.original.repository, "commit": glue.original.commit,
           "glue_lines": glue.lines, "note": glue.original.note}
    out = work / f"{glue.key}.vlab"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    try:
        policy = _made(glue, checkout)
        row |= {"make_s": time.perf_counter() - began, "sources": {n: s.update for n, s in policy.sources.items()}}
        progress(f"{glue.key}: build")
        spent = time.process_time()  # other work on the machine changes it little
        bundle = vc.build(policy, out=out)
        row |= {"build_s": time.process_time() - spent,
                "stages": [{"stage": s.name, "iterations": s.iterations} for s in bundle.plan.stages]}
        progress(f"{glue.key}: compare")
        return row | compare(out, _made(glue, checkout), glue.original)
    except VlaError as error:
        return row | {"result": "refused", "seconds": time.perf_counter() - began, "message": str(error)}
    except Exception as error:  # noqa: BLE001  an original's code raises anything; the table shows it
        return row | {"result": "failed", "seconds": time.perf_counter() - began,
                      "message": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def _made(glue: Glue, checkout: Path) -> vc.Policy:
    torch.manual_seed(0)
    return glue.make(checkout)


def frames(policy: vc.Policy, original: Original) -> Iterator[tuple[str, dict, dict]]:
    """Frames in which all sources are new, each followed by frames in which one is, in the order of update classes:
    what is new, what the robot writes, and what the original function takes (histories stacked, oldest first)."""
    from vlacompile.compiler.capture.history import append, newest_of

    rng = np.random.default_rng(7)
    live = [n for n, s in policy.sources.items() if s.update != "static"]
    live.sort(key=lambda n: UPDATES[policy.sources[n].update])
    example = newest_of(policy.sources, policy.example_inputs)
    histories = [n for n in live if policy.sources[n].history > 1]
    newest, stacked = {}, {}
    for number in range(ROUNDS):
        for new in (live, *([name] for name in live)):
            written = {n: original.ranges[n](rng) if n in original.ranges else draw(example[n], rng) for n in new}
            newest |= written
            if any(n in histories for n in new):
                stacked |= {n: append(stacked.get(n), newest[n], policy.sources[n].history) for n in histories}
            yield new[0] if len(new) == 1 else f"all, round {number}", written, newest | stacked


def draw(example: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random values of the example's type: normal, every byte, both truths, or ids up to the example's largest."""
    shape = tuple(example.shape)
    if example.is_floating_point():
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(example.dtype)
    if example.dtype == torch.bool:
        return torch.from_numpy(rng.random(shape) < 0.5)
    top = 256 if example.dtype == torch.uint8 else int(example.max()) + 1
    return torch.from_numpy(rng.integers(0, top, shape)).to(example.dtype)


def compare(bundle: Path, policy: vc.Policy, original: Original) -> dict:
    """The original function beside the bundle, through the runtime, on every frame."""
    static = {n: policy.example_inputs[n] for n, s in policy.sources.items() if s.update == "static"}
    worst, scale, moved, last, compared = {}, {}, {}, {}, 0
    with vc.Session(bundle, threads=1) as session, torch.no_grad():
        for new, written, inputs in frames(policy, original):
            want = policy.infer(**{n: t.clone() for n, t in (inputs | static).items()})
            for name, tensor in written.items():
                session.write(name, tensor)
            session.step()
            for output in policy.outputs:
                expected = _array(want[output])
                far = _distance(np.asarray(session.read(output), dtype=np.float64), expected)
                if far >= worst.get(output, (-1.0, ""))[0]:
                    worst[output] = (far, new)
                scale[output] = max(scale.get(output, 0.0), float(np.abs(expected).max(initial=0.0)))
                if output in last and new in policy.sources:
                    moved[new] = moved.get(new, False) or bool((last[output] != expected).any())
                last[output] = expected
                compared += 1
    if not any(moved.values()):
        raise RuntimeError("no source changes any output: the comparison would show nothing")
    limits = limits_of(bundle, {o: original.limit * max(scale[o], 1e-12) for o in worst})
    output = max(worst, key=lambda o: worst[o][0] / limits[o])
    largest = max(scale[output], 1e-12)
    return {"result": "equal" if worst[output][0] <= limits[output] else "differs", "max_abs": worst[output][0],
            "share": worst[output][0] / largest, "limit": limits[output] / largest, "output": output,
            "new": worst[output][1], "compared": compared, "without_effect": [n for n, has in moved.items() if not has]}


def limits_of(bundle: Path, least: dict[str, float]) -> dict[str, float]:
    """{output: the largest difference that counts as equal}: `least`, or what the build derived for its own replay from
    runs in which every result is rounded anew, where a policy amplifies rounding beyond that."""
    golden = read_frames(bundle / GOLDEN_FILE)
    return {o: max([limit, *(f.expects[o].limit.max_abs for f in golden if o in f.expects)])
            for o, limit in least.items()}


def _array(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().float() if tensor.is_floating_point() else tensor.detach(), dtype=np.float64)


def _distance(got: np.ndarray, want: np.ndarray) -> float:
    """Largest absolute difference; infinite where the shapes or the places of what is not finite are others."""
    if got.shape != want.shape or (np.isfinite(got) != np.isfinite(want)).any():
        return float("inf")
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return float("inf")
    return float(np.abs(got[finite] - want[finite]).max(initial=0.0))


def main() -> None:
    glue, checkout, work = read_glue(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    row = measure(glue, checkout, work, progress=lambda text: print(text, flush=True))
    (work / f"{glue.key}.json").write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
