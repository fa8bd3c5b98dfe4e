"""Latency of one layer in ONNX Runtime on this CPU, by scheme and shape: the data behind targets/host.toml
[rates].

    python -m benchmarks.rates [--record]

Chains of equal layers on one thread; the minimum process CPU time of many runs, so that other load on the machine does
not count. Writes build/bench/rates.json (--record: profiles/host/rates.json): every shape, and the fitted rates.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from vlacompile.profile import machine

MICROSOFT, BLOCK, SECONDS = "com.microsoft", 32, 1.5


@dataclass(frozen=True)
class Case:
    """kind: "linear", "conv" or "depthwise". size: (rows, K, N), or (image side, channels in, channels out, kernel).
    layers: number of layers, alternating K x N and N x K. role: its use in the fit."""

    kind: str
    size: tuple[int, ...]
    layers: int
    role: str

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """Shape of each layer's weight: [N,K], or [N,C,kernel,kernel]."""
        for i in range(self.layers):
            a, b = self.size[1:3] if i % 2 == 0 else self.size[2:0:-1]
            if self.kind == "linear":
                yield b, a
            else:
                yield b, 1 if self.kind == "depthwise" else a, self.size[3], self.size[3]

    def flops(self) -> int:
        rows = self.size[0] if self.kind == "linear" else self.size[0] ** 2
        return sum(2 * rows * math.prod(s) for s in self.shapes())

    def stored(self, scheme: str) -> int:
        """Bytes of the weights with their scales."""
        total = 0
        for n, *rest in self.shapes():
            k = math.prod(rest)
            total += {"fp32": 4 * n * k, "int8": n * k + 4 * n,
                      "int4": n * math.ceil(k / BLOCK) * (BLOCK // 2 + 4)}[scheme]
        return total


CASES = (
    Case("linear", (197, 768, 3072), 4, "rate"), Case("linear", (50, 1024, 4096), 4, "rate"),
    Case("linear", (64, 512, 512), 16, "rate"), Case("linear", (16, 384, 1536), 16, "rate"),
    Case("linear", (10, 96, 384), 32, "call"), Case("linear", (10, 96, 96), 64, "call"),
    Case("linear", (1, 1024, 4096), 24, "bandwidth"), Case("linear", (1, 2048, 2048), 24, "bandwidth"),
    Case("conv", (32, 64, 64, 3), 8, "rate"), Case("conv", (32, 96, 24, 1), 16, "rate"),
    Case("conv", (16, 240, 40, 1), 16, "rate"), Case("conv", (8, 112, 672, 1), 16, "rate"),
    Case("depthwise", (32, 144, 144, 3), 8, "rate"), Case("depthwise", (16, 240, 240, 5), 8, "rate"),
    Case("depthwise", (8, 672, 672, 5), 8, "rate"))


class _Model:
    """A chain of layers under one scheme."""

    def __init__(self, case: Case, scheme: str):
        self.nodes, self.constants, self.random = [], [], np.random.default_rng(0)
        first = (case.size[0], case.size[1]) if case.kind == "linear" else (1, case.size[1], case.size[0], case.size[0])
        self.input = self.random.standard_normal(first, dtype=np.float32)
        value = "x"
        if scheme == "int8" and case.kind != "linear":
            value = self.node("QuantizeLinear", value, self.constant("s", np.float32(0.03)),
                              self.constant("z", np.uint8(128)))
        for i, shape in enumerate(case.shapes()):
            weight = self.random.standard_normal(shape, dtype=np.float32) / math.sqrt(math.prod(shape[1:]))
            value = getattr(self, f"{'linear' if case.kind == 'linear' else 'conv'}_{scheme}")(i, value, weight)
        if scheme == "int8" and case.kind != "linear":
            value = self.node("DequantizeLinear", value, "s", "z")
        self.value = value

    def finish(self, value: str) -> bytes:
        first = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input.shape)
        last = helper.make_tensor_value_info(value, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "chain", [first], [last], self.constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()

    def constant(self, name: str, array) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, **attributes) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def linear_fp32(self, i: int, x: str, w: np.ndarray) -> str:
        return self.node("MatMul", x, self.constant(f"w{i}", np.ascontiguousarray(w.T)))

    def linear_int8(self, i: int, x: str, w: np.ndarray) -> str:
        scale = np.abs(w).max(1) / 127
        q = np.ascontiguousarray(np.rint(w / scale[:, None]).astype(np.int8).T)
        return self.node("DynamicQuantizeMatMul", x, self.constant(f"w{i}", q), self.constant(f"s{i}", scale),
                         domain=MICROSOFT)

    def linear_int4(self, i: int, x: str, w: np.ndarray) -> str:
        n, k = w.shape
        blocks = np.zeros((n, math.ceil(k / BLOCK), BLOCK), np.float32)
        blocks.reshape(n, -1)[:, :k] = w
        scale = np.abs(blocks).max(2) / 7
        q = (np.rint(blocks / scale[..., None]) + 8).astype(np.uint8)
        packed = q[..., 0::2] | q[..., 1::2] << 4
        return self.node("MatMulNBits", x, self.constant(f"w{i}", packed), self.constant(f"s{i}", scale.reshape(-1)),
                         domain=MICROSOFT, K=k, N=n, bits=4, block_size=BLOCK, accuracy_level=4)

    def conv_fp32(self, i: int, x: str, w: np.ndarray) -> str:
        return self.node("Conv", x, self.constant(f"w{i}", w), **_of_conv(w))

    def conv_int8(self, i: int, x: str, w: np.ndarray) -> str:
        scale = np.abs(w).max((1, 2, 3)) / 127
        q = np.rint(w / scale[:, None, None, None]).astype(np.int8)
        return self.node("QLinearConv", x, "s", "z", self.constant(f"w{i}", q), self.constant(f"s{i}", scale),
                         self.constant(f"z{i}", np.zeros(len(w), np.int8)), "s", "z", **_of_conv(w))


def _of_conv(w: np.ndarray) -> dict:
    pad = w.shape[2] // 2
    return {"kernel_shape": w.shape[2:], "pads": [pad] * 4, "group": w.shape[0] if w.shape[1] == 1 else 1}


def edges(elements: int = 1 << 16, pairs: int = 16) -> float:
    """Activations quantised or dequantised, 1e9 per second: the conversion cost of a static int8 layer between fp32
    layers."""
    times = {}
    for quantised in (True, False):
        model = _Model(Case("linear", (1, elements, 1), 0, ""), "fp32")
        value = "x"
        if quantised:
            scale, zero = model.constant("s", np.float32(0.03)), model.constant("z", np.uint8(128))
        for _ in range(pairs):
            if quantised:
                value = model.node("DequantizeLinear", model.node("QuantizeLinear", value, scale, zero), scale, zero)
            value = model.node("Neg", value)  # directly adjacent pairs would be optimised away
        times[quantised] = _least_us(model.finish(value), model.input)
    return 2 * pairs * elements / (times[True] - times[False]) / 1e3


def microseconds(case: Case, scheme: str) -> float:
    """Latency of one layer."""
    model = _Model(case, scheme)
    return _least_us(model.finish(model.value), model.input) / case.layers


def _least_us(model: bytes, example: np.ndarray) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    feed, times, until = {"x": example}, [], time.monotonic() + SECONDS
    while time.monotonic() < until or len(times) < 5:
        begin = time.process_time_ns()
        session.run(None, feed)
        times.append(time.process_time_ns() - begin)
    return min(times) / 1e3


def fit(rows: list[dict], scheme: str) -> dict[str, float]:
    """call_us from layers with negligible work, then rates from the time of the others beyond it."""
    mine = [r for r in rows if r["scheme"] == scheme]
    of = lambda kind, role: [r for r in mine if (r["kind"], r["role"]) == (kind, role)]
    gflops = lambda r, call: r["mflop"] * 1e3 / (r["us"] - call)
    rates = {"gbps": round(median(r["bytes"] / r["us"] / 1e3 for r in of("linear", "bandwidth")), 1)}
    fast = max(gflops(r, 0.0) for r in of("linear", "rate"))
    call = max(0.0, min(r["us"] - r["mflop"] * 1e3 / fast for r in of("linear", "call")))
    rates["call_us"] = round(call, 2)
    for kind in ("linear", "conv", "depthwise"):
        found = [gflops(r, call) for r in of(kind, "rate")]
        if found:
            rates[f"{kind}_gflops"] = round(median(found), 1)
    return rates


def predicted(row: dict, rates: dict[str, float]) -> float:
    """The same formula as in vlacompile/compiler/precision/assign/layer_costs.py."""
    compute, read = row["mflop"] * 1e3 / rates[f"{row['kind']}_gflops"], row["bytes"] / rates["gbps"] / 1e3
    return rates["call_us"] + max(compute, read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    record = parser.parse_args().record
    rows: list[dict] = []
    for case in CASES:
        rows += [{"kind": case.kind, "size": list(case.size), "role": case.role, "scheme": scheme,
                  "us": microseconds(case, scheme), "mflop": case.flops() / case.layers / 1e6,
                  "bytes": case.stored(scheme) / case.layers}
                 for scheme in (("fp32", "int8", "int4") if case.kind == "linear" else ("fp32", "int8"))]
    rates = {scheme: fit(rows, scheme) for scheme in ("fp32", "int8", "int4")}
    rates["int8"]["edge_geps"] = round(edges(), 2)
    for row in rows:
        row["predicted_us"] = predicted(row, rates[row["scheme"]])
        print(f"{row['kind']:9} {'x'.join(map(str, row['size'])):16} {row['scheme']:5} {row['us']:9.1f} us, predicted "
              f"{row['predicted_us']:9.1f}, {row['mflop'] / row['us'] * 1e3:7.1f} GFLOP/s, "
              f"{row['bytes'] / row['us'] / 1e3:5.1f} GB/s")
    for scheme, found in rates.items():
        print(f"{scheme}: {found}")
    out = Path("profiles/host" if record else "build/bench") / "rates.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rates": rates, "rows": rows, "machine": machine.describe()}, indent=1) + "\n",
                   encoding="utf-8")


if __name__ == "__main__":
    main()
