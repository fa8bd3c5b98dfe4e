"""Adds real-time chunking's guidance to a policy that samples a flow by Euler's method (Black et al. 2025, arXiv
2506.07339).

In every iteration the sample at the end of the flow is estimated from the velocity, and the velocity is corrected
towards what the robot has not executed yet of the previous chunk, where the prefix weights say so. As in LeRobot's
RTCProcessor (0.4.4 to 0.6.1) the Jacobian of the estimate is the identity: LeRobot computes the velocity before the
sample requires a gradient. So the correction is elementwise, and nothing is differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.capture.history import newest_of
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import Program, ProgramEditor, execute, infer_val
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.compiler.staging.resample_loop import EulerLoop, euler_loop
from vlacompile.policy.action_decoding import Delta, Guidance
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.source_lines import line_of
from vlart.errors import StagingError

_ATEN = torch.ops.aten
# names of the sources that the runtime fills, and of the value that the first of them continues
PREVIOUS, WEIGHTS, CHUNK = "realtime.previous", "realtime.weights", "realtime.chunk"
MAX_GUIDANCE = 10.0  # LeRobot's max_guidance_weight
_COPIES = frozenset({_ATEN.alias.default, _ATEN.clone.default, _ATEN.detach.default})


@dataclass(frozen=True)
class Guided:
    """program, policy: with two more sources, PREVIOUS and WEIGHTS, and the program with one more output, CHUNK. The
    policy's function does not read them: it is the reference of the program without guidance."""

    program: Program
    policy: Policy
    note: str


@dataclass(frozen=True)
class _Part:
    """What of the final sample [1,T,D] becomes the chunk [1,H,N]: from this row and this column on."""

    node: Node
    row: int
    column: int


def guide_flow(program: Program, policy: Policy, max_guidance: float) -> Guided:
    """program: with its loops re-rolled. max_guidance: upper bound of the factor of the correction. Raises
    StagingError if the policy is not one flow that becomes the chunk."""
    euler = euler_loop(program)
    if isinstance(euler, str):
        raise _refusal(program, f"it is not sampled by Euler's method: {euler}")
    part = _part(program, euler.node)
    why = _why_not(program, policy, euler, part)
    if why is not None:
        raise _refusal(program, why)
    guided = _rewritten(program, euler, part, max_guidance)
    example = _example(program, policy, part)
    return Guided(guided, _with_sources(policy, example),
                  f"added to the {euler.node.target.iterations} iterations, at most {max_guidance:g} times the error")


def _refusal(program: Program, why: str) -> StagingError:
    return StagingError("guidance of real-time chunking cannot be added to this policy",
                        where=f'{line_of(program.output_nodes()[0])}: output "{program.outputs[0]}"', why=why,
                        fix="set action.max_guidance = 0: chunks then replace each other without guidance")


def _why_not(program: Program, policy: Policy, euler: EulerLoop, part: _Part) -> str | None:
    if program.backbones:
        return "a bundle of several backbones has no single flow"
    taken = {PREVIOUS, WEIGHTS, CHUNK} & {*program.sources, *program.outputs}
    if taken:
        return f'the policy itself has a value named "{min(taken)}"'
    deps, start = dependencies(program), euler.node.args[0][0]
    if any(program.sources[n].update != "step" for n in deps[start]) or not deps[start]:
        return "the loop does not begin with noise, or its first iteration is computed apart"
    if any(s * sum(euler.steps) <= 0 for s in euler.steps):
        return "the steps of the loop do not all go forward"
    sample, chunk, action = (n.meta["val"] for n in (start, part.node, program.output_nodes()[0]))
    if sample.dim() != 3 or sample.shape[0] != 1 or action.shape[:2] != chunk.shape[:2]:
        return f"the sample {list(sample.shape)} is not cut to the steps of the chunk {list(action.shape)} as it is"
    if policy.decoder is not None and any(isinstance(s, Delta) for s in policy.decoder.steps):
        return "its actions are relative to the state: the previous chunk's to an older one"
    return _relative(program, part, deps)


