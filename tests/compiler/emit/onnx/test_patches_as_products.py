from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.samples.small_onnx import weight, write
from vlacompile.check.compile import compile_stage
from vlacompile.compiler.emit.onnx.patches_as_products import patches_as_products

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                                    reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")
HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def embedding(path, size, counts, *, batch=1, channels=3, outputs=8, kind=SINGLE, bias=True, tokens=False,
              strides=None, **attributes) -> ir.Model:
    """tokens: rows of patches are read, as by a transformer."""
    dtype = np.float16 if kind == HALF else np.float32
    image = [n * p for n, p in zip(counts, size, strict=True)]
    strides = list(size) if strides is None else strides
    shape = [1 + (n - p) // s for n, p, s in zip(image, size, strides, strict=True)]
    nodes = [helper.make_node("Conv", ["x", "w", "bias"][:2 + bias], ["c" if tokens else "y"], name="conv",
                              kernel_shape=list(size), strides=strides, **attributes)]
    tensors = [weight("w", outputs, channels // attributes.get("group", 1), *size, dtype=dtype)]
    tensors += [weight("bias", outputs, dtype=dtype)] if bias else []
    rows = int(np.prod(shape))
    if tokens:
        nodes += [helper.make_node("Reshape", ["c", "flat"], ["r"], name="flatten"),
                  helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 1], name="turn")]
        tensors.append(onnx.numpy_helper.from_array(np.array([batch, outputs, rows], np.int64), "flat"))
    write(path, nodes, [("x", kind, [batch, channels, *image])],
          [("y", kind, [batch, rows, outputs] if tokens else [batch, outputs, *shape])], tensors)
    path.write_bytes(onnx.shape_inference.infer_shapes(onnx.load(path)).SerializeToString())
    return ir.load(path)


def answer(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(),
                                        providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def ops(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16),
       axes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3), batch=st.integers(1, 2),
       channels=st.integers(1, 3), bias=st.booleans(), tokens=st.booleans())
def test_the_product_is_the_convolution(tmp_path_factory, seed, axes, batch, channels, bias, tokens):
    size, counts = zip(*axes, strict=True)
    model = embedding(tmp_path_factory.mktemp("m") / "m.onnx", size, counts, batch=batch, channels=channels, bias=bias,
                      tokens=tokens)
    x = np.random.default_rng(seed).standard_normal(tuple(model.graph.inputs[0].shape)).astype(np.float32)
    want = answer(model, x)
    fired = patches_as_products(model)
    assert bool(fired) == (np.prod(size) > 1)
    assert ("Conv" in ops(model)) != bool(fired) and [v.name for v in model.graph.outputs] == ["y"]
    np.testing.assert_allclose(answer(model, x), want, rtol=1e-5, atol=1e-5)
    assert not fired or not patches_as_products(model)


def test_rows_of_tokens_are_the_product_itself(tmp_path):
    model = embedding(tmp_path / "m.onnx", (4, 4), (3, 3), tokens=True)
    fired, = patches_as_products(model)
    assert (fired.rule, fired.count) == ("tensorrt.patch_products", 1)
    assert ops(model) == ["Reshape", "Transpose", "Reshape", "MatMul", "Add"]


@pytest.mark.parametrize("settings", [
    {"strides": [2, 2]}, {"pads": [1, 1, 1, 1]}, {"group": 3, "outputs": 9}, {"dilations": [2, 2]},
    {"auto_pad": "SAME_UPPER"}])
def test_other_convolutions_stay(tmp_path, settings):
    path = tmp_path / "m.onnx"
    model = embedding(path, (4, 4), (3, 3), **settings) if settings.keys() <= {"strides", "group", "outputs"} else \
        embedding(path, (4, 4), (3, 3))
    node = next(n for n in model.graph if n.op_type == "Conv")
    for key in settings.keys() & {"pads", "dilations", "auto_pad"}:
        node.attributes[key] = ir.AttrString(key, settings[key]) if key == "auto_pad" else \
            ir.AttrInt64s(key, settings[key])
    assert not patches_as_products(model) and ops(model) == ["Conv"]


@needs_compiler
@pytest.mark.parametrize("tokens", [True, False])
def test_the_compiler_accepts_it(tmp_path, tokens):
    model = embedding(tmp_path / "m.onnx", (16, 16), (14, 14), outputs=256, kind=HALF, tokens=tokens)
    patches_as_products(model)
    ir.save(model, tmp_path / "r.onnx")
    assert compile_stage(tmp_path / "r.onnx").compiled is not None
