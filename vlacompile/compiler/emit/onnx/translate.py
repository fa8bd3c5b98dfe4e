"""A lowered graph -> ONNX, op by op, by the functions that torch.onnx has for them (torch 2.13, `exporter/_core.py`).

`torch.onnx.export` would trace the graph again, which is a graph of ATen ops already. Must not know stages.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir
import onnxscript
import torch
from onnxscript import evaluator
from onnxscript._framework_apis import torch_2_11 as onnxscript_for_torch
from torch.fx import Graph, Node
from torch.onnx._internal.exporter import (
    _building,
    _core,
    _dispatching,
    _errors,
    _ir_passes,
    _registration,
    _tensors,
)

from vlacompile.compiler.emit.onnx.functions import quietly, table

LINE = "line"  # key in the metadata of an ONNX node: the stack trace of the op that it was made of


class NotTranslated(Exception):
    """An op has no ONNX, or its function failed (the cause)."""

    def __init__(self, node: Node, why: str):
        super().__init__(why)
        self.node = node


def translate(graph: Graph, constants: Mapping[str, torch.Tensor], opset: int, inputs: Sequence[str],
              outputs: Sequence[str]) -> ir.Model:
    """inputs, outputs: names of the ports. Raises NotTranslated."""
    with quietly(), torch.no_grad():
        translation = _Translation(table(opset), constants)
        for node in graph.nodes:
            translation.take(node)
        model = translation.model
        _ir_passes.add_opset_imports(model)
        model = onnxscript_for_torch.convert_version(model, opset)
        _ir_passes.rename_inputs(model, inputs)
        _ir_passes.rename_outputs(model, outputs)
    return model


class _Translation:
    """values: {name of a node: its value, or one per result}. farm: Python numbers that have become constants."""

    def __init__(self, registry: _registration.ONNXRegistry, constants: Mapping[str, torch.Tensor]):
        self.registry, self.constants = registry, constants
        self.opset = onnxscript.values.Opset("", registry.opset_version)
        self.values: dict[str, ir.Value | Sequence[ir.Value]] = {}
        self.farm: dict = {}
        self.model = ir.Model(ir.Graph([], [], nodes=[], name="main_graph"), ir_version=10)

    def take(self, node: Node) -> None:
        if node.op == "placeholder":
            self.model.graph.inputs.append(self._input(node.name, node.name, node.meta["val"]))
        elif node.op == "get_attr":
            tensor = self.constants[node.target]
            value = self._input(node.name, node.target, tensor)
            value.const_value = _core.TorchTensor(tensor, name=node.target)
            self.model.graph.initializers[node.target] = value
        elif node.op == "output":
            for result in node.args[0]:
                self.model.graph.outputs.append(self.values[result.name])
        elif node.target is operator.getitem and isinstance(self.values[node.args[0].name], Sequence):
            value = self.values[node.args[0].name][node.args[1]]
            value.name = node.name
            self.values[node.name] = value
        else:
            self._op(node)

    def _input(self, key: str, name: str, like: torch.Tensor) -> ir.Value:
        value = _tensors.SymbolicTensor(self.opset, name=name)
        _core._set_shape_type(value, like, complex_to_float=True)
        self.values[key] = value
        return value

    def _op(self, node: Node) -> None:
        function, message = _dispatching.dispatch(node, self.registry)
        if function is None:
            raise NotTranslated(node, message)
        convert = functools.partial(_core._convert_fx_arg_to_onnx_arg, node_name_to_values=self.values,
                                    node_name_to_local_functions={})
        args = [convert(a) for a in node.args]
        kwargs = {k: convert(v) for k, v in node.kwargs.items()}
        if kwargs.get("dtype", 0) is None:
            kwargs["dtype"] = -1  # as torch.onnx: none is given
        recorder = _Recorder(self.opset, self.farm)
        with evaluator.default_as(recorder):
            try:
                results = function(*args, **kwargs)
            except Exception as error:  # whatever a function raises
                raise NotTranslated(node, str(error)) from error
        self._record(node, recorder, results)

    def _record(self, node: Node, recorder: _Recorder, results) -> None:
        for identifier, called in recorder.functions.items():
            if identifier not in self.model.functions:
                self.model.functions[identifier] = called if isinstance(called, ir.Function) else \
                    ir.serde.deserialize_function(called.to_function_proto())
        several = isinstance(results, Sequence)
        vals = node.meta["val"] if several else (node.meta["val"],)
        for i, (value, val) in enumerate(zip(results if several else (results,), vals, strict=False)):
            _core._set_shape_type(value, val, complex_to_float=True)
            value.name = f"{node.name}__{i}" if several else node.name
            if (producer := value.producer()) is not None:
                producer.name = f"node_{value.name}"
        self.values[node.name] = results
        for made in recorder.nodes:
            made.metadata_props[LINE] = node.meta["stack_trace"]
        self.model.graph.extend(recorder.nodes)


class _Recorder(_building.OpRecorder):
    """torch.onnx's, which reads the schema of an ONNX op anew whenever the op is used."""

    def eval(self, schema: onnx.defs.OpSchema, args, kwargs):
        try:
            signature = _signature(schema.name, schema.domain, schema.since_version) if _is_listed(schema) else \
                ir.schemas.OpSignature.from_op_schema(schema)
            named, attributes = _building._construct_named_inputs_and_attrs(signature, args, kwargs)
            outputs = self._call_op(signature, named, attributes,
                                    _building._determine_output_number(signature, attributes))
        except Exception as error:
            raise _errors.GraphConstructionError(f"Error calling operator '{schema.name}'.") from error
        return outputs[0] if len(outputs) == 1 else outputs


def _is_listed(schema: onnx.defs.OpSchema) -> bool:
    return schema.domain == ""


@functools.cache
def _signature(name: str, domain: str, version: int) -> ir.schemas.OpSignature:
    return ir.schemas.OpSignature.from_op_schema(onnx.defs.get_schema(name, version, domain))
