"""Policy -> Program: trace the whole inference function with `torch.export`.

Owns the call of the exporter and the translation of its failures into CaptureErrors that name
the module path and the source line. Must not know stages.
"""

from __future__ import annotations

import contextlib
import inspect
import linecache
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch.export.graph_signature import InputKind
from torch.fx import Graph, Node

from vlacompile.capture.answers import check_call, why_and_fix
from vlacompile.capture.concretise import Concretiser, is_symbolic, type_of
from vlacompile.capture.history import with_frames
from vlacompile.capture.iterations import shortened
from vlacompile.capture.modules import modules_of
from vlacompile.capture.program import Program, prune, to_meta
from vlacompile.capture.source_lines import lines_of_all_functions
from vlacompile.capture.weightless import without_content
from vlacompile.errors import CaptureError
from vlacompile.policy import Policy


class _Inference(torch.nn.Module):
    """The policy as a module of positional inputs, so that every weight it reaches has a name."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.infer = policy.infer
        self.input_names = tuple(policy.example_inputs)
        self.output_names = policy.outputs
        for name, module in modules_of(policy.observe, policy.step).items():
            self.add_module(name, module)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = self.infer(**dict(zip(self.input_names, inputs, strict=True)))
        return tuple(values[n] for n in self.output_names)


def capture(policy: Policy, whole: bool = False) -> Program:
    """Trace `policy` at its example shapes. whole: also loops over `iterations` of which three would do.

    Raises CaptureError with the module path and source line of the statement that cannot be traced.
    """
    module = _Inference(policy)
    training = [name for name, m in module.named_modules() if m.training and name]
    if training:
        raise CaptureError(
            "the policy is in training mode",
            where=f'Policy "{policy.name}", module {training[0]}',
            why="dropout and batch statistics would be traced as they act in training",
            fix="call .eval() on the module before it is given to Policy",
        )
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings(), lines_of_all_functions(__file__):
            # torch 2.13 copies its own deprecated LeafSpec; nothing a user could act on
            warnings.filterwarnings("ignore", "`isinstance.*LeafSpec", FutureWarning)
            with contextlib.nullcontext([]) if whole else shortened() as lengths:
                # one tensor given twice would be taken for one input
                examples = tuple(t.clone() for t in policy.example_inputs.values())
                exported = torch.export.export(module, examples, strict=False)
            exported = exported.run_decompositions({})
    except CaptureError:
        raise
    except Exception as error:  # the exporter raises whatever the traced model raised
        if isinstance(error, TypeError):
            check_call(policy.name, policy.observe, policy.sources)
        raise _explain(policy, module, error) from error
    if len(lengths) > 1:
        return capture(policy, whole=True)
    return replace(with_frames(_to_program(policy, exported)), iterations=lengths[0] if lengths else None)


def _explain(policy: Policy, module: torch.nn.Module, error: Exception) -> CaptureError:
    not_the_users = (str(Path(inspect.getsourcefile(torch)).parent), str(Path(__file__).parents[1]), "<")
    names = {id(m): name for name, m in module.named_modules()}
    where, line = f'Policy "{policy.name}"', ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if names.get(id(owner)):
            where = f'Policy "{policy.name}", module {names[id(owner)]} ({type(owner).__name__})'
        file = frame.f_code.co_filename
        if not file.startswith(not_the_users):
            line = f", {file}:{number} in {frame.f_code.co_name}: {linecache.getline(file, number).strip()}"
    return CaptureError("the inference function cannot be traced", where=where + line, **why_and_fix(error))


def _to_program(policy: Policy, exported: torch.export.ExportedProgram) -> Program:
    graph, mapping = Graph(), {}  # mapping: old node -> new node, or the number that it stands for
    constants: dict[str, torch.Tensor] = {}
    parameters: set[str] = set()
    inputs: dict[str, str] = {}
    held = _held_tensors(policy, exported)
    known = Concretiser({n: t for n, (_, t) in held.items() if not t.is_meta})
    kinds = {s.arg.name: s.kind for s in exported.graph_signature.input_specs}
    names = iter(policy.example_inputs)
    for node in exported.graph.nodes:
        source = next(names) if node.op == "placeholder" and kinds[node.name] is InputKind.USER_INPUT else None
        if node in held:
            name, tensor = held[node]
            constants[name] = tensor
            if node.op == "placeholder" and kinds[node.name] in (InputKind.PARAMETER, InputKind.BUFFER):
                parameters.add(name)
            new = graph.get_attr(name)
            new.meta["val"] = to_meta(tensor)
        elif node.op == "placeholder":
            new = graph.placeholder(_identifier(source))
            inputs[new.name] = source
            new.meta["val"] = to_meta(node.meta["val"])
        elif node.op == "output":
            graph.output(tuple(mapping[o] for o in node.args[0]))
            continue
        elif is_symbolic(node.meta.get("val")) and known.is_known(node):
            new = value = known.value(node)
            if isinstance(value, torch.Tensor):
                name = f"known__{node.name}"
                constants[name] = value
                new = graph.get_attr(name)
                new.meta["val"] = to_meta(value)
        elif not node.users and node.meta.get("val") is None:  # an assertion about what is known now
            continue
        else:
            new = graph.node_copy(node, lambda n: mapping[n])
            new.meta = {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
            val = node.meta.get("val")
            new.meta["val"] = type_of(new, node, policy.name) if is_symbolic(val) else to_meta(val)
        mapping[node] = new
    live = {name: s for name, s in policy.sources.items() if s.update != "static"}
    return prune(Program(policy.name, graph, constants, live, inputs, policy.outputs, frozenset(parameters),
                         backbones=dict(policy.backbones)))


def _held_tensors(policy: Policy, exported: torch.export.ExportedProgram) -> dict[Node, tuple[str, torch.Tensor]]:
    """{node: (name, tensor)} of weights, lifted constants and static inputs; on the meta device without content."""
    kinds = {s.arg.name: s for s in exported.graph_signature.input_specs}
    tensors = {**exported.state_dict, **exported.constants}
    names, held = iter(policy.example_inputs), {}
    for node in exported.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(exported.graph_module, node.target).detach()
            held[node] = constant_name(node.target), without_content(tensor)
        elif node.op == "placeholder" and kinds[node.name].kind is not InputKind.USER_INPUT:
            target = kinds[node.name].target
            held[node] = constant_name(target), without_content(tensors[target].detach())
        elif node.op == "placeholder":
            source = next(names)
            if policy.sources[source].update == "static":
                held[node] = f"static__{_identifier(source)}", policy.example_inputs[source]
    return held


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def constant_name(target: str) -> str:
    """Buffers of a GraphModule must not contain dots."""
    return target.replace(".", "__")
