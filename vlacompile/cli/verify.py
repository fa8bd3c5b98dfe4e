"""`vlacompile verify BUNDLE`."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from vlacompile.cli.arguments import STAND_IN, add_checkpoint_options, add_stand_in
from vlacompile.cli.sign import print_signature
from vlacompile.cli.terminal import Terminal
from vlart.arguments import add_trust, positive, thread_count, trusted

SUMMARY = "replay the golden frames of a bundle and compare with PyTorch"
DESCRIPTION = """Check every file of a bundle against its manifest, then replay its golden frames
through libvlart and compare every value with what PyTorch computed when the
bundle was built. Every value must pass all three metrics (max-abs, relative L2,
cosine); exit code 10 otherwise. With --signers, the bundle must be as one of
them signed it.

With --dataset the bundle is given the observations of recorded episodes
instead, open loop: whatever it does, the next observation is the recorded one.
Its actions are compared with the recorded ones and, with --source, with
PyTorch's on the same observations and the same noise, per dimension of the
action in units of its spread: how far precision moves the robot, beside how far
the policy is from the demonstration anyway. Twice: the first action of the
chunk inferred at each frame, and what comes out of the queue if the bundle
replans only when it asks to. Differences are shown, not judged."""
EPILOG = """examples:
  vlacompile verify light.vlab
  vlacompile verify light.vlab --threads 1 --json
  vlacompile verify light.vlab --signers signers
  vlacompile verify nano.vlab --through tensorrt
  vlacompile verify pick.vlab --dataset datasets/pick
  vlacompile verify pick.vlab --dataset datasets/pick --source pretrained_model
  vlacompile verify pick.vlab --dataset datasets/pick --episode 3 --every 10

next: `vlacompile run BUNDLE` shows actions and latencies"""


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("--threads", type=thread_count, default=0, metavar="N",
                        help="threads of the inference engine (default: 0, its own choice)")
    parser.add_argument("--through", choices=("libvlart", "tensorrt"), default="libvlart",
                        help="what runs the stages; tensorrt: engines of TensorRT's Python API, built here, each stage "
                             "by itself (default: libvlart)")
    add_stand_in(parser)
    add_trust(parser)
    recorded = parser.add_argument_group("recorded episodes")
    recorded.add_argument("--dataset", metavar="DATASET",
                          help="a LeRobot dataset directory (v2.1, v3.0), at best the one that the policy was trained "
                               "on, and episodes that nothing was calibrated on")
    recorded.add_argument("--source", metavar="SOURCE", nargs="+", default=[],
                          help="what the bundle was built from, as for `vlacompile build`: run in PyTorch beside it")
    add_checkpoint_options(recorded)
    recorded.add_argument("--episode", type=thread_count, action="append", default=[], metavar="I",
                          help="the number of an episode; may be repeated (default: the first)")
    recorded.add_argument("--every", type=positive, default=1, metavar="N",
                          help="infer a chunk at every N-th frame only (default: 1)")
    recorded.add_argument("--picture", metavar="FILE",
                          help="the SVG of all dimensions over time (default: NAME-episodes.svg, here)")
    recorded.add_argument("--backbone", metavar="NAME",
                          help="which backbone to use, if there are several (default: the first)")


def run(args, terminal: Terminal) -> None:
    from vlacompile.cli import verify_episodes

    if args.dataset is not None:
        verify_episodes.run(args, terminal)
        return
    verify_episodes.require_no_options(args)
    with terminal.phases() as phases:
        phases("check the files")
        signature = trusted(args)
        from vlart.bundle.directory import check_files, read_bundle

        if args.through == "tensorrt":
            from vlacompile.check.tensorrt_python import verify_through_tensorrt

            report = verify_through_tensorrt(read_bundle(args.bundle), phases)
        else:
            check_files(read_bundle(args.bundle))
            phases("replay the golden frames")
            from vlart.verify.replay import verify

            report = verify(args.bundle, threads=args.threads, stand_in=args.stand_in, native_code=args.native_code)
    signed = {} if signature is None else {"signature": asdict(signature)}
    terminal.show(report.as_dict() | signed, lambda console: _print(console, report, signature, args.through))
    report.require()


def _print(console: Console, report, signature, through: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("value", overflow="fold")
    table.add_column("level", no_wrap=True)
    for title in ("max_abs / limit", "rel_l2", "cosine"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("pass", no_wrap=True)
    for v in report.values:
        table.add_row(v.value, v.level, f"{v.worst.max_abs:.1e} / {v.limit.max_abs:.1e}", f"{v.worst.rel_l2:.1e}",
                      f"{v.worst.cosine:.7f}", "yes" if v.passed else "NO", style=None if v.passed else "bold red")
    console.print(table)
    passed = sum(v.passed for v in report.values)
    runs = ", ".join(f"{name} {n}" for name, n in report.runs.items())
    console.print(f"\n{passed} of {len(report.values)} values pass over {report.frames} frames; runs: {runs}")
    if report.steps > 1:
        console.print(f"values are carried through up to {report.steps} steps in a row: their errors accumulate")
    if through == "tensorrt":
        console.print("each stage by itself, in an engine that TensorRT's Python API built here")
    if report.stand_in:
        console.print(STAND_IN)
    if signature is not None:
        print_signature(console, signature)
