"""`vlacompile build SOURCE -o OUT.vlab`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from vlacompile.cli.arguments import STAND_IN, add_checkpoint_options, add_text_length, checkpoint_options
from vlacompile.cli.sign import print_signature
from vlacompile.cli.sources import HUB, fetched, run_in
from vlacompile.cli.stage_tables import stage_table
from vlacompile.cli.terminal import Terminal
from vlacompile.phases.phase import Phase
from vlart.bundle.plan.stage_rows import megabytes, stage_rows
from vlart.errors import UsageError

PHASES = tuple(str(p) for p in Phase)
LAST = str(Phase.PUBLISH)
SUMMARY = "compile a policy into a bundle"
DESCRIPTION = """Compile a policy into a bundle.

SOURCE is package.module:factory, where factory() returns a vlacompile.Policy
(the working directory is on the import path), an .onnx file (a file beside it
declares when each input changes), a checkpoint directory (`vlacompile
frontends` lists the supported kinds), or the name of one on the Hugging Face
Hub, org/name or org/name@revision. Before the bundle is written to OUT, it is
replayed through libvlart and compared with PyTorch; a build that fails leaves
OUT unchanged.

Several policies are compiled into one bundle with NAME=SOURCE for each. They
share every stage that they have in common; a session runs one at a time.

"""+HUB
EPILOG = """examples:
  vlacompile build my_robot.policy:make -o pick.vlab
  vlacompile build examples.libero_goal.policy:light -r libero-goal -o l.vlab
  vlacompile build policy.onnx
  vlacompile build light=SOURCE heavy=SOURCE -o pair.vlab
  vlacompile build checkpoint_dir -r int8 --calibrate datasets/pick
  vlacompile build checkpoint_dir -r int8 --calibrate a.mcap --topics robot.yaml
  vlacompile build checkpoint_dir --instructions tasks.txt --only-instructions
  vlacompile build my_robot.policy:make --stop-after find-stages
  vlacompile build outputs/train/act/checkpoints/last/pretrained_model
  vlacompile build lerobot/act_aloha_sim_transfer_cube_human -o act.vlab

