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

from vlacompile.compiler.graph.delay import delay
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.policy.policy import TORCH_DTYPES, Source


@dataclass(frozen=True)
class Program:
    """A functional graph: placeholders are sources, get_attr nodes are constants, and the output
    node's args are the policy outputs in the order of `outputs`.

    parameters: constants that are weights of the model as it was given (not computed from others).
    iterations: how often the loop runs of which only the first iterations were traced; None: all is traced.
    backbones: {name: output}, as Policy's.
    """

    name: str
    graph: Graph
    constants: Mapping[str, torch.Tensor]
    sources: Mapping[str, Source]
    inputs: Mapping[str, str]  # placeholder name -> source name
    outputs: tuple[str, ...]
    parameters: frozenset[str] = field(default=frozenset())
    iterations: int | None = None
    backbones: Mapping[str, str] = field(default_factory=dict)

    @property
    def actions(self) -> tuple[str, ...]:
        """The outputs that become actions: one of each backbone."""
        return tuple(self.backbones.values()) or self.outputs[:1]

    def action_in(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[1,H,D] among named values; of several backbones their dimensions behind each other."""
        return torch.cat([values[n] for n in self.actions], -1) if self.backbones else values[self.outputs[0]]

    def output_nodes(self) -> tuple[Node, ...]:
        return tuple(self.graph.output_node().args[0])

    def placeholders(self) -> dict[str, Node]:
        """{source name: placeholder}"""
        return {self.inputs[n.name]: n for n in self.graph.nodes if n.op == "placeholder"}


class ProgramEditor:
    """Copies a program node by node, so that a pass never mutates its input.

    Use `map` to look up the new node of an old one, `emit` for new nodes, `replace` to say what
    stands for an old node, and `finish` for the result without dead nodes.
    """

    def __init__(self, program: Program):
        self.program = program
        self.graph = Graph()
        self.constants = dict(program.constants)
        self._map: dict[Node, Node] = {}
        self._const_nodes: dict[str, Node] = {}
        self._weights: set[str] = set()

    def map(self, old: Node) -> Node:
        spend()
        return self._map[old]

    def map_args(self, args):
        return map_arg(args, self.map)

    def copy(self, node: Node) -> Node:
        spend()
        new = self.graph.node_copy(node, self.map)
        self._map[node] = new
        return new

    def replace(self, old: Node, new: Node) -> None:
        self._map[old] = new

    def emit(self, target, args: tuple, kwargs: dict | None = None, like: Node | None = None, val=None) -> Node:
        spend()
        name = op_name(target).split(".")[0]
        node = self.graph.create_node("call_function", target, args, kwargs or {}, name=name)
        if like is not None:
            node.meta = {k: v for k, v in like.meta.items() if k in ("nn_module_stack", "stack_trace")}
        node.meta["val"] = infer_val(node) if val is None else val
        return node

    def constant(self, name: str, tensor: torch.Tensor) -> Node:
        """A get_attr node for `tensor`; one node per name."""
        if name not in self._const_nodes:
            self.constants[name] = tensor
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
        outs = tuple(self._map[n] for n in old.output_nodes()) if outputs is None else outputs
        self.graph.output(outs)
        parameters = old.parameters | self._weights
        return prune(replace(old, graph=self.graph, constants=self.constants, parameters=parameters))


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
            past: dict[str, torch.Tensor] | None = None) -> tuple[dict, dict]:
    """Run in PyTorch. Returns ({output name: tensor}, {node name: tensor} for the names in `keep`). past: what delays
    give, {node name: tensor}; empty before the first observation, updated to be handed to the next call."""
    wanted, kept, present = set(keep), {}, {}

    class _Keeper(torch.fx.Interpreter):
        def run_node(self, n):
            result = super().run_node(n)
            if n.target is delay:
                present[n.name], result = result, (past or {}).get(n.name, result)
            if n.name in wanted:
                kept[n.name] = result
            return result

    order = [inputs[program.inputs[n.name]] for n in program.graph.nodes if n.op == "placeholder"]
    with torch.no_grad():
        outs = _Keeper(as_module(program)).run(*order)
    if past is not None:
        past |= present
    return dict(zip(program.outputs, outs, strict=True)), kept


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
