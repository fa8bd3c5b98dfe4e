"""`make demo`: builds the shipped policy, verifies it, and replays recorded episodes on the C runtime.

    python -m examples.demo --member light

The measurements go to build/demo/figures.json, from which the table is printed. With --record they also go to
profiles/host/demo.json, and README.md is rendered again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlacompile.cli.progress import Phases
from vlart.bundle.plan.stage_rows import depends_text
from vlart.errors import RuntimeFailure, SourceError, VlaError

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "build" / "demo" / "figures.json"
RECORDED = ROOT / "profiles" / "host" / "demo.json"
VLART_RUN = ROOT / "build" / "runtime_c" / "vlart-run"
PASSES = 3  # passes over the recordings when latency is measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", choices=("light", "heavy"), default="light", help="which policy of the pair")
    parser.add_argument("--threads", type=int, default=1,
                        help="threads of PyTorch and of the inference engine (default: 1)")
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/ and README.md")
    arguments = parser.parse_args()
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    try:
        figures = measure(arguments.member, arguments.threads, Phases(console))
    except VlaError as error:
        console.print(f"error: {error}", soft_wrap=True)
        return error.exit_code
    path = RECORDED if arguments.record else FIGURES
    keep(path, arguments.member, figures)
    if arguments.record:
        from docs import render

        render.main()
    print()
    print(text(json.loads(path.read_text(encoding="utf-8"))[arguments.member]))
    print(f"\nfigures: {path.relative_to(ROOT)}")
    return 0


def keep(path: Path, member: str, figures: dict) -> None:
    """Store the member's figures in the file that holds both."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted((known | {member: figures}).items())), indent=1) + "\n", encoding="utf-8")


def measure(member: str, threads: int, phases: Phases) -> dict:
    """The whole demo; returns its figures. Raises VlaError."""
    with phases, phases.asides():
        phases("start PyTorch and load the policy")
        import torch

        import vlacompile as vc
        from examples.libero_goal import policy as pair
        from examples.libero_goal import recordings
        from vlacompile.profile import machine

        if not recordings.FILE.is_file():
            raise SourceError("the recorded episodes are missing", where=str(recordings.FILE.relative_to(ROOT)),
                              why="no such file",
                              fix="python -m examples.libero_goal.recordings (extra eval) records them")
        torch.set_num_threads(threads)
        policy = getattr(pair, member)()
        out = ROOT / "build" / "demo"
        out.mkdir(parents=True, exist_ok=True)
        bundle = vc.build(policy, recipe="libero-goal", out=out / f"{member}.vlab", progress=phases)
        phases("verify the bundle")
        vc.verify(bundle.path, threads=threads).require()
        phases("run the recorded observations in PyTorch")
        observations = [inputs_of(member, r) for r in recordings.load()]
        frames_file = out / f"{member}.frames"
        write_frames(policy, observations, frames_file)
        phases("replay them with the C program")
        replay = vlart_run(bundle.path, frames_file, threads)
        phases("time PyTorch and libvlart alternately")
        latency = time_in_turn(policy, bundle.path, observations, threads)
    action = next(v for v in replay["values"] if v["name"] == policy.outputs[0])
    ran = {s["name"]: s for s in replay["stages"]}
    return {
        "policy": policy.name, "threads": threads, "observations": len(observations),
        "episodes": len({label.split(",")[0] for label, _ in observations}),
        "bundle_bytes": bundle.bytes, "bundle_sha256": bundle.hash,
        "actions_per_replan": bundle.plan.action.execute_steps,
        "stages": [{"stage": s.name,
                    "depends": depends_text(bundle.plan, [bundle.plan.values[v].name for v in s.depends]),
                    "runs": ran[s.name]["runs"], "median_ms": ran[s.name].get("median_ms"),
                    "flops": s.flops * s.iterations, "weight_bytes": s.weight_bytes} for s in bundle.plan.stages],
        "parity": {k: action[k] for k in ("max_abs", "max_abs_allowed", "rel_l2", "rel_l2_allowed", "cosine",
                                          "cosine_allowed")},
        "replan_ms": latency, "c_program_step_ms": _step(replay), "machine": machine.describe(),
    }


def _step(replay: dict) -> float:
    """Median latency of a complete step in the C program alone."""
    return replay["step"]["median_ms"]


def inputs_of(member: str, recording) -> tuple[str, dict]:
    """A recorded observation as the policy's inputs: (label, {source: tensor})."""
    import torch

    from examples.libero_goal.encoders import tokenize
    from examples.libero_goal.policy import IMAGES, MASK, STATE, TOKENS

    tokens, mask = tokenize(member, recording.instruction)
    images = {IMAGES[camera]: torch.from_numpy(image)[None] for camera, image in recording.images.items()}
    return (f"episode {recording.episode}, step {recording.step}",
            {TOKENS: tokens, MASK: mask, **images, STATE: torch.from_numpy(recording.state)[None]})


