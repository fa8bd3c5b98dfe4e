"""Attention with its products in int8, through NVIDIA's offline compiler: which kernels it makes of it.

    python -m benchmarks.int8_attention [--record]

At the head sizes of the published policies, in fp16, with the scores in int8, and with both products in int8 (explicit
Q/DQ around their operands, as TensorRT reads it). Needs the extra `rtx` and no GPU: nothing is run, and of time it says
only what a kernel count and the bytes between kernels say. --record: profiles/attention/int8.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vlacompile.check.compile import CAPABILITY, compile_stage, require_compiler
from vlart.files.atomic import write_whole

RECORD = Path(__file__).parents[1] / "profiles" / "attention" / "int8.json"
SHAPES = {"vision tower, 16x16 patches": (12, 256, 256, 64), "vision tower, 32x32 patches": (12, 1024, 1024, 64),
          "vision tower, heads of 72": (16, 256, 256, 72), "action expert over a prefix": (8, 50, 600, 128)}
FORMS = ("fp16", "scores in int8", "both products in int8")
STEP = 0.03  # of a quantised operand; no kernel depends on it


def attention(form: str, heads: int, queries: int, keys: int, width: int) -> onnx.ModelProto:
    """softmax(q k^T / sqrt(width)) v, in fp16."""
    nodes, constants = [], [numpy_helper.from_array(np.array(0, np.int8), "zero")]

    def constant(name: str, value: float) -> str:
        constants.append(numpy_helper.from_array(np.array(value, np.float16), name))
        return name

    def quantised(name: str, step: float = STEP) -> str:
        scale = constant(f"{name}_scale", step)
        nodes.append(helper.make_node("QuantizeLinear", [name, scale, "zero"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", scale, "zero"], [f"{name}_dq"]))
        return f"{name}_dq"

    q, k = ("q", "k") if form == "fp16" else (quantised("q"), quantised("k"))
    nodes.append(helper.make_node("Transpose", [k], ["k_turned"], perm=[0, 1, 3, 2]))
    nodes.append(helper.make_node("MatMul", [q, "k_turned"], ["products"]))
    nodes.append(helper.make_node("Mul", ["products", constant("factor", width ** -0.5)], ["scores"]))
    nodes.append(helper.make_node("Softmax", ["scores"], ["shares"], axis=-1))
    both = form == FORMS[2]
    shares, v = (quantised("shares", 1 / 127), quantised("v")) if both else ("shares", "v")
    nodes.append(helper.make_node("MatMul", [shares, v], ["out"]))
    ports = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT16, [1, heads, rows, width])
             for n, rows in (("q", queries), ("k", keys), ("v", keys), ("out", queries))}
    graph = helper.make_graph(nodes, "attention", [ports[n] for n in "qkv"], [ports["out"]], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def compiled(form: str, shape: tuple[int, int, int, int]) -> dict:
    """What the compiler made of it: kernels that compute, whether one of them is its attention kernel, and the bytes of
    values between kernels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attention.onnx"
        onnx.save(attention(form, *shape), path)
        attempt = compile_stage(path)
    assert attempt.compiled is not None, attempt
    kernels = [k for k in attempt.compiled.kernels if k.nodes]
    return {"form": form, "shape": list(shape), "compiler": attempt.compiler, "kernels": len(kernels),
            "fused": any(k.attention for k in kernels),
            "int8_products": sum(k.kind == "gemm" and k.inputs == ("Int8", "Int8") for k in kernels),
            "between_bytes": attempt.compiled.activation_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="save what was found to profiles/attention")
    record = parser.parse_args().record
    require_compiler()
    rows = []
    for what, shape in SHAPES.items():
        for form in FORMS:
            rows.append({"what": what} | compiled(form, shape))
            r = rows[-1]
            print(f"{what:30} {form:24} {r['kernels']} kernels, fused: {'yes' if r['fused'] else 'no':4}"
                  f"{r['between_bytes'] / 1e6:6.1f} MB between them", flush=True)
    if record:
        RECORD.parent.mkdir(exist_ok=True)
        write_whole(RECORD, (json.dumps({"capability": CAPABILITY, "rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
