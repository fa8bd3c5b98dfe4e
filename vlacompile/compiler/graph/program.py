"""The traced policy as one graph: what graph passes and staging work on.

Owns `Program`, its text form and its execution in PyTorch. The graph is FX over ATen ops
(`torch.export` followed by `run_decompositions({})`); constants are named tensors. Must not
know stages or backends.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.carried import CarriedSource, carried_in
from vlacompile.compiler.graph.delay import delay
from vlacompile.compiler.graph.node_by_node import NodeByNode
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.files.mapped import mapped
from vlacompile.policy.policy import TORCH_DTYPES, Source

ITERATION = "iteration"  # in the meta of an op of a loop that was traced in part: (number of the loop, iteration)
KEPT = ("nn_module_stack", "stack_trace", ITERATION)  # of what an op's meta says, for what is emitted in its place


@dataclass(frozen=True)
class Program:
    """A functional graph: placeholders are sources, get_attr nodes are constants, and the output
    node's args are the policy outputs in the order of `outputs`.

    parameters: constants that are weights of the model as it was given (not computed from others).
    iterations: {number of a loop of which only the first iterations were traced: how often it runs}.
    backbones: {name: output}, as Policy's.
    notes: what of the function is not in the graph, for the report of a build.
    """

    name: str
    graph: Graph
    constants: Mapping[str, torch.Tensor]
    sources: Mapping[str, Source]
    inputs: Mapping[str, str]  # placeholder name -> source name
    outputs: tuple[str, ...]
    parameters: frozenset[str] = field(default=frozenset())
    iterations: Mapping[int, int] = field(default_factory=dict)
    backbones: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def actions(self) -> tuple[str, ...]:
        """The outputs that become actions: one of each backbone."""
        return tuple(self.backbones.values()) or self.outputs[:1]

    def action_in(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[1,H,D] among named values; of several backbones their dimensions behind each other."""
        return torch.cat([values[n] for n in self.actions], -1) if self.backbones else values[self.outputs[0]]

    @property
    def carried(self) -> dict[str, CarriedSource]:
        """{source: what of the step before it is}"""
        return carried_in(self.sources)

    def output_nodes(self) -> tuple[Node, ...]:
        return tuple(self.graph.output_node().args[0])

    def placeholders(self) -> dict[str, Node]:
        """{source name: placeholder}"""
        return {self.inputs[n.name]: n for n in self.graph.nodes if n.op == "placeholder"}


class ProgramEditor:
    """Copies a program node by node, so that a pass never mutates its input.

    Use `keep` for nodes that stay as they are, `map` to look up the new node of an old one, `emit` for new nodes,
    `replace` to say what stands for an old node, and `finish` for the result without dead nodes. What is kept is copied
    when something reads it: a pass that finds nothing to do copies nothing.
    """

    def __init__(self, program: Program):
        self.program = program
        self.constants = dict(program.constants)
        self._graph = Graph()
        self._kept: list[Node] = []  # not copied yet
        self._map: dict[Node, Node] = {}
        self._const_nodes: dict[str, Node] = {}
        self._weights: set[str] = set()
        self._types: dict[tuple, object] = {}  # by op and what is known of its operands

    @property
    def graph(self) -> Graph:
        """The new graph, with all that is kept so far."""
        for node in self._kept:
            self._map[node] = self._graph.node_copy(node, self._map.__getitem__)
        self._kept.clear()
        return self._graph

    def keep(self, node: Node) -> None:
        spend()
        self._kept.append(node)

    def map(self, old: Node) -> Node:
        spend()
        if old not in self._map:
            _ = self.graph
        return self._map[old]

    def map_args(self, args):
        return map_arg(args, self.map)

    def copy(self, node: Node) -> Node:
        self.keep(node)
        return self.map(node)

    def replace(self, old: Node, new: Node) -> None:
        self._map[old] = new

    def emit(self, target, args: tuple, kwargs: dict | None = None, like: Node | None = None, val=None) -> Node:
        spend()
        name = op_name(target).split(".")[0]
        node = self.graph.create_node("call_function", target, args, kwargs or {}, name=name)
        if like is not None:
            node.meta = {k: v for k, v in like.meta.items() if k in KEPT}
        node.meta["val"] = self._type_of(node) if val is None else val
        return node

    def _type_of(self, node: Node):
        """PyTorch is asked once for ops that are alike, as those on the parts of a concatenation are."""
        key = (node.target, _typed(node.args), _typed(node.kwargs))
        if key not in self._types:
            self._types[key] = infer_val(node)
        return self._types[key]

    def constant(self, name: str, tensor: torch.Tensor) -> Node:
        """A get_attr node for `tensor`; one node per name."""
        if name not in self._const_nodes:
            self.constants[name] = tensor = mapped(tensor)
            node = self.graph.get_attr(name)
            node.meta["val"] = to_meta(tensor)
            self._const_nodes[name] = node
        return self._const_nodes[name]

    def weight(self, name: str, compute: Callable[[], torch.Tensor]) -> Node:
        """A get_attr node for a part of a weight, computed when it is first asked for."""
        if name not in self._const_nodes:
            self._weights.add(name)
            self.constant(name, compute())
        return self._const_nodes[name]

    def finish(self, outputs: tuple[Node, ...] | None = None) -> Program:
        """outputs: new nodes to return; None: those that stand for the old ones."""
        old = self.program
        graph = self.graph
        outs = tuple(self._map[n] for n in old.output_nodes()) if outputs is None else outputs
        graph.output(outs)
        parameters = old.parameters | self._weights
        return prune(replace(old, graph=graph, constants=self.constants, parameters=parameters))