def write_frames(policy, observations: list[tuple[str, dict]], path: Path) -> None:
    """A frames file: every observation, and eager PyTorch's outputs with their tolerances."""
    import dataclasses

    import torch

    from examples.libero_goal.rounding import Exact
    from vlart.verify.frames import Expected, Frame, frames_bytes
    from vlart.verify.tolerances import tolerance

    frames, exact = [], Exact(policy.observe)
    for label, inputs in observations:
        with torch.no_grad():
            want = {n: t.contiguous().numpy() for n, t in policy.infer(**inputs).items() if n in policy.outputs}
        expects = {}
        for name, array in want.items():
            limit = tolerance("f32", "chunk").limit(array)
            limit = dataclasses.replace(limit, max_abs=exact.limit(inputs, limit.max_abs))
            expects[name] = Expected(array, limit)
        frames.append(Frame(label, {n: t.contiguous().numpy() for n, t in inputs.items()}, expects))
    path.write_bytes(frames_bytes(frames))


def vlart_run(bundle: Path, frames: Path, threads: int) -> dict:
    """The C program, as on a robot: no Python in its process. Raises RuntimeFailure with the program's message."""
    from vlart.runtime.library import onnxruntime_library

    command = [VLART_RUN, bundle, "--ort", onnxruntime_library(), "--frames", frames, "--threads", threads,
               "--self-test", "--json"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    try:
        document = json.loads(done.stdout)
    except ValueError as error:
        raise RuntimeFailure("vlart-run gave no report", where=VLART_RUN.name, why=done.stderr.strip() or "no output",
                             fix="run `make runtime`, then this again") from error
    if document["status"] != "OK":
        raise RuntimeFailure(document["what"], where=document["where"], why=document["why"], fix=document["fix"],
                             status=document["status"])
    return document


def time_in_turn(policy, bundle: Path, observations: list[tuple[str, dict]], threads: int) -> dict[str, dict]:
    """Median milliseconds per replan of eager PyTorch, of libvlart, and of libvlart with nothing cached between
    replans; alternating on every observation, so that other load on the machine affects all equally."""
    import torch

    import vlacompile as vc

    samples: dict[str, list[float]] = {"pytorch": [], "libvlart": [], "libvlart_nothing_kept": []}

    def clock(name: str, function) -> None:
        begin = time.perf_counter()
        function()
        samples[name].append((time.perf_counter() - begin) * 1e3)

    def step(session, arrays) -> None:
        for name, array in arrays.items():
            session.write(name, array)
        session.step()

    with torch.no_grad(), vc.Session(bundle, threads=threads) as kept, vc.Session(bundle, threads=threads) as fresh:
        for number in range(PASSES + 1):  # the first pass is a warm-up
            for _, inputs in observations:
                arrays = {n: t.contiguous().numpy() for n, t in inputs.items()}
                clock("pytorch", lambda: policy.infer(**inputs))
                clock("libvlart", lambda: step(kept, arrays))
                fresh.invalidate()
                clock("libvlart_nothing_kept", lambda: step(fresh, arrays))
            if number == 0:
                for times in samples.values():
                    times.clear()
    return {name: {"median": statistics.median(t), "p90": statistics.quantiles(t, n=10)[-1], "samples": len(t)}
            for name, t in samples.items()}


def text(figures: dict) -> str:
    """The demo's table, 80 columns, from its figures."""
    import io

    n = figures["observations"]
    stages = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    stages.add_column("stage", no_wrap=True)
    stages.add_column("depends on")
    for title in ("ran", "median ms"):
        stages.add_column(title, justify="right", no_wrap=True)
    for s in figures["stages"]:
        stages.add_row(s["stage"], s["depends"], f"{s['runs']} of {n}", f"{s['median_ms']:.3f}" if s["runs"] else "-")
    replan = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    replan.add_column("one replan", no_wrap=True)
    for title in ("median ms", "90% below ms", "PyTorch takes"):
        replan.add_column(title, justify="right", no_wrap=True)
    base = figures["replan_ms"]["pytorch"]["median"]
    for name, label in (("pytorch", "eager PyTorch"), ("libvlart", "libvlart"),
                        ("libvlart_nothing_kept", "libvlart, every stage every time")):
        row = figures["replan_ms"][name]
        replan.add_row(label, f"{row['median']:.2f}", f"{row['p90']:.2f}", f"{base / row['median']:.2f} x")
    parity, where = figures["parity"], figures["machine"]
    stream = io.StringIO()
    console = Console(file=stream, width=80, markup=False, emoji=False, highlight=False)
    console.print(f"{figures['policy']}: {n} recorded observations, {figures['episodes']} episodes, "
                  f"{figures['threads']} thread{'s' * (figures['threads'] != 1)}")
    console.print()
    console.print(stages)
    console.print()
    console.print(replan)
    console.print(f"\nparity with PyTorch, worst of {n} chunks:")
    console.print(f"  max_abs {parity['max_abs']:.1e} (allowed {parity['max_abs_allowed']:.1e})  "
                  f"rel L2 {parity['rel_l2']:.1e} ({parity['rel_l2_allowed']:.1e})  cosine {parity['cosine']:.7f}")
    console.print(f"bundle {figures['bundle_bytes'] / 1e6:.1f} MB; {where['cpu']}, {where['cores']} cores; "
                  f"torch {where['versions']['torch']}, onnxruntime {where['versions']['onnxruntime']}")
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


if __name__ == "__main__":
    sys.exit(main())
