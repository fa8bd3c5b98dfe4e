"""A trace without views of memory and without writes into it: every value is computed once, from other values.

PyTorch's own functionalisation (`run_decompositions`) runs the whole trace two more times. Most policies write into
nothing but fresh results (`relu_`, `x += y`), and enter modes of PyTorch that change no op: their traces are rewritten
node by node; the others are left to PyTorch.

Must not know policies.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch._export.utils import _collect_all_valid_cia_ops, _is_cia_op
from torch.export.graph_signature import ExportGraphSignature, InputKind, OutputKind
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import PendingUnbackedSymbolNotFound

from vlacompile.policy.source_lines import line_of

_ATEN = torch.ops.aten
_SAME = frozenset({_ATEN.conj.default, _ATEN.resolve_conj.default, _ATEN.resolve_neg.default, _ATEN.positive.default,
                   _ATEN.pin_memory.default, _ATEN.real.default})  # of a real tensor
_RESHAPED = frozenset({_ATEN.reshape.default, _ATEN.flatten.using_ints, _ATEN.unflatten.int, _ATEN.ravel.default,
                       _ATEN.view_as.default, _ATEN.reshape_as.default, _ATEN.atleast_1d.default,
                       _ATEN.atleast_2d.default, _ATEN.atleast_3d.default})
_EXPANDED = frozenset({_ATEN.expand_as.default, _ATEN.broadcast_to.default})
_CAST = frozenset({_ATEN.to.dtype, _ATEN.to.device, _ATEN.to.other, _ATEN.to.dtype_layout})
_PERMUTED = frozenset({_ATEN.mT.default, _ATEN.mH.default, _ATEN.adjoint.default, _ATEN.numpy_T.default,
                       _ATEN.movedim.int, _ATEN.movedim.intlist, _ATEN.moveaxis.int, _ATEN.moveaxis.intlist,
                       _ATEN.swapaxes.default, _ATEN.swapdims.default})

_KEPT_META = frozenset({"nn_module_stack", "stack_trace", "custom", "val"})


@dataclass(frozen=True)
class Trace:
    """What the exporter made of a function. owner: has the tensors that get_attr nodes name."""

    graph: Graph
    owner: torch.nn.Module
    signature: ExportGraphSignature
    state_dict: Mapping[str, torch.Tensor]
    constants: Mapping[str, torch.Tensor]


class _LeftToPyTorch(Exception):
    """The trace has an op that is not rewritten here."""


class ViewOfWhatChanges(Exception):
    """A view at a place that the robot knows is read after another write into its memory. line: of the policy."""

    def __init__(self, line: str):
        super().__init__(line)
        self.line = line


def _first_such_view(graph: Graph) -> str:
    return next((line_of(n) for n in graph.nodes if n.target is _ATEN.select.int and isinstance(n.args[2], Node)), "")


def functionalise(exported: torch.export.ExportedProgram) -> Trace:
    """The trace with ops on values alone."""
    try:
        graph = _Rewritten(exported).graph
    except _LeftToPyTorch:
        _ask_nothing(exported)
        try:
            exported = exported.run_decompositions({})
        except PendingUnbackedSymbolNotFound as error:  # it takes a view again, at a place that is another number then
            raise ViewOfWhatChanges(_first_such_view(exported.graph)) from error
        graph = exported.graph
    return Trace(graph, exported.graph_module, exported.graph_signature, exported.state_dict, exported.constants)


def _ask_nothing(exported: torch.export.ExportedProgram) -> None:
    """A trace whose inputs ask for derivatives would be followed by that of its derivative."""
    exported.constants.update({n: t.detach() for n, t in exported.constants.items()
                               if isinstance(t, torch.Tensor) and t.requires_grad})
    exported.state_dict.update({n: torch.nn.Parameter(t.detach(), requires_grad=False)
                                for n, t in exported.state_dict.items() if t.requires_grad})
    for node in exported.graph.find_nodes(op="placeholder"):
        if isinstance(val := node.meta["val"], torch.Tensor) and val.requires_grad:
            node.meta["val"] = val.detach()


class _Rewritten:
    """graph: the rewritten copy. Raises _LeftToPyTorch."""

    def __init__(self, exported: torch.export.ExportedProgram):
        self.graph, self.env = Graph(), {}
        self.memory: dict[Node, Node] = {}  # value -> the first value in the same memory
        self.shared: set[Node] = set()  # first values of memory that has views, or is not the function's own
        self.names: dict[Node, list[Node]] = {}  # first value -> results of writes into it, which stand for it as well
        self.results: dict[Node, tuple[Node, ...]] = {}  # a part of the graph that is a value -> what it returns
        inputs = {s.arg.name: s.kind for s in exported.graph_signature.input_specs}
        if any(k is InputKind.CUSTOM_OBJ for k in inputs.values()) or any(
                s.kind is not OutputKind.USER_OUTPUT for s in exported.graph_signature.output_specs):
            raise _LeftToPyTorch
        for node in exported.graph.nodes:
            if node.op == "output":
                self.graph.output(torch.fx.node.map_arg(node.args[0], self._of))
            elif node.op != "call_function":
                self.env[node] = self.graph.node_copy(node)
                self.shared.add(node)
            else:
                self._call(node, exported.graph_module)
        for new in self.graph.nodes:
            new.meta.setdefault("val", None)

    def _of(self, node: Node) -> Node:
        return self.env[node]

    def _call(self, node: Node, owner: torch.nn.Module) -> None:
        """owner: has the graphs that get_attr nodes name."""
        op = node.target
        if op is operator.getitem:
            if node.args[0] in self.results:
                self._rename(node, self.results[node.args[0]][node.args[1]])
                return
            self._alias(node)
            self.env[node] = self.graph.node_copy(node, self._of)
            return
        if op in _INLINED:
            self._inline(node, owner, *_INLINED[op](node.args))
            return
        if not isinstance(op, torch._ops.OpOverload):
            raise _LeftToPyTorch
        if op._schema.is_mutable:
            self.env[node] = self._write(node)
            return
        if any(r.alias_info is not None for r in op._schema.returns) and not (
                op in _CAST and node.meta["val"].dtype != node.args[0].meta["val"].dtype):
            self._alias(node)
        if op in _KEPT or not _is_cia_op(op):
            self.env[node] = self.graph.node_copy(node, self._of)
        else:
            self.env[node] = self._decomposed(node)

    def _inline(self, node: Node, owner: torch.nn.Module, part: Node | None, operands: tuple) -> None:
        """A part of the graph that is computed as the rest is."""
        if part is None or part.op != "get_attr":
            raise _LeftToPyTorch
        inner = getattr(owner, part.target)
        places = iter(operands)
        for n in inner.graph.nodes:
            if n.op == "placeholder":
                self._rename(n, next(places))
            elif n.op == "output":
                self.results[node] = n.args[0]
            elif n.op == "get_attr" and isinstance(getattr(inner, n.target), torch.fx.GraphModule):
                continue
            elif n.op == "call_function":
                self._call(n, inner)
            else:
                raise _LeftToPyTorch

    def _rename(self, node: Node, value: Node) -> None:
        """`node` is another name of the value."""
        if not isinstance(value, Node):
            raise _LeftToPyTorch
        first = self.memory.get(value, value)
        self.env[node], self.memory[node] = self._of(value), first
        self.names.setdefault(first, []).append(node)

    def _alias(self, node: Node) -> None:
        first = node.args[0]
        for part in first if isinstance(first, (list, tuple)) else [first]:
            base = self.memory.get(part, part)
            self.memory[node] = base
            self.shared.add(base)

    def _write(self, node: Node) -> Node:
        """A write into a result that nothing else shares memory with is a new value."""
        op, written = node.target, node.args[0]
        name = op._schema.name.partition("::")[2]
        writes = [a for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        packet = getattr(_ATEN, name.removesuffix("_"), None) if name.endswith("_") else None
        functional = getattr(packet, op._overloadname, None)
        first = self.memory.get(written, written)
        fresh = isinstance(written, Node) and first not in self.shared
        if functional is None or len(writes) != 1 or writes[0] is not op._schema.arguments[0] or not fresh:
            raise _LeftToPyTorch
        if _is_cia_op(functional) and functional not in _KEPT:
            raise _LeftToPyTorch
        new = self._emit(node, functional, *torch.fx.node.map_arg(node.args, self._of),
                         **torch.fx.node.map_arg(node.kwargs, self._of))
        self.memory[node] = first
        for name in (first, *self.names.setdefault(first, [])):
            self.env[name] = new
        self.names[first].append(node)
        return new

    def _emit(self, node: Node, op, *args, **kwargs) -> Node:
        name = op.overloadpacket.__name__ if isinstance(op, torch._ops.OpOverload) else op.__name__
        new = self.graph.create_node("call_function", op, args, kwargs, name=name)
        new.meta = {k: v for k, v in node.meta.items() if k in _KEPT_META}
        return new

    def _decomposed(self, node: Node) -> Node:
        op, first = node.target, node.args[0]
        if not isinstance(first, Node):  # of several tensors
            raise _LeftToPyTorch
        x, val = self._of(first), node.meta["val"]
        old = first.meta["val"]
        if op in _SAME and not old.is_complex():
            return x
        if op in _RESHAPED and isinstance(old, torch.Tensor):
            return self._emit(node, _ATEN.reshape.default, x, list(val.shape))
        if op in _EXPANDED:
            return self._emit(node, _ATEN.expand.default, x, list(val.shape))
        if op is _ATEN.contiguous.default or (op is _ATEN.dropout.default and not node.args[2]):
            return self._emit(node, _ATEN.clone.default, x)
        if op in _CAST:
            return x if val.dtype == old.dtype else self._emit(node, _ATEN._to_copy.default, x, dtype=val.dtype)
        if op in _PERMUTED and not old.is_complex():
            return self._emit(node, _ATEN.permute.default, x, _axes(node, old.dim()))
        if op is _ATEN.narrow.default:
            _, dim, start, length = node.args
            start = start + old.shape[dim] if start < 0 else start
            return self._emit(node, _ATEN.slice.Tensor, x, dim, start, start + length)
        if op is _ATEN.chunk.default and val:
            dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
            return self._emit(node, _ATEN.split.Tensor, x, val[0].shape[dim], dim)
        if op is _ATEN.batch_norm.default and not node.args[5]:
            weight, bias, mean, variance = (self._of(a) if isinstance(a, Node) else a for a in node.args[1:5])
            norm = self._emit(node, _ATEN._native_batch_norm_legit_no_training.default, x, weight, bias, mean, variance,
                              *node.args[6:8])
            norm.meta["val"] = (val, val.new_empty((0,)), val.new_empty((0,)))
            return self._emit(node, operator.getitem, norm, 0)
        raise _LeftToPyTorch


def _without_autocast(args: tuple) -> tuple[Node | None, tuple]:
    """(the part within a torch.autocast that changes no op, or None; its operands)"""
    device, _, enabled, _, part, *operands = args
    return (None if enabled and device == "cpu" else part), tuple(operands)


def _axes(node: Node, dims: int) -> list[int]:
    """Which axis of the operand each axis of the result is, for ops that only reorder axes."""
    order: Callable = node.target
    moved = order(torch.empty(tuple(range(2, dims + 2)), device="meta"), *node.args[1:], **node.kwargs)
    return [n - 2 for n in moved.shape]


# Parts of the graph that ran in a mode of PyTorch: (part, operands) of the args.
_INLINED: dict[Callable, Callable[[tuple], tuple[Node | None, tuple]]] = {
    torch.ops.higher_order.wrap_with_autocast: _without_autocast,
    torch.ops.higher_order.wrap_with_set_grad_enabled: lambda args: (args[1], tuple(args[2:]))}
_KEPT = frozenset(_collect_all_valid_cia_ops())