def prune(program: Program) -> Program:
    """Drop nodes that no output needs (sources stay) and constants that nothing reads. In place on
    a graph that the caller owns."""
    graph = program.graph
    for node in reversed(list(graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users:
            graph.erase_node(node)
    live = {n.target for n in graph.nodes if n.op == "get_attr"}
    constants = {k: v for k, v in program.constants.items() if k in live}
    return replace(program, constants=constants, parameters=frozenset(program.parameters & live))


def same_program(one: Program, other: Program) -> bool:
    """Whether two programs have the same text and are over the very same constants."""
    if one is other:
        return True
    if replace(one, graph=other.graph, constants=other.constants) != other or list(one.sources) != list(other.sources):
        return False
    if one.constants.keys() != other.constants.keys():
        return False
    if any(one.constants[k] is not other.constants[k] for k in one.constants):
        return False
    nodes, others = list(one.graph.nodes), list(other.graph.nodes)
    twin = dict(zip(nodes, others, strict=False))
    return len(nodes) == len(others) and all(
        a.op == b.op and a.name == b.name and a.target == b.target and _same(a.args, b.args, twin)
        and _same(a.kwargs, b.kwargs, twin) and type_text(a.meta.get("val")) == type_text(b.meta.get("val"))
        for a, b in twin.items())


def _same(one, other, twin: Mapping[Node, Node]) -> bool:
    if isinstance(one, Node):
        return twin[one] is other
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b, twin) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(a, other[k], twin) for k, a in one.items())
    return one == other or repr(one) == repr(other)  # NaN is not equal to itself


def infer_val(node: Node):
    """Shape and dtype of a new node, on the meta device, wherever the policy's code puts it."""
    meta = lambda n: to_meta(n.meta["val"])
    kwargs = {name: torch.device("meta") if isinstance(v, torch.device) else v for name, v in node.kwargs.items()}
    with torch.no_grad():
        return to_meta(node.target(*map_arg(node.args, meta), **map_arg(kwargs, meta)))


def _typed(arg) -> tuple:
    """Equal for arguments that give results of the same types."""
    if isinstance(arg, Node):
        return "node", _typed(arg.meta["val"])
    if isinstance(arg, torch.Tensor):
        return arg.dtype, tuple(arg.shape)
    if isinstance(arg, (list, tuple)):
        return type(arg), *map(_typed, arg)
    if isinstance(arg, dict):
        return tuple((k, _typed(v)) for k, v in arg.items())
    return type(arg), repr(arg)


def to_meta(val):
    """Shape and dtype, which are all that a value has beside its numbers."""
    if isinstance(val, torch.Tensor):
        return torch.empty(val.shape, dtype=val.dtype, device="meta")
    if isinstance(val, (list, tuple)):
        return type(val)(to_meta(v) for v in val)
    return val


