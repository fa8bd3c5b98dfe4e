"""LeRobot policies of real size: distribution of their work, and latency per chunk compared with PyTorch.

    make bench-lerobot        (in the environment lerobot: python -m benchmarks.checkpoints)

Random weights (the work is the same), LeRobot's own default sizes, one thread, one new observation per chunk. Eager and
compiled PyTorch, the whole policy as one ONNX graph, and the bundle alternate; medians. Writes
build/bench/lerobot.json; with --record profiles/host/lerobot.json, and `make docs` then renders it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

PROFILE = Path("profiles/host/lerobot.json")
WORK = Path("build/bench/lerobot")
KINDS = ("act", "diffusion", "smolvla")
ONE_GRAPH_NODES = 8000  # a larger graph is neither exported nor compiled as a whole: hours and memory
ROUNDS = 5


def stacked(sources: dict, written: list[dict], append) -> list[dict]:
    """Stack the robot's successive writes into the histories that the inference function takes."""
    out: list[dict] = []
    for inputs in written:
        before = out[-1] if out else {}
        out.append(inputs | {n: append(before.get(n), inputs[n], s.history) for n, s in sources.items()
                             if s.history > 1})
    return out


def observations(sources: dict, example: dict, count: int) -> list[dict]:
    """The example, then observations with everything but the task changed."""
    import numpy as np

    from vlacompile.policy.sample_inputs import vary

    rng = np.random.default_rng(3)
    fast = [n for n, s in sources.items() if s.update not in ("static", "task")]
    return [dict(example), *(example | {n: vary(example[n], rng) for n in fast} for _ in range(count - 1))]


def measure(kind: str, keep: bool, tiny: bool = False) -> dict:
    """tiny: small widths, with every structural constant kept. keep: measure the existing bundle instead of writing the
    checkpoint and building again."""
    import torch

    import vlacompile as vc
    from benchmarks.engines import OnnxRuntime
    from tests.environments.lerobot.checkpoints import sized, write
    from vlacompile.compiler.capture.export import capture
    from vlacompile.compiler.capture.history import append, newest_of
    from vlacompile.compiler.graph.ops import flops
    from vlacompile.frontends.lerobot.read import read_policy
    from vlacompile.profile import machine

    torch.set_num_threads(1)
    folder = WORK / (f"{kind}-tiny" if tiny else kind)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"{kind}: write the checkpoint and build", flush=True)
        write(kind, (folder / "pretrained_model").absolute(), real=not tiny)
        with sized(kind, real=not tiny):
            vc.build(folder / "pretrained_model", out=folder / "policy.vlab")
    print(f"{kind}: read both", flush=True)
    with sized(kind, real=not tiny):
        policy = read_policy(folder / "pretrained_model")
    bundle = vc.load(folder / "policy.vlab")
    parity = vc.verify(bundle.path)
    program = capture(policy, whole=True)
    nodes = sum(n.op == "call_function" for n in program.graph.nodes)
    written = observations(dict(policy.sources), newest_of(policy.sources, policy.example_inputs), ROUNDS + 1)
    inputs = stacked(policy.sources, written, append)  # the inputs of PyTorch and of the single graph
    arrays = [{n: t.contiguous().numpy() for n, t in i.items()} for i in inputs]
    newest = [{n: t.contiguous().numpy() for n, t in i.items() if policy.sources[n].update != "static"}
              for i in written]
    whole = None
    if nodes <= ONE_GRAPH_NODES:
        print(f"{kind}: export it as one ONNX graph", flush=True)
        OnnxRuntime.prepare(policy, folder)
        whole = OnnxRuntime(kind, tuple(policy.example_inputs), 1, folder)
        print(f"{kind}: torch.compile", flush=True)
    compiled = torch.compile(policy.infer, dynamic=False) if nodes <= ONE_GRAPH_NODES else None
    compiles = 0.0
    samples: dict[str, list[float]] = {"pytorch": [], "torch_compile": [], "one_graph": [], "libvlart": []}

    def clock(name: str, function) -> None:
        begin = time.perf_counter()
        function()
        samples[name].append((time.perf_counter() - begin) * 1e3)

    def step(session, values) -> None:
        for name, array in values.items():
            session.write(name, array)
        session.step()

    with torch.no_grad(), vc.Session(bundle.path, threads=1) as session:
        for number, (tensors, values, frame) in enumerate(zip(inputs, arrays, newest, strict=True)):
            print(f"{kind}: round {number} of {ROUNDS}", flush=True)
            clock("pytorch", lambda: policy.infer(**tensors))
            if compiled is not None:
                clock("torch_compile", lambda: compiled(**tensors))
                compiles = compiles or samples["torch_compile"][0] / 1e3
            if whole is not None:
                clock("one_graph", lambda: whole.replan(values))
            clock("libvlart", lambda: step(session, frame))
        stats = session.stats()
    plan = bundle.plan
    return {
        "kind": kind, "machine": machine.describe("lerobot", "transformers"), "rounds": ROUNDS,
        "traced_gflop": sum(flops(n) for n in program.graph.nodes) / 1e9, "traced_nodes": nodes,
        "parameters": sum(program.constants[n].numel() for n in program.parameters),
        "torch_compile_s": compiles, "bundle_bytes": bundle.bytes, "notes": bundle.manifest["provenance"]["notes"],
        "stages": [{"stage": s.name, "iterations": s.iterations, "gflop": s.flops * s.iterations / 1e9,
                    "weight_bytes": s.weight_bytes} for s in plan.stages],
        "chunk_ms": {name: statistics.median(t[1:]) for name, t in samples.items() if t},
        "stage_mean_ms": {name: row.total_us / row.runs / 1e3 for name, row in stats.stages.items() if row.runs},
        "parity": {v.value: {"max_abs": v.worst.max_abs, "rel_l2": v.worst.rel_l2, "cosine": v.worst.cosine}
                   for v in parity.values if v.level == "chunk"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=KINDS, help="act, diffusion, smolvla (default: all)")
    parser.add_argument("--keep", action="store_true", help="measure existing bundles, do not build")
    parser.add_argument("--record", action="store_true", help=f"save the figures to {PROFILE}")
    parser.add_argument("--tiny", action="store_true", help="small widths with the same structure, for any kind")
    arguments = parser.parse_args()
    for kind in arguments.kinds:
        figures = measure(kind, arguments.keep, arguments.tiny)
        path = PROFILE if arguments.record else WORK.with_suffix(".json")
        path = path.with_name("lerobot-tiny.json") if arguments.tiny else path
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.write_text(json.dumps(dict(sorted((known | {kind: figures}).items())), indent=1) + "\n", encoding="utf-8")
        print(f"{kind}: {figures['chunk_ms']}; written to {path}", flush=True)


if __name__ == "__main__":
    main()
