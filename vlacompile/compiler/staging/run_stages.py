"""Runs stages in PyTorch, in the way in which libvlart runs their engines.

Owns the execution order, the loops and the histories. Calibration, the recording of golden vectors and trials of
precisions run stages through here, and can observe every value of their graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.fx import GraphModule, Node

from vlacompile.compiler.graph.node_by_node import NodeByNode
from vlacompile.compiler.staging.stages import Staged, StageGraph

Values = dict[str, torch.Tensor]
# (stage, node of its graph, result), once per iteration; a returned value replaces the result, None keeps it
Observer = Callable[[StageGraph, Node, object], object]


class StageRunner:
    """Holds no state between calls: the caller owns `past`.

    staged: the stages' graphs as they are now; build another runner after changing them. callable_of: compiles a stage
    to a callable; by default its GraphModule. Stages that are compiled in another way cannot be observed.
    """

    def __init__(self, staged: Staged, callable_of: Callable[[StageGraph], Callable] | None = None):
        self.staged = staged
        self._callable_of = callable_of or stage_module
        self._callables: dict[str, Callable] = {}  # {stage: it}, made when it is first called without an observer
        self._observed: dict[str, NodeByNode] = {}  # likewise, with one
        self._before = {after: before for before, after in staged.delays}

    def run(self, inputs: Mapping[str, torch.Tensor], past: Values | None = None, *, known: Values | None = None,
            observe: Observer | None = None) -> Values:
        """All values of one replan by name, including sources and constants.

        past: values of the previous observation, which delays read, and carried values; empty before the first
        observation, updated for the next call. A carried value that is among `inputs` is what it is there. known:
        values of an earlier call; a stage whose outputs are all among them is not run. observe: called for every node
        of every graph that is run.
        """
        carried = self.staged.program.carried
        begin = {n: (past or {}).get(n, s.initial) for n, s in carried.items() if n not in inputs}
        values: Values = {**self.staged.constants, **(known or {}), **begin, **inputs}
        with torch.no_grad():
            for stage in self.staged.stages:
                if known is None or any(p.value not in known for p in stage.outputs):
                    self._run_stage(stage, values, past or {}, observe)
        earlier = {after: self.read(after, values, past or {}) for _, after in self.staged.delays}
        if past is not None:
            past.update({after: self.read(before, values, past) for before, after in self.staged.delays})
            past.update({n: values[s.next] for n, s in carried.items()})
        return values | earlier

    def still_valid(self, before: Mapping[str, torch.Tensor], inputs: Mapping[str, torch.Tensor],
                    values: Values) -> Values:
        """Of the values that a run on the inputs `before` gave, those of stages that read the same bytes in `inputs`:
        libvlart does not run them again. For stages that do not look back."""
        same = {n for n, t in inputs.items() if n in before and t.numpy().tobytes() == before[n].numpy().tobytes()}
        return {p.value: values[p.value] for s in self.staged.stages if same.issuperset(s.sources) for p in s.outputs}

    def read(self, name: str, values: Values, past: Values) -> torch.Tensor:
        """A value; for a delay its value of the previous observation, or at the first observation its current one."""
        while name in self._before:
            if name in past:
                return past[name]
            name = self._before[name]
        return values[name]

    def _run_stage(self, stage: StageGraph, values: Values, past: Values, observe: Observer | None) -> None:
        carried = {c.input: self.read(c.initial, values, past) for c in stage.carries}
        gathers, rows = any(p.mode == "row" for p in stage.outputs), []
        for k in range(stage.iterations):
            args = []
            for i, port in enumerate(stage.inputs):
                if port.mode == "carry":
                    args.append(carried[i])
                else:
                    value = self.read(port.value, values, past)
                    args.append(value[k] if port.mode == "row" else value)
            outputs = self._call(stage, args, observe)
            carried = {c.input: outputs[c.output] for c in stage.carries}
            rows += [outputs] if gathers else []
            if stage.end is not None and bool(outputs[stage.end.carried]):
                break
        values.update({p.value: torch.stack([row[i] for row in rows]) if p.mode == "row" else outputs[i]
                       for i, p in enumerate(stage.outputs)})

    def _call(self, stage: StageGraph, args: list[torch.Tensor], observe: Observer | None) -> tuple:
        if observe is not None:
            if stage.name not in self._observed:
                self._observed[stage.name] = NodeByNode(stage.graph, stage.constants)
            return tuple(self._observed[stage.name].run(args, lambda node, result: observe(stage, node, result)))
        if stage.name not in self._callables:
            self._callables[stage.name] = self._callable_of(stage)
        return tuple(self._callables[stage.name](*args))


def stage_module(stage: StageGraph) -> GraphModule:
    """With the constants as buffers."""
    root = torch.nn.Module()
    for name, tensor in stage.constants.items():
        root.register_buffer(name, tensor, persistent=False)
    return GraphModule(root, stage.graph)