def as_module(program: Program) -> GraphModule:
    """The program as a module of positional inputs (placeholder order)."""
    root = torch.nn.Module()
    for name, tensor in program.constants.items():
        root.register_buffer(name, tensor, persistent=False)
    return GraphModule(root, program.graph)


def execute(program: Program, inputs: Mapping[str, torch.Tensor], keep=(),
            past: dict[str, torch.Tensor] | None = None,
            observe: Callable[[Node, object], object] = lambda node, result: None) -> tuple[dict, dict]:
    """Run in PyTorch. Returns ({output name: tensor}, {node name: tensor} for the names in `keep`). past: what delays
    and carried inputs give, {node name or source: tensor}; empty before the first observation, updated to be handed to
    the next call. A carried input that is among `inputs` is what it is there. observe: is told every node and its
    result; a returned value replaces the result, None keeps it."""
    wanted, kept, present = set(keep), {}, {}

    def tell(node: Node, result: object) -> object:
        told = observe(node, result)
        result = result if told is None else told
        if node.target is delay:
            present[node.name], result = result, (past or {}).get(node.name, result)
        if node.name in wanted:
            kept[node.name] = result
        return result

    places = [program.inputs[n.name] for n in program.graph.nodes if n.op == "placeholder"]
    given = {name: (past or {}).get(name, s.initial) for name, s in program.carried.items()
             if name in places and name not in inputs}
    order = [given[name] if name in given else inputs[name] for name in places]
    with torch.no_grad():
        outs = NodeByNode(program.graph, program.constants).run(order, tell)
    found = dict(zip(program.outputs, outs, strict=True))
    if past is not None:
        past |= present | {name: found[s.next] for name, s in program.carried.items()}
    return found, kept


def op_name(target) -> str:
    """Short, stable name of an op: "linear", "add.Tensor", "getitem"."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[1]
        return name if target._overloadname == "default" else f"{name}.{target._overloadname}"
    return "getitem" if target is operator.getitem else getattr(target, "__name__", repr(target))


def type_text(val) -> str:
    """"f32[1,50,7]", or a tuple of them."""
    if isinstance(val, torch.Tensor):
        kind = f"c{8 * val.element_size()}" if val.is_complex() else TORCH_DTYPES.get(val.dtype)
        return f"{kind or str(val.dtype).removeprefix('torch.')}[{','.join(str(int(d)) for d in val.shape)}]"
    if isinstance(val, (list, tuple)):
        return "(" + ", ".join(type_text(v) for v in val) + ")"
    return type(val).__name__


def program_text(program: Program) -> str:
    """One line per node; what pass docstrings and golden tests show."""
    sources = [f'%{n.name} = source "{program.inputs[n.name]}" {type_text(n.meta["val"])}'
               for n in program.graph.nodes if n.op == "placeholder"]
    outs = [f"{name}=%{n.name}" for name, n in zip(program.outputs, program.output_nodes(), strict=True)]
    lines = graph_lines(program.graph, program.constants, program.parameters)
    return "\n".join([*sources, *lines, "return " + ", ".join(outs)]) + "\n"


def graph_lines(graph: Graph, constants: Mapping[str, torch.Tensor], parameters: frozenset[str] = frozenset()) \
        -> list[str]:
    """A line per constant and per op, in order. parameters: constants that are weights of the model as it was given."""
    lines = []
    for node in graph.nodes:
        if node.op == "get_attr":
            kind = "weight" if node.target in parameters else "constant"
            lines.append(f'%{node.name} = {kind} "{node.target}" {type_text(constants[node.target])}')
        elif node.op == "call_function":
            args = [_arg_text(a) for a in node.args] + [f"{k}={_arg_text(v)}" for k, v in node.kwargs.items()]
            lines.append(f"%{node.name} = {op_name(node.target)}({', '.join(args)}) {type_text(node.meta['val'])}")
    return lines


def _arg_text(a) -> str:
    if isinstance(a, Node):
        return f"%{a.name}"
    if isinstance(a, (list, tuple)):
        return "[" + ", ".join(_arg_text(x) for x in a) + "]"
    if isinstance(a, (torch.dtype, torch.device, torch.memory_format, torch.layout)):
        return str(a).replace("torch.", "")
    return repr(a)