next: `vlacompile inspect OUT` shows the stages, `vlacompile run OUT` runs it"""


def add_arguments(parser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="+",
                        help="package.module:factory, an .onnx file, a checkpoint directory, or org/name[@revision] on "
                             "the Hub; NAME=SOURCE for each one if there are several")
    parser.add_argument("--target", "-t", default="host", metavar="T",
                        help="the hardware to compile for: a name from `vlacompile targets`, or a .toml file "
                             "(default: host)")
    parser.add_argument("--recipe", "-r", default="default", metavar="R",
                        help="build options (precision, loops, tolerances): a name from `vlacompile recipes`, or a "
                             ".toml file (default: default)")
    parser.add_argument("--out", "-o", metavar="OUT", help="the bundle to write (default: the policy's name + .vlab)")
    parser.add_argument("--instructions", metavar="FILE",
                        help="instructions known at compile time, one per line: the outputs of the stages that depend "
                             "on the text alone are precomputed and stored in the bundle")
    parser.add_argument("--only-instructions", action="store_true",
                        help="accept no other instructions: the stages that depend on the text alone are left out of "
                             "the bundle")
    parser.add_argument("--calibrate", metavar="DATASET",
                        help="a LeRobot dataset directory (v2.1, v3.0), or a bag of ROS 2 (FILE.mcap, a directory of "
                             "rosbag2; with --topics): calibrate precisions, ranges and solvers on its observations, "
                             "instead of the policy's own or generated ones; golden frames are taken from them too")
    parser.add_argument("--topics", metavar="FILE",
                        help="of a bag: which topic is which input, as for the ROS 2 node (docs/ros2.md)")
    parser.add_argument("--sign", metavar="KEY",
                        help="sign the bundle, as `vlacompile sign --key` does")
    add_text_length(parser)
    add_checkpoint_options(parser)
    parser.add_argument("--stop-after", choices=PHASES, default=LAST, metavar="PHASE",
                        help="write no bundle; stop after this phase and print its result as text: "
                             + ", ".join(PHASES[:-1]))


def run(args, terminal: Terminal) -> None:
    from vlacompile.frontends.bags import require_recorded
    from vlacompile.frontends.environments import NeedsEnvironment
    from vlacompile.hardware.target import load_target
    from vlacompile.phases.load_policy import environment_for
    from vlacompile.recipe.recipe import load_recipe
    from vlart.bundle.directory import check_destination
    from vlart.bundle.precision_record import precision_of
    from vlart.runtime.library import libvlart, onnxruntime_library

    # Errors that would otherwise end the build late are raised before anything slow begins.
    load_recipe(args.recipe, load_target(args.target))
    if args.stop_after == LAST:
        libvlart(), onnxruntime_library()
    if args.out is not None:
        check_destination(Path(args.out))
    if args.sign is not None:
        _require_signing(args)
    if args.calibrate is not None:
        require_recorded(Path(args.calibrate), None if args.topics is None else Path(args.topics))
    options = checkpoint_options(args)
    source = fetched(args, terminal, options=options)
    environment = environment_for(source, options=options)
    if environment is None or not environment.is_installed():
        try:
            made, times = _build(source, args, terminal)
        except NeedsEnvironment as error:  # a factory asked for it
            environment = error.environment
            if not environment.is_installed():
                raise
    if environment is not None and environment.is_installed():
        run_in(environment, args, source)
    if args.stop_after != LAST:
        text = made.text()
        terminal.show({"phase": args.stop_after, "text": text, "seconds": times},
                      lambda console: console.out(text, end="", highlight=False))
        return
    bundle, signature = made, None
    if args.sign is not None:
        from vlart.bundle.signature import sign

        signature = sign(bundle, Path(args.sign))
    document = {
        "bundle": str(bundle.path), "bytes": bundle.bytes, "hash": bundle.hash, "policy": bundle.plan.name,
        "target": bundle.plan.target, "recipe": bundle.plan.recipe, "stages": stage_rows(bundle.plan),
        "origin": bundle.manifest["provenance"].get("origin", {}),
        "precision": precision_of(bundle.manifest["provenance"]),
        "staged_parity": bundle.manifest["provenance"]["staged_parity"], "parity": bundle.accepted.as_dict(),
        "hub": bundle.manifest["provenance"].get("hub", {}), "seconds": times,
    } | ({} if signature is None else {"signature": asdict(signature)})
    terminal.show(document, lambda console: _print(console, bundle, signature))


def _require_signing(args) -> None:
    """Raises UsageError, SignatureError."""
    from vlart.bundle.signature import require_signing

    if args.stop_after != LAST:
        raise UsageError("--sign and --stop-after exclude each other", where="vlacompile build",
                         why="no bundle is written that could be signed", fix="leave one of them out")
    require_signing(Path(args.sign))


def _build(source, args, terminal: Terminal):
    """The result of the last phase, and {line of progress: seconds}."""
    from vlacompile.policy.text import read_instructions

    instructions = read_instructions(args.instructions) if args.instructions else ()
    with terminal.phases() as phases, phases.asides():
        phases("load the compiler")
        from vlacompile.phases.read_inputs import read_inputs
        from vlacompile.pipeline import until

        inputs = read_inputs(source, args.target, args.recipe, args.out, instructions=instructions,
                             only_instructions=args.only_instructions, calibrate=args.calibrate,
                             topics=args.topics,
                             options=checkpoint_options(args), text_length=args.text_length, progress=phases)
        return until(Phase(args.stop_after), inputs, phases), phases.times


def _print(console: Console, bundle, signature) -> None:
    report = bundle.accepted
    console.print()
    console.print(stage_table(bundle.plan))
    console.print()
    for title, text in bundle.manifest["provenance"].get("origin", {}).items():
        console.print(f"{title}: {text}", soft_wrap=True)
    _print_precision(console, bundle)
    for v in report.values:
        if v.level == "chunk":
            console.print(f"parity   {v.value}: max_abs {v.worst.max_abs:.2g}, rel L2 {v.worst.rel_l2:.2g}, "
                          f"cosine {v.worst.cosine:.7f}")
    console.print(f"         libvlart against PyTorch, worst of {report.frames} frames", soft_wrap=True)
    if report.stand_in:
        console.print(f"         {STAND_IN}")
    for revision in bundle.manifest["provenance"].get("hub", {}).values():
        console.print(f"source   {revision}", soft_wrap=True)
    console.print(f"bundle   {_near(bundle.path)}  {megabytes(bundle.bytes)} MB", soft_wrap=True)
    if signature is not None:
        print_signature(console, signature)


def _print_precision(console: Console, bundle) -> None:
    """The precision that the recipe asked for, the one that was applied, and the error that it causes."""
    from vlart.bundle.precision_record import (
        carried_lines,
        error_lines,
        is_uncalibrated,
        precision_of,
        rotation_lines,
    )

    found = precision_of(bundle.manifest["provenance"])
    if found is None:
        return
    lines = [f"{bundle.plan.recipe} was asked", *carried_lines(found), *rotation_lines(found),
             error_lines(found)[0]]
    lines += ["flash and serve refuse it without --uncalibrated"] * is_uncalibrated(bundle)
    for i, line in enumerate(lines):
        console.print(f"{'' if i else 'precision':9} {line}", soft_wrap=True)


def _near(path: Path) -> Path:
    """The path relative to the working directory if it lies below it, else unchanged."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
