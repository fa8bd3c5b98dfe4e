"""The op table of the ONNX frontend against the ONNX standard's own test cases: their models, inputs and expected
outputs. What a case gives as an input although it has to be known (shapes, axes) is made a constant."""

from __future__ import annotations

import re
import warnings

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

with warnings.catch_warnings():  # computing the expected values divides by zero on purpose
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    CASES = {c.name: c for c in collect_testcases(None)}

from vlacompile.frontends.onnx.elementwise import TYPES
from vlacompile.frontends.onnx.ops import TABLE
from vlacompile.frontends.onnx.translate import SPECIAL, translate
from vlart.errors import SourceError

# Cases that are refused, and how the reason begins. A new one has to be entered here knowingly.
REFUSED = {
    "select_last_index": "select_last_index=1", "averagepool.*dilations": "dilations", "ceil_last_window": "ceil_mode",
    "training_mode": "training_mode=1", "training_dropout": "training_mode", "dropout_default_mask": "its mask",
    "convtranspose_autopad_same": "auto_pad", "convtranspose_(kernel|output)_shape": "output_shape",
    "batch_dim1": "batch_dims",
    "maxpool_with_argmax": "its indices", "reduce_(max|min)_empty_set": "RuntimeError", "gridsample_bicubic": "mode",
    "resize_(down|up)sample_scales.*": "(scale|exclude_outside|mode='cubic' with 'asymm|antialias)",
    "antialias": "antialias",
    "resize_.*_not_(larger|smaller)": "keep_aspect_ratio_policy", "resize_tf_crop": "mode='linear' with 'tf_crop",
    "resize_.*_pytorch_half_pixel": "pytorch_half_pixel to one", "scatter.*(max|min|mul)": "reduction=",
    "test_if$": "its cond",
    "spacetodepth_crd_mode": "mode",
}
# Which of equal elements TopK names first is not said by PyTorch; the compiled op is ONNX's again.
TIES = "top_k_same_values"


def covered(case) -> bool:
    nodes = case.model.graph.node
    kinds = {v.type.tensor_type.elem_type for v in (*case.model.graph.input, *case.model.graph.output)}
    return (len(nodes) == 1 and nodes[0].op_type in TABLE.keys() | SPECIAL and kinds <= TYPES.keys()
            and len(case.data_sets) == 1 and TIES not in case.name)


NAMES = sorted(n for n, c in CASES.items() if covered(c))


def tensor(data) -> torch.Tensor:
    array = np.array(onnx.numpy_helper.to_array(data) if isinstance(data, onnx.TensorProto) else data)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def run(name: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    case = CASES[name]
    model = ir.from_proto(case.model)
    arrays, expected = case.data_sets[0]
    node = next(iter(model.graph))
    entry = TABLE.get(node.op_type)
    order = {v.name: i for i, v in enumerate(node.inputs) if v is not None}
    inputs = {}
    for value, array in zip(list(model.graph.inputs), arrays, strict=True):
        if entry is not None and (order.get(value.name) in entry.known or entry.of_values):
            value.const_value = ir.tensor(tensor(array), name=value.name)
            model.graph.inputs.remove(value)
            model.graph.register_initializer(value)
        else:
            inputs[value.name] = tensor(array)
    outputs = tuple(o.name for o in model.graph.outputs)
    module = translate(model, inputs, outputs, name)
    with torch.no_grad():
        got = module(**inputs)
    return [got[n] for n in outputs], [tensor(e) for e in expected]


@pytest.mark.parametrize("name", NAMES)
def test_case_of_the_standard(name):
    reason = next((r for pattern, r in REFUSED.items() if re.search(pattern, name)), None)
    try:
        got, expected = run(name)
    except SourceError as error:
        assert reason is not None and re.match(reason, error.why), error
        return
    for g, e in zip(got, expected, strict=True):
        wide = {torch.float16: 1e-3, torch.bfloat16: 1e-2}.get(e.dtype, 1e-5)
        torch.testing.assert_close(g, e, rtol=wide, atol=1e-5, equal_nan=True)


def test_every_op_has_a_case():
    ops = {CASES[n].model.graph.node[0].op_type for n in NAMES}
    assert not (TABLE.keys() | SPECIAL) - ops, (TABLE.keys() | SPECIAL) - ops


GEMMS = [{"a": a, "b": b, "alpha": alpha, "beta": beta, "bias": bias} for a in (0, 1) for b in (0, 1)
         for alpha, beta in ((1.0, 1.0), (0.5, 2.0)) for bias in (None, (), (1,), (5,), (1, 5), (4, 5), (4, 1))]


@pytest.mark.parametrize("form", GEMMS, ids=str)
def test_products_with_constant_matrices(form):
    """As a Linear, with its bias where that is the same in each row. Another reader of the constants must not see it
    changed."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((5, 3) if form["b"] else (3, 5)).astype(np.float32)
    constants = [onnx.numpy_helper.from_array(matrix, "w")]
    nodes = [onnx.helper.make_node("Gemm", ["x", "w"], ["product"], alpha=form["alpha"], transA=form["a"],
                                   transB=form["b"])]
    if form["bias"] is not None:
        constants.append(onnx.numpy_helper.from_array(rng.standard_normal(form["bias"]).astype(np.float32), "c"))
        nodes[0].input.append("c")
        nodes[0].attribute.append(onnx.helper.make_attribute("beta", form["beta"]))
        nodes += [onnx.helper.make_node("Add", ["s", "c"], ["plus"]),
                  onnx.helper.make_node("MatMul", ["t", "w"], ["m"]),
                  onnx.helper.make_node("Add", ["c", "m"], ["y"])]
    else:
        nodes += [onnx.helper.make_node("Identity", ["s"], ["plus"]),
                  onnx.helper.make_node("MatMul", ["t", "w"], ["y"])]
    shapes = {"x": (3, 4) if form["a"] else (4, 3), "s": (2, 4, 1), "t": (4, matrix.shape[0])}
    info = onnx.helper.make_tensor_value_info
    outputs = ["product", "plus", "y"]
    compatible = form["bias"] in (None, (), (1,)) or not form["b"] or form["bias"] == (4, 1)
    if not compatible:
        nodes[2:] = [onnx.helper.make_node("MatMul", ["t", "w"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [info(n, 1, s) for n, s in shapes.items()],
                                   [info(n, 1, None) for n in outputs], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    given = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(outputs, given)
    inputs = {n: torch.from_numpy(a) for n, a in given.items()}
    module = translate(ir.from_proto(model), inputs, tuple(outputs), "test")
    for got, expected in zip(module(**inputs).values(), want, strict=True):
        torch.testing.assert_close(got, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    called = torch.fx.experimental.proxy_tensor.make_fx(lambda x, s, t: module(x=x, s=s, t=t)["product"],
                                                        pre_dispatch=True)(*inputs.values()).code
    assert "aten.linear" in called and "aten.matmul" not in called.split("linear")[0], called
