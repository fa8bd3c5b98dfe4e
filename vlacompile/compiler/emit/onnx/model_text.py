"""The ONNX graph of a stage as text, one line per node, for people and for golden tests. The content of large constants
is not printed."""

from __future__ import annotations

import onnx_ir as ir

LARGEST = 8  # integer constants of up to so many elements are printed: shapes and axes


def model_text(name: str, model: ir.Model) -> str:
    """Lines "%y = Gemm(%x, %w, %b) transB=1 f32[1,8]"."""
    graph = model.graph
    lines = [f'stage "{name}" opset {model.opset_imports.get("", 0)}']
    lines += [f"  %{v.name} = input {_type(v)}" for v in graph.inputs]
    lines += [f"  %{v.name} = constant {_type(v)}{_numbers(v)}" for v in graph.initializers.values()]
    for node in graph:
        op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        read = ", ".join("none" if v is None else f"%{v.name}" for v in node.inputs)
        how = "".join(f" {a.name}={_attribute(a)}" for a in node.attributes.values())
        made = ", ".join(f"%{v.name}" for v in node.outputs)
        lines.append(f"  {made} = {op}({read}){how} {' '.join(_type(v) for v in node.outputs)}")
    return "\n".join([*lines, "  return " + ", ".join(f"%{v.name}" for v in graph.outputs)]) + "\n"


def _type(value: ir.Value) -> str:
    kind = "?" if value.dtype is None else value.dtype.short_name()
    return f"{kind}[{'?' if value.shape is None else ','.join(map(str, value.shape))}]"


def _numbers(value: ir.Value) -> str:
    tensor = value.const_value
    return "" if tensor is None or not _is_printed(tensor) else f" {tensor.numpy().tolist()}"


def _attribute(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        shape = f"{tensor.dtype.short_name()}{list(tensor.shape)}"
        return str(tensor.numpy().tolist()) if _is_printed(tensor) else shape
    return str(attribute.value)


def _is_printed(tensor: ir.TensorProtocol) -> bool:
    return tensor.size == 1 or (tensor.size <= LARGEST and tensor.dtype.is_integer())
