"""`vlacompile bisect BUNDLE STAGE`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlacompile.cli.arguments import add_checkpoint_options, checkpoint_options
from vlacompile.cli.sources import fetched, run_in
from vlacompile.cli.terminal import Terminal

SUMMARY = "find the first layer whose reduced precision leaves its limit"
DESCRIPTION = """Run one stage of a bundle layer by layer beside the same stage in full
precision, on the inputs of the golden frames, and name the first layer, in
topological order, whose output leaves its limit, with the policy's line. Exit
code 10 if there is one.

Full precision is another bundle of the same policy (--against), or the policy
itself (--source), which is traced again. Every value gets the same inputs in
both, so that errors of earlier stages do not count. On a board with TensorRT
and polygraphy (pip install 'vlacompile[jetson]') engines run the layers, else
ONNX Runtime does; TensorRT was not run on a GPU here."""
EPILOG = """examples:
  vlacompile bisect pick-int8.vlab fusion --against pick-fp32.vlab
  vlacompile bisect pick-fp16.vlab vision.wrist --source my_robot.policy:make
  vlacompile bisect pick-int8.vlab fusion --against pick-fp32.vlab --limit 0.05

next: a [[precision.rule]] in the recipe keeps the layer in full precision"""
MOST = 30  # rows of the table; --json has all
ENGINES = ("onnxruntime", "tensorrt")


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("stage", metavar="STAGE", help="its name, from `vlacompile inspect`")
    full = parser.add_mutually_exclusive_group(required=True)
    full.add_argument("--against", metavar="BUNDLE2", help="a bundle of the same policy in fp32")
    full.add_argument("--source", metavar="SOURCE", nargs="+", default=[],
                      help="what the bundle was built from, as for `vlacompile build`")
    parser.add_argument("--recipe", "-r", default="default", metavar="R",
                        help="with --source: what decides on its stages (default: default)")
    parser.add_argument("--limit", type=float, metavar="X",
                        help="largest error, as a share of what a value reaches and of its length (default: 0.02 for "
                             "fp16, 0.1 for 8 and 4 bits)")
    parser.add_argument("--engine", choices=ENGINES, default=None,
                        help="what runs the layers (default: tensorrt where it and polygraphy are installed)")
    add_checkpoint_options(parser)


def run(args, terminal: Terminal) -> None:
    from vlart.bundle.directory import check_files, read_bundle

    source = fetched(args, terminal, options=checkpoint_options(args)) if args.source else None
    if source is not None:
        from vlacompile.phases.load_policy import environment_for

        environment = environment_for(source, options=checkpoint_options(args))
        if environment is not None and environment.is_installed():
            run_in(environment, args, source)
    with terminal.phases() as phases, phases.asides(), tempfile.TemporaryDirectory() as folder:
        phases("check the files")
        bundle = read_bundle(args.bundle)
        check_files(bundle)
        from vlacompile.check.bisect import bisect, full_of_bundle, stage_of

        stage_of(bundle, args.stage)
        full = (full_of_bundle(read_bundle(args.against), args.stage) if source is None else
                _full_of_source(args, source, bundle, Path(folder), phases))
        found = bisect(bundle, args.stage, full, engine=args.engine, limit=args.limit, progress=phases)
    terminal.show(found.as_dict(), lambda console: _print(console, found))
    found.require()


def _full_of_source(args, source, bundle, folder: Path, phases):
    """The stage as it is before a precision is chosen."""
    import onnx_ir as ir

    from vlacompile.check.bisect import Full
    from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
    from vlacompile.phases.capture import capture
    from vlacompile.phases.find_stages import find_stages
    from vlacompile.phases.read_inputs import read_inputs
    from vlacompile.policy.source_lines import line_of
    from vlart.errors import ConfigError, nearest
    from vlart.verify.frames import golden_frames

    inputs = read_inputs(source, bundle.plan.target, args.recipe, folder / "none.vlab",
                         options=checkpoint_options(args), progress=phases)
    staged = find_stages(inputs, capture(inputs, progress=phases), progress=phases).staged
    names = [s.name for s in staged.stages]
    if args.stage not in names:
        raise ConfigError(f'the policy has no stage "{args.stage}" with this recipe', where=f"--recipe {args.recipe}",
                          why=nearest(args.stage, names), fix=f"the recipe of {args.bundle}: {bundle.plan.recipe}")
    stage = staged.stages[names.index(args.stage)]
    phases(f"export {stage.name} to ONNX")
    ir.save(emit_onnx(stage, inputs.target.backend).model, folder / "stage.onnx", external_data="weights.bin")
    lines = {n.name: line_of(n) for n in stage.graph.nodes if n.op == "call_function"}
    lines |= {f"{p.name}_out" if p.name not in lines else p.name: lines.get(p.name, "") for p in stage.outputs}
    return Full(folder / "stage.onnx", " ".join(args.source), golden_frames(bundle.path), lines)


def _print(console: Console, found) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("value", overflow="fold")
    for title in ("max_abs / limit", "rel_l2", "cosine"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("pass", no_wrap=True)
    last = len(found.layers)
    if found.first is not None:  # what is after the first only shows that it spreads
        last = min(last, found.layers.index(found.first) + 6)
    shown = found.layers[max(0, last - MOST):last]
    if found.layers[:max(0, last - MOST)]:
        console.print(f"{last - MOST} values before these pass or come back", style="dim")
    for x in shown:
        v = x.parity
        words = "yes" if v.passed else "comes back" if x.comes_back else "NO"
        table.add_row(x.value, f"{v.worst.max_abs:.1e} / {v.limit.max_abs:.1e}", f"{v.worst.rel_l2:.1e}",
                      f"{v.worst.cosine:.6f}", words, style="bold red" if x.at_fault else None)
    console.print(table)
    if last < len(found.layers):
        console.print(f"and {len(found.layers) - last} after them", style="dim")
    over = sum(x.at_fault for x in found.layers)
    console.print(f'\n{len(found.layers)} of {found.values} values of stage "{found.stage}" ({found.scheme}) compared '
                  f"in {found.runs} runs by {found.engine}; {over} over their limit")
    if found.first is not None:
        console.print(f"first: {found.first.value}, by {', '.join(dict.fromkeys(found.first.ops))}", style="bold")
        if found.first.line:
            console.print(f"  {found.first.line}")
