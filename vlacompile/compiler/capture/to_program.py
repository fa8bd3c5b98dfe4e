"""The result of `torch.export` -> Program: no strides, no symbols, constants by name.

Owns the reading of the exported signature. Must not know how the policy was traced.
"""

from __future__ import annotations

import itertools
import keyword

import torch
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, Node

from vlacompile.compiler.capture.buffer_state import require_no_state
from vlacompile.compiler.capture.concretise import Concretiser, is_symbolic, type_of
from vlacompile.compiler.capture.strides import ByShape
from vlacompile.compiler.capture.weightless import without_content
from vlacompile.compiler.graph.program import Program, prune, to_meta
from vlacompile.errors import CaptureError
from vlacompile.policy.policy import Policy
from vlacompile.policy.source_lines import line_of

_INDEXED = frozenset({torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default})
_RETURNED = (OutputKind.USER_OUTPUT,)


def to_program(policy: Policy, exported: torch.export.ExportedProgram) -> Program:
    """Raises CaptureError if a call leaves state for the next one, or if the policy contains a tensor that is not
    dense."""
    graph, mapping = Graph(), {}  # mapping: exported node -> node of `graph`, or the number that replaces it
    constants: dict[str, torch.Tensor] = {}
    parameters: set[str] = set()
    inputs: dict[str, str] = {}
    held = _held_tensors(policy, exported)
    require_no_state(policy.name, exported, {n: t for n, (_, t) in held.items()})
    known = Concretiser({n: t for n, (_, t) in held.items() if not t.is_meta})
    kinds = {s.arg.name: s.kind for s in exported.graph_signature.input_specs}
    names, copier = iter(policy.example_inputs), ByShape(graph, constants)
    for node in exported.graph.nodes:
        source = next(names) if node.op == "placeholder" and kinds[node.name] is InputKind.USER_INPUT else None
        if node in held:
            name, tensor = held[node]
            constants[name] = tensor
            if node.op == "placeholder" and kinds[node.name] in (InputKind.PARAMETER, InputKind.BUFFER):
                parameters.add(name)
            new = graph.get_attr(name)
            new.meta["val"] = to_meta(tensor)
        elif node.op == "get_attr" or (node.op == "placeholder" and source is None):
            new = None  # a branch of torch.cond or a torch.Generator: the nodes that read it are refused
        elif node.op == "placeholder":
            name = _identifier(source)
            new = graph.placeholder(next(n for k in itertools.count()
                                         if (n := f"{name}_{k}" if k else name) not in inputs))
            inputs[new.name] = source
            new.meta["val"] = to_meta(node.meta["val"])
        elif node.op == "output":
            graph.output(tuple(mapping[n] for n in _returned(exported, node)))
            continue
        elif is_symbolic(node.meta.get("val")) and known.is_known(node):
            new = value = known.value(node)
            if isinstance(value, torch.Tensor):
                name = f"known__{node.name}"
                constants[name] = value
                new = graph.get_attr(name)
                new.meta["val"] = to_meta(value)
        elif not node.users and node.meta.get("val") is None:  # an assertion about a value that is concrete by now
            continue
        else:
            _require_plain_op(policy.name, node)
            places = _places(node, known, graph, constants)
            new = copier.copy(node, lambda n: places[n] if n in places else mapping[n])  # noqa: B023  called at once
            new.meta = {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
            val = node.meta.get("val")
            new.meta["val"] = type_of(new, node, policy.name) if is_symbolic(val) else to_meta(val)
        mapping[node] = new
    live = {name: s for name, s in policy.sources.items() if s.update != "static"}
    return prune(Program(policy.name, graph, constants, live, inputs, policy.outputs, frozenset(parameters),
                         backbones=dict(policy.backbones)))


def _places(node: Node, known: Concretiser, graph: Graph, constants: dict[str, torch.Tensor]) -> dict[Node, Node]:
    """{boolean mask [n]: its nonzero indices, i64[k]} for the masks among the node's indices that depend on no input:
    then k is known too."""
    if node.target not in _INDEXED:
        return {}
    found = {}
    for mask in [n for n in node.args[1] if n is not None and n.meta["val"].dtype is torch.bool
                 and n.meta["val"].dim() == 1]:
        if known.is_known(mask):
            name = f"places__{mask.name}"
            constants[name] = known.value(mask).nonzero()[:, 0]
            found[mask] = graph.get_attr(name)
            found[mask].meta["val"] = to_meta(constants[name])
    return found


def _returned(exported: torch.export.ExportedProgram, output: Node) -> tuple[Node, ...]:
    """The values that the function returns, without the new contents of buffers and inputs that it wrote into."""
    specs = exported.graph_signature.output_specs
    return tuple(n for n, spec in zip(output.args[0], specs, strict=True) if spec.kind in _RETURNED)


def _held_tensors(policy: Policy, exported: torch.export.ExportedProgram) -> dict[Node, tuple[str, torch.Tensor]]:
    """{node: (name, tensor)} of weights, lifted constants and static inputs; weights without content are on the meta
    device."""
    kinds = {s.arg.name: s for s in exported.graph_signature.input_specs}
    tensors = {**exported.state_dict, **exported.constants}
    names, held = iter(policy.example_inputs), {}
    for node in exported.graph.nodes:
        if node.op == "get_attr" and isinstance(getattr(exported.graph_module, node.target), torch.nn.Module):
            continue  # a branch of torch.cond
        if node.op == "get_attr":
            tensor = getattr(exported.graph_module, node.target).detach()
            held[node] = constant_name(node.target), _plain(policy, node.target, without_content(tensor))
        elif node.op == "placeholder" and kinds[node.name].kind is InputKind.CUSTOM_OBJ:
            continue
        elif node.op == "placeholder" and kinds[node.name].kind is not InputKind.USER_INPUT:
            target = kinds[node.name].target
            held[node] = constant_name(target), _plain(policy, target, without_content(tensors[target].detach()))
        elif node.op == "placeholder":
            source = next(names)
            if policy.sources[source].update == "static":
                held[node] = f"static__{_identifier(source)}", policy.example_inputs[source].detach()
    return held


def _plain(policy: Policy, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a contiguous copy, without views, lazy conjugation or negation. Raises CaptureError if sparse."""
    if tensor.layout is not torch.strided:
        raise CaptureError(
            f'"{name}" is a sparse tensor', where=f'Policy "{policy.name}", {name.removeprefix("policy.")}',
            why=f"its layout is {str(tensor.layout).removeprefix('torch.')}; engines compute with dense tensors only",
            fix="call .to_dense() on it before the policy is built")
    return tensor if tensor.is_meta else tensor.resolve_conj().resolve_neg().contiguous()


def _require_plain_op(policy: str, node: Node) -> None:
    """Raises CaptureError for higher-order ops (torch.cond, loops), which no engine can run."""
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        raise CaptureError(
            f"torch.{node.target.name()} chooses what is computed by the value of an input",
            where=f'Policy "{policy}", {line_of(node)}',
            why="a compiled stage computes the same ops for every input",
            fix="compute both sides and choose with torch.where(condition, one, other)")


def _identifier(name: str) -> str:
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return plain if plain.isidentifier() and not keyword.iskeyword(plain) else f"source_{plain}"


def constant_name(target: str) -> str:
    """The name as an attribute of a GraphModule, whose buffers must not contain dots."""
    return target.replace(".", "__")
