"""`vlacompile run BUNDLE`."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlacompile.cli.arguments import STAND_IN, add_stand_in
from vlacompile.cli.terminal import Terminal
from vlart.arguments import add_record, add_trust, positive, thread_count, trusted
from vlart.bundle.plan.stage_rows import depends_text, stage_rows

SUMMARY = "run a bundle on recorded frames"
DESCRIPTION = """Run a bundle on a frames file (by default its own golden frames) in one session:
for each frame write the inputs, step, and read the actions. Prints the actions
of the last frame, how often each stage ran, and the latencies."""
EPILOG = """examples:
  vlacompile run light.vlab
  vlacompile run light.vlab --frames episode.frames --repeat 10 --threads 1
  vlacompile run light.vlab --record run.vlog

next: in C, the same is build/runtime_c/vlart-run; in Python, vlacompile.Session"""

ROWS = 5  # of the last chunk that are printed; --json has all


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("--frames", metavar="FILE", help="frames to replay (default: the bundle's golden frames)")
    parser.add_argument("--repeat", type=positive, default=1, metavar="N", help="replay N times (default: 1)")
    parser.add_argument("--threads", type=thread_count, default=0, metavar="N",
                        help="threads of the inference engine (default: 0, its own choice)")
    parser.add_argument("--backbone", metavar="NAME",
                        help="which backbone to use, if there are several (default: the first)")
    add_record(parser)
    add_stand_in(parser)
    add_trust(parser)


def run(args, terminal: Terminal) -> None:
    from vlart.bundle.directory import GOLDEN_FILE, read_bundle

    trusted(args)
    bundle = read_bundle(args.bundle)
    with terminal.phases() as phases:
        phases("open the bundle")
        from vlart.runtime.recorder import recorded_words, recorder_for
        from vlart.runtime.session import RECORDED, Session
        from vlart.verify.frames import read_frames

        recording = recorder_for(args)
        frames = read_frames(Path(args.frames) if args.frames else bundle.path / GOLDEN_FILE)
        with Session(bundle.path, threads=args.threads, stand_in=args.stand_in, accept=RECORDED,
                     native_code=args.native_code, record=recording) as session:
            if args.backbone is not None:
                session.select(args.backbone)
            phases(f"replay {len(frames) * args.repeat} frames")
            steps_ms, stages = _replay(session, frames, args.repeat)
            plan = session.plan
            output = session.action_output if plan.action else bundle.manifest["provenance"]["outputs"][0]
            chunk = session.read(output)
    recorded = None if recording is None else recorded_words(recording)
    document = {
        "bundle": str(bundle.path), "frames": len(frames), "repeat": args.repeat, "threads": args.threads,
        "stand_in": args.stand_in,
        "step_ms": {"median": statistics.median(steps_ms), "min": min(steps_ms), "max": max(steps_ms)},
        "stages": stages, "output": output, "shape": list(chunk.shape), "last": chunk.tolist(),
        "recorded": recorded,
    }
    terminal.show(document, lambda console: _print(console, plan, document, chunk))


def _replay(session, frames, repeat: int) -> tuple[list[float], dict[str, dict]]:
    """Latency of every step (write and step) in ms, and {stage: runs and latencies}."""
    steps_ms: list[float] = []
    times_ms: dict[str, list[float]] = {s.name: [] for s in session.plan.stages}
    for i, frame in enumerate(frames * repeat):
        if i % len(frames) == 0 or frame.begins:
            session.reset()  # recorded frames without such a mark are one episode
        begin = time.perf_counter()
        for name, array in frame.writes.items():
            session.write(name, array)
        session.step()
        steps_ms.append((time.perf_counter() - begin) * 1e3)
        for name, s in session.stats().stages.items():
            if s.runs > len(times_ms[name]):
                times_ms[name].append(s.last_us / 1e3)
    return steps_ms, {name: {"runs": len(t), "steps": len(steps_ms), "median_ms": statistics.median(t) if t else None,
                             "max_ms": max(t, default=None)} for name, t in times_ms.items()}


def _print(console: Console, plan, document: dict, chunk) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("depends on")
    for title in ("runs", "median ms", "max ms"):
        table.add_column(title, justify="right", no_wrap=True)
    depends = {r["stage"]: depends_text(plan, r["depends"]) for r in stage_rows(plan)}
    for name, s in document["stages"].items():
        times = ("-", "-") if not s["runs"] else (f"{s['median_ms']:.3f}", f"{s['max_ms']:.3f}")
        table.add_row(name, depends[name], f"{s['runs']} of {s['steps']}", *times)
    console.print(table)
    if document["stand_in"]:
        console.print(f"\n{STAND_IN}")
    if document["recorded"]:
        console.print(f"\nrecorded {document['recorded']}", soft_wrap=True)
    step = document["step_ms"]
    console.print(f"\nstep: median {step['median']:.2f} ms, min {step['min']:.2f}, max {step['max']:.2f}",
                  soft_wrap=True)
    rows = chunk.reshape(-1, chunk.shape[-1]) if chunk.ndim else chunk.reshape(1, 1)
    console.print(f"\n{document['output']} {document['shape']} of the last frame", style="bold", soft_wrap=True)
    for row in rows[:ROWS]:
        console.print("  " + " ".join(f"{x:8.4f}" for x in row.tolist()[:8]) + (" ..." if row.size > 8 else ""))
    if len(rows) > ROWS:
        console.print(f"  ... {len(rows) - ROWS} more rows")
