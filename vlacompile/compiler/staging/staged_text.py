"""Stages as text: what each one reads, computes and returns, one line per node."""

from __future__ import annotations

from vlacompile.compiler.graph.program import graph_lines
from vlacompile.compiler.staging.stages import Port, Staged, StageGraph


def staged_text(staged: Staged) -> str:
    """Every stage in execution order, then the values that cross between stages."""
    values = [f'value "{name}" {kind}' + (" constant" if name in staged.constants else "")
              for name, kind in staged.types.items()]
    delays = [f'delay "{a}" becomes "{b}" when the histories advance' for a, b in staged.delays]
    delays += [f'carried "{n}" is "{s.next}" of the step before, until the {s.until} ends'
               for n, s in staged.program.carried.items()]
    return "\n".join([*(_stage_text(s, staged.program.parameters) for s in staged.stages), *values, *delays]) + "\n"


def _stage_text(stage: StageGraph, parameters: frozenset[str]) -> str:
    runs = f" x{stage.iterations}" if stage.iterations > 1 else ""
    serves = f" serves {', '.join(stage.backbones)}" if stage.backbones else ""
    lines = [f'stage "{stage.name}"{runs} depends on {", ".join(stage.sources) or "nothing"}{serves}']
    lines += [f'  reads %{p.name} = "{p.value}"{_mode(p)}' for p in stage.inputs]
    lines += [f"  {line}" for line in graph_lines(stage.graph, stage.constants, parameters)]
    outputs = stage.graph.output_node().args[0]
    lines += [f'  gives "{p.value}" = %{n.name}{_mode(p)}' for p, n in zip(stage.outputs, outputs, strict=True)]
    lines += [f"  {p.group}: {p.layers} layers in {p.scheme}, by {p.decider}" for p in stage.precisions]
    return "\n".join(lines) + "\n"


def _mode(port: Port) -> str:
    return "" if port.mode == "whole" else f" by {port.mode}"
