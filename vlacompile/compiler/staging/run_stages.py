"""Runs stages in PyTorch, in the way in which libvlart runs their engines.

Owns the execution order, the loops and the histories. Calibration, the recording of golden vectors and trials of
precisions run stages through here, and can observe every value of their graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.fx import GraphModule, Interpreter, Node

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
        self._modules = {s.name: (callable_of or stage_module)(s) for s in staged.stages}
        self._before = {after: before for before, after in staged.delays}

    def run(self, inputs: Mapping[str, torch.Tensor], past: Values | None = None, *, known: Values | None = None,
            observe: Observer | None = None) -> Values:
        """All values of one replan by name, including sources and constants.

        past: values of the previous observation, which delays read; empty before the first observation, updated for the
        next call. known: values of an earlier call; a stage whose outputs are all among them is not run. observe:
        called for every node of every graph that is run.
        """
        values: Values = {**self.staged.constants, **(known or {}), **inputs}
        with torch.no_grad():
            for stage in self.staged.stages:
                if known is None or any(p.value not in known for p in stage.outputs):
                    self._run_stage(stage, values, past or {}, observe)
        earlier = {after: self.read(after, values, past or {}) for _, after in self.staged.delays}
        if past is not None:
            past.update({after: self.read(before, values, past) for before, after in self.staged.delays})
        return values | earlier

    def read(self, name: str, values: Values, past: Values) -> torch.Tensor:
        """A value; for a delay its value of the previous observation, or at the first observation its current one."""
        while name in self._before:
            if name in past:
                return past[name]
            name = self._before[name]
        return values[name]

    def _run_stage(self, stage: StageGraph, values: Values, past: Values, observe: Observer | None) -> None:
        carried = {c.input: self.read(c.initial, values, past) for c in stage.carries}
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
        values.update({p.value: t for p, t in zip(stage.outputs, outputs, strict=True)})

    def _call(self, stage: StageGraph, args: list[torch.Tensor], observe: Observer | None) -> tuple:
        module = self._modules[stage.name]
        if observe is None:
            return tuple(module(*args))
        return tuple(_Observed(module, lambda n, result: observe(stage, n, result)).run(*args))


class _Observed(Interpreter):
    def __init__(self, module: GraphModule, tell: Callable[[Node, object], None]):
        super().__init__(module)
        self.tell = tell

    def run_node(self, n: Node):
        result = super().run_node(n)
        told = None if n.op == "output" else self.tell(n, result)
        return result if told is None else told


def stage_module(stage: StageGraph) -> GraphModule:
    root = torch.nn.Module()
    for name, tensor in stage.constants.items():
        root.register_buffer(name, tensor, persistent=False)
    return GraphModule(root, stage.graph)
