"""Computes on the newest observation alone: what an earlier one gives is what was computed then."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from torch.fx import Node

from vlacompile.compiler.graph.delay import EarlierFrame, delay, frame_name
from vlacompile.compiler.graph.invariants import NO_EARLIER_FRAMES
from vlacompile.compiler.graph.minimum_cut import CutProblem, bytes_to_keep, recomputed_by_consumers
from vlacompile.compiler.graph.ops import flops, is_free, is_random, node_bytes
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult

# Bytes that a frame is kept in, rather than in a computed value that would need a stage of its own: to copy them once
# per observation costs less than to launch an engine.
KEEP_FRAME_BYTES = 65536


class _Shifts:
    """Which value of the graph is which other one, one observation later: the same op on the same weights, operand by
    operand, and frame i+1 in the place of frame i."""

    def __init__(self, program: Program):
        self.frames = {n: program.sources[program.inputs[n.name]] for n in program.graph.nodes if n.op == "placeholder"}
        self.age: dict[Node, int | None] = {}  # of the one observation that a value depends on; None: another set
        self.reads_earlier: set[Node] = set()
        self._later: dict[Node, Node | None] = {}
        first: dict[tuple, Node] = {}
        place = program.placeholders()
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            self.age[node] = self._age(node)
            if (self.age[node] or 0) > 0 or any(i in self.reads_earlier for i in node.all_input_nodes):
                self.reads_earlier.add(node)
            if node.op == "placeholder":
                source = self.frames[node]
                earlier = isinstance(source, EarlierFrame)
                self._later[node] = place[frame_name(source.of, source.age - 1)] if earlier else None
            elif self.age[node] == -1:
                self._later[node] = node
            else:
                first.setdefault(self._key(node, {i: i for i in node.all_input_nodes}), node)
        for node in program.graph.nodes:
            if node not in self._later and node.op != "output":
                inputs = {i: self._later[i] for i in node.all_input_nodes}
                known = None not in inputs.values() and not is_random(node)
                self._later[node] = first.get(self._key(node, inputs)) if known else None

    def _age(self, node: Node) -> int | None:
        """-1: of a constant."""
        if node.op == "placeholder":
            source = self.frames[node]
            return source.age if isinstance(source, EarlierFrame) else 0 if source.history > 1 else None
        ages = {self.age[i] for i in node.all_input_nodes} - {-1}
        return -1 if not ages else ages.pop() if len(ages) == 1 else None

    @staticmethod
    def _key(node: Node, inputs: dict[Node, Node]) -> tuple:
        def key(arg):
            if isinstance(arg, Node):
                return "node", inputs[arg].name
            if isinstance(arg, (list, tuple)):
                return tuple(key(a) for a in arg)
            return type(arg).__name__, repr(arg)

        return str(node.target), key(node.args), tuple((k, key(v)) for k, v in sorted(node.kwargs.items()))

    def newest(self, node: Node) -> Node | None:
        """The value that `node` is a delay of, or None."""
        steps = self.age[node]
        if not steps or steps < 0:
            return None
        for _ in range(steps):
            node = self._later[node]
            if node is None:
                return None
        return node


@dataclass(frozen=True)
class DelayFrames(GraphPass):
    """f(the observation before) becomes delay(f(the newest observation)): every frame of a history is encoded once.

    Exact for what depends on one observation (one frame of one or several histories, which advance together) and on
    constants alone. What also depends on the instruction, or on a source without history, is not delayed: the kept
    value would be of the old instruction. There the delay ends before, and the rest is computed for each frame. Where
    the delay lies is a minimum cut over the bytes to keep; what costs less than `min_flops` for all earlier frames
    together is computed again, since a stage that feeds a delay is launched for every observation.

    Before:
        %x = source "x" f32[1,4]
        %x_1_ago = source "x@1" f32[1,4]
        %w = weight "w" f32[4,4]
        %linear = linear(%x_1_ago, %w) f32[1,4]
        %linear_1 = linear(%x, %w) f32[1,4]
        %sub = sub.Tensor(%linear_1, %linear) f32[1,4]
        return action=%sub
    After:
        %x = source "x" f32[1,4]
        %w = weight "w" f32[4,4]
        %linear_1 = linear(%x, %w) f32[1,4]
        %delay = delay(%linear_1) f32[1,4]
        %sub = sub.Tensor(%linear_1, %delay) f32[1,4]
        return action=%sub
    """

    ensures = frozenset({NO_EARLIER_FRAMES})
    may_change = frozenset({Effect.DROPS_EARLIER_FRAMES})

    min_flops: int = 0

    def run(self, program: Program) -> PassResult:
        if not any(isinstance(s, EarlierFrame) for s in program.sources.values()):
            return PassResult(program, False)
        shifts = _Shifts(program)
        nodes = [n for n in program.graph.nodes if n.op != "output"]
        delayed = tuple(n for n in nodes if shifts.newest(n) is not None)
        again = recomputed_by_consumers(self._problem(program, delayed, shifts))
        kept, editor = self._rebuild(program, nodes, set(delayed) - again, shifts)
        left = {n: s for n, s in program.sources.items() if not isinstance(s, EarlierFrame)}
        inputs = {p: s for p, s in program.inputs.items() if s in left}
        result = replace(editor.finish(), sources=left, inputs=inputs)
        return PassResult(result, True, tuple(f"{n.name} is {newest.name} of {shifts.age[n]} observations before, "
                                              f"{node_bytes(n)} bytes" for n, newest in kept.items()))

    def _problem(self, program: Program, delayed: tuple[Node, ...], shifts: _Shifts) -> CutProblem:
        inside, work = set(delayed), _work_behind(delayed)
        frames = Counter(map(shifts.newest, delayed))  # how often what is computed once would be computed again

        def pinned(node: Node) -> bool:
            return node.op == "placeholder" or (
                not is_free(node) and work[node] * frames[shifts.newest(node)] >= self.min_flops)

        outputs = set(program.output_nodes())
        consumed = {n for n in delayed if n in outputs or any(u not in inside for u in n.users)}
        return CutProblem(delayed, consumed, {n for n in delayed if pinned(n)},
                          lambda n: bytes_to_keep(n) + (0 if n.op == "placeholder" else KEEP_FRAME_BYTES))

    def _rebuild(self, program: Program, nodes: list[Node], delayed: set[Node],
                 shifts: _Shifts) -> tuple[dict[Node, Node], ProgramEditor]:
        """Everything where it was, and what a delay begins with before it."""
        editor, kept, chains, done = ProgramEditor(program), {}, {}, set()
        place = {n: i for i, n in enumerate(nodes)}

        def copy(node: Node) -> None:
            missing, stack = {node}, [node]
            while stack:
                more = {i for i in stack.pop().all_input_nodes if i not in done} - missing
                missing |= more
                stack += more
            for n in sorted(missing, key=place.__getitem__):
                editor.keep(n)
            done.update(missing)

        def chain(node: Node, steps: int) -> Node:
            if node not in done:
                copy(node)
            last = editor.map(node)
            for k in range(1, steps + 1):
                if (node, k) not in chains:
                    chains[node, k] = editor.emit(delay, (last,), like=node, val=node.meta["val"])
                last = chains[node, k]
            return last

        needed = self._needed(program, delayed)
        for node in nodes:
            if node in done or (node not in needed and node.op != "placeholder"):
                continue
            if node in delayed and node in needed:
                kept[node] = shifts.newest(node)
                editor.replace(node, chain(kept[node], shifts.age[node]))
                done.add(node)
            elif node.op != "placeholder" or node not in shifts.reads_earlier:
                copy(node)
        return kept, editor

    @staticmethod
    def _needed(program: Program, delayed: set[Node]) -> set[Node]:
        """What an output needs, where a delayed value needs nothing."""
        stack, needed = list(program.output_nodes()), set()
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack += () if node in delayed else node.all_input_nodes
        return needed


def _work_behind(nodes: tuple[Node, ...]) -> dict[Node, int]:
    """FLOPs of a value and of all of `nodes` that it is made of, each counted once. What an operand does not share with
    the one that most is behind is added to it."""
    work: dict[Node, int] = {}
    behind: dict[Node, int] = {}  # bit i: nodes[i] is needed for it
    for i, node in enumerate(nodes):
        operands = [j for j in node.all_input_nodes if j in work]
        base = max(operands, key=work.__getitem__, default=None)
        known = behind[base] if base is not None else 0
        more = 1 << i
        for j in operands:
            more |= behind[j] & ~known
        behind[node], work[node] = known | more, work[base] if base is not None else 0
        while more:
            spend()
            last = more.bit_length() - 1
            work[node] += flops(nodes[last])
            more ^= 1 << last
    return work