def _relative(program: Program, part: _Part, deps: Mapping[Node, frozenset[str]]) -> str | None:
    """Whether between sample and action something else than constants is added: then equal samples of two replans are
    not equal actions."""
    after = {part.node}
    for node in program.graph.nodes:
        if node.op == "call_function" and any(i in after for i in node.all_input_nodes):
            after.add(node)
            others = sorted(set().union(*(deps[i] for i in node.all_input_nodes if i not in after)))
            if others:
                return f"its actions depend on {', '.join(others)} beside the sample ({line_of(node)})"
    return None


def _part(program: Program, loop: Node) -> _Part:
    """Follows the sample from the loop to the first op that computes with it."""
    output = program.output_nodes()[0]
    needed, stack = set(), [output]
    while stack:
        n = stack.pop()
        if n not in needed:
            needed.add(n)
            stack.extend(n.all_input_nodes)
    node, at = loop, [0, 0, 0]
    while node is not output:
        readers = [u for u in node.users if u in needed]
        if len(readers) != 1:
            break
        after = readers[0]
        if node is loop or after.target in _COPIES:
            node = after
            continue
        cut = _cut(after, node)
        if cut is None:
            break
        at[cut[0]] += cut[1]
        node = after
    return _Part(node, at[1], at[2])


def _cut(node: Node, of: Node) -> tuple[int, int] | None:
    """(dimension, first index) if `node` is a run of consecutive rows or columns of a sample; else None."""
    if node.target is not _ATEN.slice.Tensor or of.meta["val"].dim() != 3:
        return None
    dim, start, _, step = (*node.args[1:], *(0, None, None, 1)[len(node.args) - 1:])
    length = of.meta["val"].shape[dim]
    return (dim % 3, range(length)[slice(start, None)].start) if step == 1 else None


def _rewritten(program: Program, euler: EulerLoop, part: _Part, max_guidance: float) -> Program:
    editor = ProgramEditor(program)
    steps, width = part.node.meta["val"].shape[1:]
    shapes = {PREVIOUS: (1, steps, width), WEIGHTS: (1, steps, 1)}
    ports = {}
    for node in (n for n in program.graph.nodes if n.op == "placeholder"):
        editor.keep(node)
    for name, shape in shapes.items():
        ports[name] = editor.graph.placeholder(name.replace(".", "_"))
        ports[name].meta["val"] = torch.empty(shape, device="meta")
    for node in program.graph.nodes:
        if node is euler.node:
            editor.replace(node, _loop(editor, euler, part, max_guidance, ports))
        elif node.op not in ("placeholder", "output"):
            editor.keep(node)
    outputs = (*(editor.map(n) for n in program.output_nodes()), editor.map(part.node))
    guided = editor.finish(outputs)
    return replace(guided, outputs=(*program.outputs, CHUNK),
                   sources=dict(program.sources) | dict.fromkeys(shapes, Source("observation")),
                   inputs=dict(program.inputs) | {ports[n].name: n for n in shapes})


def _loop(editor: ProgramEditor, euler: EulerLoop, part: _Part, max_guidance: float,
          ports: Mapping[str, Node]) -> Node:
    """The loop with guidance. Where the chunk is a part of the sample, the rest of the sample is drawn to 0, as
    LeRobot pads the previous chunk."""
    loop: RolledLoop = euler.node.target
    carried, tables, invariants = euler.node.args
    rows, columns = carried[0].meta["val"].shape[1:]
    steps, width = ports[PREVIOUS].meta["val"].shape[1:]
    over, beside = (part.row, rows - part.row - steps), (part.column, columns - part.column - width)

    def padded(node: Node, pads: tuple[int, ...]) -> Node:
        return editor.emit(_ATEN.constant_pad_nd.default, (node, list(pads), 0.0)) if any(pads) else node

    previous = padded(ports[PREVIOUS], (*beside, *over))
    weights = padded(ports[WEIGHTS], (0, 0, *over))
    factors, left = guidance_factors(euler.steps, max_guidance)
    added = (editor.constant("guidance_factors", torch.tensor(factors)),
             editor.constant("guidance_left", torch.tensor(left)))
    guided = replace(loop, body=_body(loop, euler), tables=loop.tables + len(added))
    operands = (tuple(map(editor.map, carried)), (*map(editor.map, tables), *added),
                (*map(editor.map, invariants), previous, weights))
    return editor.emit(guided, operands, like=euler.node, val=euler.node.meta["val"])


