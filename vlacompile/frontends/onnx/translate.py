"""An ONNX graph -> a torch module that computes the same, for fixed input shapes.

What depends on no input is constant-folded, which removes shape arithmetic, masks and unused branches; every other node
becomes one call of a function of the tables. A product with a constant matrix becomes a Linear, which the passes can
optimise. Must not know what the inputs mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F

from vlacompile.frontends.onnx import elementwise, layers, shaping  # noqa: F401, imported to fill the table
from vlacompile.frontends.onnx.ops import TABLE, Attributes, NotCovered
from vlart.errors import SourceError, nearest

SPECIAL = frozenset({"Constant", "If", "MatMul", "Gemm"})  # see _Translator
_FAILURES = (RuntimeError, ValueError, IndexError, TypeError, KeyError, ZeroDivisionError)  # by invalid operands


@dataclass(frozen=True)
class Known:
    """A constant value. name: of the original constant."""

    tensor: torch.Tensor
    name: str


@dataclass(frozen=True)
class Live:
    """A value computed at run time. roots: the inputs that it depends on. meta: a tensor on the meta device."""

    ref: str
    meta: torch.Tensor
    roots: frozenset[str]


@dataclass(frozen=True)
class Ref:
    """A run-time tensor operand, by name."""

    name: str


@dataclass(frozen=True)
class Step:
    function: Callable
    operands: tuple
    outputs: tuple[str, ...]


class OnnxModule(torch.nn.Module):
    """Keyword inputs by their ONNX names -> {output name: tensor}. Weights are buffers; other constants, such as masks
    and the rows of a schedule, are not, so that the compiler can tell iterations of a loop from layers."""

    def __init__(self, steps: list[Step], weights: dict[str, torch.Tensor], constants: dict[str, torch.Tensor],
                 outputs: dict[str, str]):
        super().__init__()
        self.steps, self.constants, self.outputs = steps, constants, outputs
        self.buffer_of: dict[str, str] = {}
        for name, tensor in weights.items():
            self.buffer_of[name] = _identifier(name, self.buffer_of.values())
            self.register_buffer(self.buffer_of[name], tensor)
        last = {o.name: i for i, step in enumerate(steps) for o in step.operands if isinstance(o, Ref)}
        self.dead: dict[int, list[str]] = {}
        for name, at in last.items():
            if name not in outputs.values():
                self.dead.setdefault(at, []).append(name)

    def forward(self, /, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        values = {**inputs, **self.constants, **{n: getattr(self, b) for n, b in self.buffer_of.items()}}
        for i, step in enumerate(self.steps):
            result = step.function(*(values[o.name] if isinstance(o, Ref) else o for o in step.operands))
            values |= zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=False)
            for name in self.dead.get(i, ()):
                del values[name]
        return {name: values[ref] for name, ref in self.outputs.items()}


def _identifier(name: str, taken) -> str:
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in name.replace(".", "__"))
    plain = plain if plain[:1].isalpha() or plain[:1] == "_" else f"w_{plain}"
    while plain in taken or hasattr(torch.nn.Module, plain) or plain in ("steps", "constants", "outputs", "dead"):
        plain += "_"
    return plain


def translate(model: ir.Model, inputs: Mapping[str, torch.Tensor], outputs: tuple[str, ...], where: str) -> OnnxModule:
    """inputs: {name: a tensor of its shape and type}; call `check_ops` first. Raises SourceError naming the node that
    is not supported."""
    translator = _Translator(model, where)
    with torch.no_grad():
        return translator.run(inputs, outputs)


def nodes_of(graph: ir.Graph) -> Iterator[ir.Node]:
    """All nodes, including those of subgraphs."""
    for node in graph:
        yield node
        for a in node.attributes.values():
            if a.type == ir.AttributeType.GRAPH:
                yield from nodes_of(a.value)


def check_ops(model: ir.Model, where: str) -> None:
    """Raises SourceError naming every unsupported op."""
    unknown: dict[str, str] = {}
    for node in nodes_of(model.graph):
        standard = node.domain in ("", "ai.onnx")
        if not standard or node.op_type not in TABLE.keys() | SPECIAL:
            unknown[node.op_type if standard else f"{node.domain}.{node.op_type}"] = node.name or node.outputs[0].name
    if not unknown:
        return
    first, name = next(iter(unknown.items()))
    why = {"RandomNormal": "noise must be an input", "RandomNormalLike": "noise must be an input"}.get(first)
    if "." in first:
        why, fix = "only ops of the ONNX standard are supported", "export without optimisations for a specific runtime"
    else:
        why = why or nearest(first, TABLE.keys() | SPECIAL).split(": ")[0].replace("known", "it is not in the op table")
        fix = "export the policy without it (noise as an input, loops unrolled, no quantised ops)"
    raise SourceError(f"ops that are not covered: {', '.join(sorted(unknown))}",
                      where=f'{where}, node "{name}" ({first})', why=why, fix=fix)


class _Translator:
    def __init__(self, model: ir.Model, where: str):
        self.model, self.where = model, where
        self.opset = model.opset_imports.get("", 0)
        self.values: dict[str, Known | Live] = {}
        self.steps: list[Step] = []
        self.weights: dict[str, torch.Tensor] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.linears: dict[str, tuple[Step, torch.Tensor]] = {}  # result -> (a Linear without a bias yet, its weight)

    def run(self, inputs: Mapping[str, torch.Tensor], outputs: tuple[str, ...]) -> OnnxModule:
        for name, tensor in inputs.items():
            self.values[name] = Live(name, tensor.to("meta"), frozenset({name}))
        self._graph(self.model.graph)
        refs = {}
        for name in outputs:
            value = self.values[name]
            refs[name] = value.ref if isinstance(value, Live) else self._held(value, False).name
        needed, steps = set(refs.values()), []
        for step in reversed(self.steps):
            if needed & set(step.outputs):
                steps.append(step)
                needed |= {o.name for o in step.operands if isinstance(o, Ref)}
        return OnnxModule(steps[::-1], {n: t for n, t in self.weights.items() if n in needed},
                          {n: t for n, t in self.constants.items() if n in needed and n not in self.weights}, refs)

    def _graph(self, graph: ir.Graph) -> None:
        for name, value in graph.initializers.items():
            self.values[name] = Known(self._tensor(value.const_value, name), name)
        for node in graph:
            try:
                self._node(node)
            except NotCovered as error:
                raise self._refusal(node, str(error)) from error
            except _FAILURES as error:
                first = (str(error).strip().splitlines() or [""])[0]
                raise self._refusal(node, f"{type(error).__name__}: {first}") from error

    def _refusal(self, node: ir.Node, why: str) -> SourceError:
        return SourceError(f"a node cannot be translated: {node.op_type}",
                           where=f'{self.where}, node "{node.name or node.outputs[0].name}"', why=why,
                           fix="export the model with fixed shapes, or rewrite this part of it")

    def _tensor(self, tensor: ir.TensorProtocol, name: str) -> torch.Tensor:
        try:
            array = tensor.numpy()
            if tensor.dtype == ir.DataType.BFLOAT16:
                return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
            return torch.from_numpy(np.array(array))  # a copy: files are mapped read-only
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise SourceError(f'the weight "{name}" cannot be read', where=self.where,
                              why=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
                              fix="copy the model again, with its external data files beside it") from error

    def _node(self, node: ir.Node) -> None:
        operands = [None if v is None else self.values[v.name] for v in node.inputs]
        if node.op_type == "If":
            self._branch(node, operands[0])
        elif node.op_type == "Constant":
            self.values[node.outputs[0].name] = Known(self._constant(node), node.outputs[0].name)
        elif node.op_type in ("MatMul", "Gemm"):
            self._product(node, operands)
        elif node.op_type == "Add" and self._bias(node, operands):
            pass
        else:
            self._call(node, operands)

    def _constant(self, node: ir.Node) -> torch.Tensor:
        (name, attribute), = node.attributes.items()
        if name == "value":
            return self._tensor(attribute.value, node.outputs[0].name)
        kinds = {"value_float": torch.float32, "value_floats": torch.float32, "value_int": torch.int64,
                 "value_ints": torch.int64}
        if name not in kinds:
            raise NotCovered(f"a constant given as {name} is not covered")
        return torch.tensor(attribute.value, dtype=kinds[name])

    def _branch(self, node: ir.Node, condition: Known | Live) -> None:
        if isinstance(condition, Live):
            raise NotCovered(f"its condition depends on {', '.join(sorted(condition.roots))}")
        taken = node.attributes["then_branch" if bool(condition.tensor) else "else_branch"].value
        self._graph(taken)
        for out, inner in zip(node.outputs, taken.outputs, strict=True):
            self.values[out.name] = self.values[inner.name]

    def _call(self, node: ir.Node, operands: list[Known | Live | None]) -> None:
        entry, attributes = TABLE[node.op_type], self._attributes(node)
        if entry.of_shape:
            x = operands[0]
            tensor = entry.function(attributes, x.meta if isinstance(x, Live) else x.tensor)
            self.values[node.outputs[0].name] = Known(tensor, node.outputs[0].name)
            return
        given = []
        for i, value in enumerate(operands):
            if (i in entry.known or entry.of_values) and isinstance(value, Live):
                roots = ", ".join(sorted(value.roots))
                raise NotCovered(f"a shape or number that must be constant depends on the values of {roots}")
            as_number = isinstance(value, Known) and (i in entry.known or i in entry.maybe)
            given.append(value.tensor.tolist() if as_number else value)
        self._emit(node, lambda *xs: entry.function(attributes, *xs), given, entry.weights)

    def _attributes(self, node: ir.Node) -> Attributes:
        values = {n: self._tensor(a.value, n) if a.type == ir.AttributeType.TENSOR else
                  list(a.value) if isinstance(a.value, (list, tuple)) else a.value for n, a in node.attributes.items()}
        read = [i for i, o in enumerate(node.outputs) if o.uses() or o.is_graph_output()]
        return Attributes(values, len(node.outputs), max(read, default=-1) + 1, self.opset)

    def _emit(self, node: ir.Node, function: Callable, given: list, weights=frozenset()) -> None:
        """Constant-fold if all operands are known, else emit a step. given: Known, Live, or a plain Python value."""
        names = tuple(o.name for o in node.outputs)
        live = [v for v in given if isinstance(v, Live)]
        if not live:
            result = function(*(v.tensor if isinstance(v, Known) else v for v in given))
            for name, tensor in zip(names, result if isinstance(result, tuple) else (result,), strict=False):
                self.values[name] = Known(tensor.contiguous(), name)
            return
        meta = function(*(v.meta if isinstance(v, Live) else v.tensor.to("meta") if isinstance(v, Known) else v
                          for v in given))
        roots = frozenset().union(*(v.roots for v in live))
        for name, m in zip(names, meta if isinstance(meta, tuple) else (meta,), strict=False):
            self.values[name] = Live(name, m, roots)
        operands = tuple(Ref(v.ref) if isinstance(v, Live) else self._held(v, i in weights) if isinstance(v, Known)
                         else v for i, v in enumerate(given))
        self.steps.append(Step(function, operands, names))

    def _held(self, value: Known, is_weight: bool) -> Ref:
        (self.weights if is_weight else self.constants).setdefault(value.name, value.tensor)
        return Ref(value.name)

    def _product(self, node: ir.Node, operands: list[Known | Live | None]) -> None:
        """MatMul and Gemm: a Linear if the right operand is a constant matrix and the left one is not constant."""
        a, b, c = (*operands, None)[:3]
        flags = {n: x.value for n, x in node.attributes.items()}
        alpha, beta = flags.get("alpha", 1.0), flags.get("beta", 1.0)
        left, right = flags.get("transA", 0), flags.get("transB", 0)
        if not (isinstance(a, Live) and isinstance(b, Known) and b.tensor.dim() == 2):
            def gemm(x, y, z=None):
                product = torch.matmul(x.mT if left else x, y.mT if right else y)
                product = product if alpha == 1.0 else alpha * product
                return product if z is None else product + (z if beta == 1.0 else beta * z)

            self._emit(node, gemm, [a, b] if c is None else [a, b, c], frozenset({0, 1}))
            return
        matrix = b.tensor if right else b.tensor.t().contiguous()
        weight = replace(b, tensor=matrix if alpha == 1.0 else alpha * matrix,
                         name=b.name if right and alpha == 1.0 else f"{b.name}.linear_{alpha:g}_{right}")
        bias = _row(c, matrix.shape[0], beta) if isinstance(c, Known) and _is_row(c.tensor, matrix.shape[0]) else None

        def linear(x, w, row=None, rest=None):
            y = F.linear(x.mT if left else x, w, row)
            return y if rest is None else y + (rest if beta == 1.0 else beta * rest)

        self._emit(node, linear, [a, weight, bias, c if bias is None else None], frozenset({1, 2}))
        out = node.outputs[0]
        if c is None and len(out.uses()) == 1 and not out.is_graph_output():
            self.linears[out.name] = self.steps[-1], matrix

    def _bias(self, node: ir.Node, operands: list[Known | Live | None]) -> bool:
        """Fold an Add into the Linear before it as its bias; returns whether it did."""
        for x, c in (operands, operands[::-1]):
            if isinstance(x, Live) and isinstance(c, Known) and x.ref in self.linears:
                step, matrix = self.linears[x.ref]
                if c.tensor.dim() == 1 and _is_row(c.tensor, matrix.shape[0]):
                    bias, name = _row(c, matrix.shape[0]), node.outputs[0].name
                    self.steps.remove(step)
                    self.steps.append(Step(step.function, (*step.operands[:2], self._held(bias, True)), (name,)))
                    self.values[name] = Live(name, x.meta, x.roots)
                    return True
        return False


def _row(value: Known, columns: int, factor: float = 1.0) -> Known:
    """The constant as the bias [columns] of a Linear; under a new name if it was changed."""
    if factor == 1.0 and value.tensor.shape == (columns,):
        return value
    tensor = (factor * value.tensor).reshape(-1).expand(columns).contiguous()
    return Known(tensor, f"{value.name}.bias_{factor:g}_{columns}")


def _is_row(tensor: torch.Tensor, columns: int) -> bool:
    """Whether the tensor adds the same row to every row."""
    return tensor.numel() in (1, columns) and all(n == 1 for n in tensor.shape[:-1])
