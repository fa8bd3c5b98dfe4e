"""`vlacompile check --tensorrt BUNDLE`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlacompile.cli.terminal import Terminal
from vlart.arguments import positive
from vlart.files.atomic import write_file

SUMMARY = "compile a board's stages with NVIDIA's compiler, without a board"
DESCRIPTION = """Compile every stage of a bundle for a board with NVIDIA's TensorRT-RTX, ahead
of time and without a GPU, for SM86 (the closest to Orin's SM87 that it
supports). Each stage is compiled in a process of its own, and the engine is
compared with the plan: bytes of weights, activation memory, number of INT8
matrix products, fused INT4 weights and fused attentions. A pass means that the
compiler accepts the graph; it says nothing about speed, accuracy or Orin.
Needs the extra: pip install 'vlacompile[rtx]'. Exit code 7 when a stage fails."""
EPILOG = """examples:
  vlacompile check --tensorrt pick.vlab
  vlacompile check --tensorrt pick.vlab --record profiles/rtx/pick.json

next: on the board, vlart-build BUNDLE builds the engines"""


def add_arguments(parser) -> None:
    parser.add_argument("--tensorrt", metavar="BUNDLE", required=True, help="a NAME.vlab directory, built for a board")
    parser.add_argument("--seconds", type=positive, default=None, metavar="N",
                        help="time limit per stage in seconds (default: 900)")
    parser.add_argument("--record", metavar="FILE", help="also write the result to a .json file")
    parser.add_argument("--python", metavar="PATH", default=None,
                        help="Python interpreter with tensorrt_rtx (default: this one)")


def run(args, terminal: Terminal) -> None:
    with terminal.phases() as phases:
        phases("check the files")
        import sys

        from vlacompile.check.tensorrt import check_bundle

        report = check_bundle(args.tensorrt, seconds=args.seconds, python=args.python or sys.executable,
                              progress=phases)
    if args.record:
        path = Path(args.record)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, (json.dumps(report.as_dict(), indent=1, sort_keys=True) + "\n").encode())
    terminal.show(report.as_dict(), lambda console: _print(console, report))
    report.require()


def _print(console: Console, report) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", overflow="fold")
    for title in ("weights MB", "activ. MB", "INT8", "INT4", "attn."):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    for s in report.stages:
        counts = [f"{c.found}/{c.planned}" for c in s.counts] or ["-"] * 3
        result = "pass" if s.passed else s.refusal["kind"] if s.refusal is not None else "NOT AS PLANNED"
        table.add_row(s.stage, f"{s.weight_bytes / 1e6:.2f}/{s.build.weight_bytes / 1e6:.2f}",
                      f"{s.activation_bytes / 1e6:.1f}<{s.build.activation_bytes / 1e6:.1f}", *counts, result,
                      style=None if s.passed else "bold red")
    console.print(table)
    compiler = next((s.compiler for s in report.stages if s.compiler), "")
    good = sum(s.passed for s in report.stages)
    from vlacompile.check.tensorrt import LABEL

    console.print(f"\n{good} of {len(report.stages)} stages: {LABEL}" + (f" ({compiler})" if compiler else ""))