def guidance_factors(steps: tuple[float, ...], most: float) -> tuple[list[float], list[float]]:
    """Per iteration: (factor of the correction of the velocity, what is left of the flow's time). The former is
    min(most, (1 - tau) / tau * ((1 - tau)^2 + tau^2) / (1 - tau)^2) with tau the share of the time that has passed (eq.
    2 and 4 of the paper), for a flow whose time goes from 0 to 1; for another it is divided by its whole time."""
    whole, factors, remaining = math.fsum(steps), [], []
    for k in range(len(steps)):
        left = math.fsum(steps[k:])
        share = left / whole
        tau = 1 - share if k else 0.0
        factor = (share / tau) * ((share**2 + tau**2) / share**2) if tau > 0 else math.inf
        factors.append(min(most, factor) / whole)
        remaining.append(left)
    return factors, remaining


def _body(loop: RolledLoop, euler: EulerLoop) -> Graph:
    """velocity -> velocity + factor * weights * (previous - (sample + left * velocity))"""
    graph, copied = Graph(), {}
    old = loop.placeholders()
    begin = loop.carried + loop.tables

    def port(name: str, val: torch.Tensor) -> Node:
        node = graph.placeholder(name)
        node.meta["val"] = val
        return node

    def op(target: Callable, *args: Node) -> Node:
        node = graph.call_function(target, args)
        node.meta["val"] = infer_val(node)
        return node

    sample, number = old[0].meta["val"], torch.empty((), device="meta")
    copied |= {p: port(p.name, p.meta["val"]) for p in old[:begin]}
    factor, left = port("guidance_factor", number), port("guidance_left", number)
    copied |= {p: port(p.name, p.meta["val"]) for p in old[begin:]}
    previous = port("guidance_previous", sample)
    weights = port("guidance_weights", torch.empty((1, sample.shape[1], 1), device="meta"))
    for n in (n for n in loop.body.nodes if n.op == "call_function"):
        seen = copied
        if n is euler.reader:
            velocity = copied[euler.velocity]
            end = op(_ATEN.add.Tensor, copied[old[0]], op(_ATEN.mul.Tensor, velocity, left))
            error = op(_ATEN.mul.Tensor, op(_ATEN.sub.Tensor, previous, end), weights)
            seen = copied | {euler.velocity: op(_ATEN.add.Tensor, velocity, op(_ATEN.mul.Tensor, error, factor))}
        copied[n] = graph.node_copy(n, seen.__getitem__)
    graph.output(tuple(copied[n] for n in loop.next_values()))
    return graph


def _example(program: Program, policy: Policy, part: _Part) -> dict[str, torch.Tensor]:
    """A chunk that the policy itself gives, and weights that fall from 1 to 0."""
    inputs = newest_of(dict(policy.sources), policy.example_inputs)
    _, kept = execute(program, inputs, keep={part.node.name})
    chunk = kept[part.node.name].detach().to(torch.float32).contiguous().clone()
    weights = torch.linspace(1, 0, chunk.shape[1] + 2)[1:-1].reshape(1, -1, 1)
    return {PREVIOUS: chunk, WEIGHTS: weights.contiguous()}


def _with_sources(policy: Policy, example: Mapping[str, torch.Tensor]) -> Policy:
    written = policy.observe

    def observe(**inputs: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return written(**{n: t for n, t in inputs.items() if n not in example})

    return replace(policy, observe=observe, guidance=Guidance(PREVIOUS, WEIGHTS, CHUNK),
                   sources=dict(policy.sources) | dict.fromkeys(example, Source("observation")),
                   example_inputs=dict(policy.example_inputs) | dict(example),
                   calibration=tuple(dict(x) | dict(example) for x in policy.calibration))
