"""The number of evaluations of a denoising loop, and the solver: the cheapest pair whose action error is in budget.

The error is in action space, after the whole loop and all ops behind it: the root mean square difference to the chunk
of the loop as written, over all observations and steps of the chunk, in units of the standard deviation of that action
dimension over the same chunks; the worst dimension counts. On generated observations it is not a measurement, and every
note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import Interpreter, Node

from vlacompile.compiler.graph.program import Program, ProgramEditor, as_module
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.compiler.staging.action_scale import ActionScale
from vlacompile.compiler.staging.observations import Inputs, as_stacked, calibration
from vlacompile.compiler.staging.resample_loop import SOLVERS, EulerLoop, euler_loop, resample
from vlacompile.policy.policy import Policy
from vlacompile.recipe.recipe import LoopRecipe
from vlart.bundle.plan.plan import Sampling


@dataclass(frozen=True)
class SolverChoice:
    """program: with the chosen loop. sampling: None if the loop stays as written. notes: what was tried."""

    program: Program
    sampling: Sampling | None
    notes: tuple[str, ...]


def action_error(got: Sequence[torch.Tensor], want: Sequence[torch.Tensor]) -> float:
    """The action error (see the head of this file) between chunks [1,H,D], one per observation."""
    return float(ActionScale.of(want).errors(got, want).max())


def choose_solver(program: Program, policy: Policy, recipe: LoopRecipe, trace: Callable[[Policy], Program],
                  phase: Callable[[str], None]) -> SolverChoice:
    """Reduces the number of evaluations of the loop of `program`: by changing its graph if it is Euler's method,
    otherwise by the solvers that the policy provides. trace: policy -> program with its loop re-rolled. Raises no
    errors of its own."""
    if program.backbones:
        return _as_written(program, recipe.max_action_error, [], "the loops of several backbones are not shortened")
    observations = calibration(policy, recipe)
    by = "" if policy.calibration else " on generated observations"
    euler = euler_loop(program)
    if not isinstance(euler, str):
        return _of_flow(program, euler, observations, recipe.max_action_error, phase, by)
    if not policy.solvers:
        return _as_written(program, recipe.max_action_error, [], f"{euler}, and the policy brings no other solver")
    return _of_policy(program, policy, observations, recipe.max_action_error, trace, phase, by)


def _of_policy(program: Program, policy: Policy, observations: Sequence[Inputs], budget: float,
               trace: Callable[[Policy], Program], phase: Callable[[str], None], by: str) -> SolverChoice:
    def actions(other: Policy) -> list[torch.Tensor]:
        with torch.no_grad():
            return [other.infer(**as_stacked(other, inputs))[other.outputs[0]] for inputs in observations]

    written = next(n.target.iterations for n in program.graph.nodes if isinstance(n.target, RolledLoop))
    want, notes = actions(policy), []
    for evaluations in range(2, written):
        phase(f"try {evaluations} of {written} evaluations of the loop")
        tried = {name: make(evaluations) for name, make in policy.solvers.items()}
        errors = {name: action_error(actions(other), want) for name, other in tried.items()}
        notes += [f"{s} with {evaluations} of {written} evaluations: action error {e:.4g}{by}"
                  for s, e in errors.items()]
        best = min(errors, key=errors.__getitem__)
        if errors[best] <= budget:
            how = Sampling("steps", evaluations, best, written, errors[best], budget)
            return SolverChoice(_marked(trace(tried[best]), how, budget), how, tuple(notes))
    return _as_written(program, budget, notes, f"nothing cheaper stays within {budget:g}")


def _as_written(program: Program, budget: float, notes: list[str], why: str) -> SolverChoice:
    return SolverChoice(_marked(program, None, budget), None, (*notes, f"as written: {why}"))


def _marked(program: Program, how: Sampling | None, budget: float) -> Program:
    """Records `how` the loop is sampled. None: as written, with no error accepted out of this budget."""
    editor = ProgramEditor(program)
    for node in program.graph.nodes:
        if isinstance(node.target, RolledLoop):
            loop = replace(node.target, sampling=how or replace(node.target.how(), budget=budget))
            editor.replace(node, editor.emit(loop, editor.map_args(node.args), like=node, val=node.meta["val"]))
        elif node.op != "output":
            editor.keep(node)
    return editor.finish()


def _of_flow(program: Program, euler: EulerLoop, observations: Sequence[Inputs], budget: float,
             phase: Callable[[str], None], by: str) -> SolverChoice:
    runs = [_Run(program, euler.node, inputs) for inputs in observations]
    want = [run.action(run.written) for run in runs]
    written = euler.node.target.iterations
    notes = []
    for evaluations in range(1, written):
        phase(f"try {evaluations} of {written} evaluations of the loop")
        tried = {solver: resample(euler, solver, evaluations) for solver in SOLVERS[: 1 if evaluations == 1 else 2]}
        errors = {s: action_error([run.action(t.run(*run.operands)) for run in runs], want) for s, t in tried.items()}
        notes += [f"{s} with {evaluations} of {written} evaluations: action error {e:.4g}{by}"
                  for s, e in errors.items()]
        best = min(errors, key=errors.__getitem__)
        if errors[best] <= budget:
            how = Sampling("steps", evaluations, best, written, errors[best], budget)
            chosen = replace(tried[best], loop=replace(tried[best].loop, sampling=how))
            return SolverChoice(chosen.put_into(program, euler.node), how, tuple(notes))
    return _as_written(program, budget, notes, f"nothing cheaper stays within {budget:g}")


class _Run:
    """One observation: values up to the loop are computed once, the ops behind the loop as often as asked."""

    def __init__(self, program: Program, loop: Node, inputs: Inputs):
        self.program, self.loop = program, loop
        module = as_module(program)
        behind = _behind(loop)
        read = {i for n in behind for i in n.all_input_nodes} | set(loop.all_input_nodes)
        keep = {n.name for n in read - behind}
        self.kept: dict[str, torch.Tensor] = {}
        recorder = _Recorder(module, keep, {loop.name} | {n.name for n in behind}, self.kept)
        order = [inputs[program.inputs[n.name]] for n in program.graph.nodes if n.op == "placeholder"]
        with torch.no_grad():
            recorder.run(*order)
        self.module, self.behind = module, [n.name for n in program.graph.nodes if n in behind]
        values = lambda nodes: tuple(self.kept[n.name] for n in nodes)
        self.operands = values(loop.args[0]), values(loop.args[1]), values(loop.args[2])

    @property
    def written(self) -> tuple:
        with torch.no_grad():
            return self.loop.target(*self.operands)

    def action(self, carried: tuple) -> torch.Tensor:
        """The first output, given that the loop ended with the values `carried`."""
        nodes = {n.name: n for n in self.module.graph.nodes}
        replay = Interpreter(self.module)
        replay.env = {nodes[k]: v for k, v in self.kept.items()} | {nodes[self.loop.name]: carried}
        with torch.no_grad():
            for name in self.behind:
                replay.env[nodes[name]] = replay.run_node(nodes[name])
        return replay.env[nodes[self.program.output_nodes()[0].name]]


class _Recorder(Interpreter):
    def __init__(self, module, keep: set[str], skip: set[str], kept: dict[str, torch.Tensor]):
        super().__init__(module)
        self.keep, self.skip, self.kept = keep, skip, kept

    def run_node(self, n: Node):
        if n.name in self.skip or n.op == "output":
            return None
        result = super().run_node(n)
        if n.name in self.keep:
            self.kept[n.name] = result
        return result


def _behind(loop: Node) -> set[Node]:
    found: set[Node] = set()
    stack = list(loop.users)
    while stack:
        n = stack.pop()
        if n not in found and n.op != "output":
            found.add(n)
            stack.extend(n.users)
    return found


