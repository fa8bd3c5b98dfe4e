"""Small bundles written record by record, for the tests of libvlart.

Owns its own writer on purpose: it knows `vlart.bundle.format.layout` and nothing else of the
compiler, so that a mistake in the compiler's writer cannot hide one in the reader.
"""

from __future__ import annotations

import copy
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from vlart import vocabulary
from vlart.bundle.format import layout

NONE = layout.NONE
DTYPES = {np.dtype(np.float32): "f32", np.dtype(np.uint8): "u8", np.dtype(np.int64): "i64", np.dtype(np.bool_): "bool",
          np.dtype(np.float64): "f64", np.dtype(np.float16): "f16", np.dtype(np.int32): "i32", np.dtype(np.int8): "i8"}


def padded(dims) -> tuple[int, ...]:
    return tuple(dims) + (1,) * (layout.MAX_RANK - len(dims))


@dataclass
class Container:
    """Sections as lists of dicts, so that a test can change any field before packing."""

    magic: bytes
    names: tuple[str, ...]
    records: dict[str, list[dict]] = field(default_factory=dict)
    strings: bytes = b""
    blob: bytes = b""
    later: bool = False  # write as a later minor version could: longer records and a section more

    def string(self, text: str) -> int:
        data = text.encode(errors="surrogateescape") + b"\0"
        at = (b"\0" + self.strings).find(b"\0" + data)
        if at < 0:
            at = len(self.strings)
            self.strings += data
        return at

    def add(self, section: str, **values) -> int:
        rows = self.records.setdefault(section, [])
        rows.append(values)
        return len(rows) - 1

    def scalars(self, section: str, values) -> int:
        rows = self.records.setdefault(section, [])
        rows += [{"value": v} for v in values]
        return len(rows) - len(list(values))

    def add_blob(self, data: bytes) -> int:
        self.blob += b"\0" * (-len(self.blob) % layout.ALIGN)
        self.blob += data
        return len(self.blob) - len(data)

    def section_bytes(self, name: str) -> tuple[bytes, int]:
        record, stride = layout.SECTIONS[layout.SECTION_ID[name]][1:]
        if name in ("strings", "blob"):
            return getattr(self, name), stride
        rows = self.records.get(name, [])
        if record is None:
            code = "<f" if name == "floats" else "<I"
            return b"".join(struct.pack(code, r["value"]) for r in rows), stride
        tail = b"\xff" * 8 * self.later
        return b"".join(record.pack(**r) + tail for r in rows), record.size + len(tail)

    def to_bytes(self) -> bytes:
        sections = [(layout.SECTION_ID[name], *self.section_bytes(name)) for name in self.names]
        if self.later:
            sections.insert(3, (99, b"\xff" * 36, 12))
        first = layout.align_up(layout.HEADER.size + layout.SECTION.size * len(sections))
        table, payload = b"", b""
        for number, data, stride in sections:
            payload += b"\0" * (-len(payload) % layout.ALIGN)
            table += layout.SECTION.pack(id=number, stride=stride, count=len(data) // stride,
                                         offset=first + len(payload), bytes=len(data))
            payload += data
        body = table.ljust(first - layout.HEADER.size, b"\0") + payload
        return sealed(layout.HEADER.pack(
            magic=struct.unpack("<2I", self.magic), version_major=layout.FORMAT_MAJOR,
            version_minor=layout.FORMAT_MINOR + self.later, file_bytes=layout.HEADER.size + len(body),
            section_count=len(sections), payload_crc32=0, header_crc32=0) + body)


def sealed(data: bytes) -> bytes:
    """The same file with its two checksums made right, whatever else is wrong with it."""
    size = layout.HEADER.size
    if len(data) < size:
        return data
    head = bytearray(data[:size])
    head[28:32] = struct.pack("<I", zlib.crc32(data[size:]))
    head[60:64] = struct.pack("<I", zlib.crc32(bytes(head[:60])))
    return bytes(head) + data[size:]


class Bundle:
    """A bundle in the making: values, weights, stages by name, then `write`."""

    def __init__(self, name: str):
        self.plan = Container(layout.PLAN_MAGIC, layout.PLAN_SECTIONS)
        self.golden = Container(layout.FRAMES_MAGIC, layout.FRAMES_SECTIONS)
        self.weights = b""
        self.files: dict[str, bytes] = {}
        self.values: dict[str, int] = {}
        self.arena_bytes = 0
        s = self.plan.string
        self.plan.add("policy", name=s(name), target=s("host"), recipe=s("default"), action_value=NONE,
                      chunk_steps=0, execute_steps=0, action_dim=0, low_begin=0, low_count=0, high_begin=0,
                      high_count=0, deadline_us=0, arena_bytes=0)

    @property
    def policy(self) -> dict:
        return self.plan.records["policy"][0]

    def value(self, name: str, dtype: str, dims, weight: int = NONE) -> int:
        count = int(np.prod(dims, dtype=np.int64)) * vocabulary.DTYPE_BYTES[dtype]
        offset = 0
        if weight == NONE:
            offset, self.arena_bytes = self.arena_bytes, layout.align_up(self.arena_bytes + count)
        self.values[name] = self.plan.add(
            "values", name=self.plan.string(name), dtype=vocabulary.DTYPES[dtype], rank=len(dims),
            storage=vocabulary.STORAGES["arena" if weight == NONE else "weight"], dims=padded(dims), bytes=count,
            offset=offset, weight=weight)
        return self.values[name]

    def source(self, name: str, dtype: str, dims, update: str, clock_hz: float = 0.0) -> int:
        return self.plan.add("sources", value=self.value(name, dtype, dims), update=vocabulary.UPDATES[update],
                             clock_hz=clock_hz)

    def weight(self, name: str, array: np.ndarray) -> int:
        self.weights += b"\0" * (-len(self.weights) % layout.ALIGN)
        index = self.plan.add("weights", name=self.plan.string(name), file=0,
                              dtype=vocabulary.DTYPES[DTYPES[array.dtype]],
                              rank=array.ndim, dims=padded(array.shape), offset=len(self.weights), bytes=array.nbytes)
        self.weights += array.tobytes()
        return index

    def stage(self, name: str, nodes, depends, inputs, outputs, weights=(), iterations=1, carries=()) -> int:
        """inputs, outputs: (port, value, mode). weights: (port, weight). carries: (initial, result, scratch)."""
        path = f"stages/{name}.onnx"
        self.files[path] = self._onnx(name, nodes, inputs, outputs, weights)
        bind = [self.plan.add("bindings", port=self.plan.string(p), value=self.values[v],
                              mode=vocabulary.BINDING_MODES[m]) for p, v, m in (*inputs, *outputs)]
        init = [self.plan.add("initializers", port=self.plan.string(p), weight=w) for p, w in weights]
        by_value = {(v, m): b for (p, v, m), b in zip((*inputs, *outputs), bind, strict=True)}
        carry = [self.plan.add("carries", initial=self.values[i], result=self.values[r], scratch=self.values[s],
                               input=by_value[i, "carry"], output=by_value[r, "carry"]) for i, r, s in carries]
        return self.plan.add(
            "stages", name=self.plan.string(name), backend=vocabulary.BACKENDS["onnxruntime"], artefact=len(self.files),
            iterations=iterations, dep_begin=self.plan.scalars("indices", depends), dep_count=len(depends),
            input_begin=bind[0], input_count=len(inputs), output_begin=bind[len(inputs)], output_count=len(outputs),
            initializer_begin=init[0] if init else 0, initializer_count=len(init),
            carry_begin=carry[0] if carry else 0, carry_count=len(carry), flops=123, weight_bytes=456)

    def for_openvino(self) -> Bundle:
        """The same stages for OpenVINO, which reads the weights from where their files say that they are."""
        for stage in self.plan.records["stages"]:
            stage.update(backend=vocabulary.BACKENDS["openvino"])
        return self.name_weights()

    def name_weights(self) -> Bundle:
        """The same with files of stages that say of each weight where it lies, as a compiler's do."""
        for stage, path in zip(self.plan.records["stages"], [p for p in self.files if p.endswith(".onnx")],
                               strict=True):
            model = ModelProto.FromString(self.files[path])
            rows = self.plan.records.get("initializers", [])[stage["initializer_begin"]:]
            for tensor, row in zip(model.graph.initializer, rows, strict=False):
                offset = next(e for e in tensor.external_data if e.key == "offset")
                offset.value = str(self.plan.records["weights"][row["weight"]]["offset"])
            self.files[path] = model.SerializeToString()
        return self

    def text(self, tokens: int, mask: int, table: bytes, max_bytes: int) -> None:
        """After the last stage. tokens, mask: sources."""
        path = f"tokenizers/{len(self.plan.records.get('texts', []))}.bin"
        self.files[path] = table
        self.plan.add("texts", tokenizer=len(self.files), tokens=tokens, mask=mask, max_bytes=max_bytes)

    def delay(self, given: str, name: str) -> None:
        """A value `name` that holds what `given` was one observation ago."""
        row = self.plan.records["values"][self.values[given]]
        kind = next(k for k, v in vocabulary.DTYPES.items() if v == row["dtype"])
        self.plan.add("delays", input=self.values[given], output=self.value(name, kind, row["dims"][: row["rank"]]))

    def _onnx(self, name, nodes, inputs, outputs, weights) -> bytes:
        def info(port, value, mode):
            row = self.plan.records["values"][self.values[value]]
            dims = row["dims"][: row["rank"]]
            return helper.make_tensor_value_info(port, row["dtype"], dims[1:] if mode == "row" else dims)

        tensors = []
        for port, index in weights:
            row = self.plan.records["weights"][index]
            tensor = TensorProto(name=port, data_type=row["dtype"], dims=row["dims"][: row["rank"]],
                                 data_location=TensorProto.EXTERNAL)
            # The offset is wrong on purpose: results are right only if the runtime hands the weights over.
            for key, text in (("location", "weights.bin"), ("offset", "0"), ("length", str(row["bytes"]))):
                tensor.external_data.add(key=key, value=text)
            tensors.append(tensor)
        graph = helper.make_graph(nodes, name, [info(*i) for i in inputs], [info(*o) for o in outputs], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return model.SerializeToString()

    def action(self, value: str, execute: int, low=(), high=(), deadline_us: int = 0) -> None:
        row = self.plan.records["values"][self.values[value]]
        self.policy.update(action_value=self.values[value], chunk_steps=row["dims"][1], execute_steps=execute,
                           action_dim=row["dims"][2], deadline_us=deadline_us, low_count=len(low),
                           high_count=len(high), low_begin=self.plan.scalars("floats", low),
                           high_begin=self.plan.scalars("floats", high))

    def frame(self, label: str, writes: dict, expects: dict, max_abs=1e-5, rel_l2=1e-5, cosine=0.99999) -> None:
        g = self.golden

        def tensors(arrays):
            begin = len(g.records.get("tensors", []))
            for name, array in arrays.items():
                g.add("tensors", name=g.string(name), dtype=vocabulary.DTYPES[DTYPES[array.dtype]], rank=array.ndim,
                      dims=padded(array.shape), offset=g.add_blob(array.tobytes()), bytes=array.nbytes,
                      max_abs=max_abs, rel_l2=rel_l2, cosine=cosine)
            return begin, len(arrays)

        w, e = tensors(writes), tensors(expects)
        g.add("frames", label=g.string(label), write_begin=w[0], write_count=w[1], expect_begin=e[0],
              expect_count=e[1])

    def columns(self, allowed) -> None:
        """Limits for the columns of the last tensor of the last frame."""
        g = self.golden
        g.add("limits", tensor=len(g.records["tensors"]) - 1, column_begin=g.scalars("floats", allowed),
              column_count=len(allowed))

    def plan_container(self) -> Container:
        """The plan with its file table: weights are file 0, stages follow in order, golden is last."""
        plan = copy.deepcopy(self.plan)
        plan.records["policy"][0]["arena_bytes"] = self.arena_bytes
        plan.records["files"] = []
        files = {"stages/weights.bin": self.weights, **self.files}
        if self.golden.records:
            files["golden/golden.bin"] = self.golden.to_bytes()
        for path, data in files.items():
            kind = {"weights.bin": "weights", "golden.bin": "golden"}.get(
                Path(path).name, "tokenizer" if path.startswith("tokenizers/") else "stage")
            plan.add("files", path=plan.string(path), kind=vocabulary.FILE_KINDS[kind], crc32=zlib.crc32(data),
                     bytes=len(data))
        return plan

    def write(self, root: Path) -> Path:
        for path, data in {"stages/weights.bin": self.weights, **self.files}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        if self.golden.records:
            (root / "golden").mkdir(exist_ok=True)
            (root / "golden/golden.bin").write_bytes(self.golden.to_bytes())
        (root / "plan.bin").write_bytes(self.plan_container().to_bytes())
        return root


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


class Reactive:
    """Three sources, four stages: language {0}, vision {1}, fusion {0, 1}, head {0, 1, 2}.

    `shared` is a weight of two stages; `gain` is a weight that enters as a rank-0 value; `big` is a
    rank-0 bool value between stages.
    """

    H, h, dim = 4, 3, 3

    def __init__(self, low=(), high=(), deadline_us: int = 0):
        self.table, self.shared = _random(1, 10, 8), _random(2, 8, 8)
        self.vision, self.head = _random(3, 24, 8), _random(4, 8, 12)
        self.gain = np.float32(0.25).reshape(())
        b = self.bundle = Bundle("reactive")
        b.source("instruction", "i64", (1, 4), "task")
        b.source("image", "u8", (4, 6), "observation", 20.0)
        b.source("state", "f32", (1, 3), "tick", 100.0)
        table, shared = b.weight("table", self.table), b.weight("shared", self.shared)
        vision, head = b.weight("vision.w", self.vision), b.weight("head.w", self.head)
        b.value("gain", "f32", (), b.weight("gain", np.asarray(self.gain)))
        for name, dtype, dims in (("text", "f32", (1, 8)), ("sight", "f32", (1, 8)), ("context", "f32", (1, 8)),
                                  ("big", "bool", ()), ("action", "f32", (1, self.H, self.dim))):
            b.value(name, dtype, dims)
        node = helper.make_node
        b.stage("language", [
            node("Gather", ["table", "ids"], ["rows"]), node("MatMul", ["rows", "shared"], ["mixed"]),
            node("Constant", [], ["axis"], value_ints=[1]), node("ReduceSum", ["mixed", "axis"], ["text"], keepdims=0),
        ], [0], [("ids", "instruction", "whole")], [("text", "text", "whole")], [("table", table), ("shared", shared)])
        b.stage("vision", [
            node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            node("Constant", [], ["flat"], value_ints=[1, 24]),
            node("Reshape", ["float", "flat"], ["row"]), node("MatMul", ["row", "w"], ["seen"]),
            node("MatMul", ["seen", "s"], ["sight"]),
        ], [1], [("pixels", "image", "whole")], [("sight", "sight", "whole")], [("w", vision), ("s", shared)])
        b.stage("fusion", [
            node("Add", ["text", "sight"], ["sum"]), node("Tanh", ["sum"], ["context"]),
            node("ReduceMax", ["context"], ["most"], keepdims=0), node("Constant", [], ["half"], value_float=0.5),
            node("Greater", ["most", "half"], ["big"]),
        ], [0, 1], [("text", "text", "whole"), ("sight", "sight", "whole")],
            [("context", "context", "whole"), ("big", "big", "whole")])
        b.stage("head", [
            node("MatMul", ["context", "w"], ["plain"]), node("Constant", [], ["one"], value_float=1.0),
            node("Where", ["big", "gain", "one"], ["scale"]), node("Mul", ["plain", "scale"], ["scaled"]),
            node("Constant", [], ["shape"], value_ints=[1, self.H, self.dim]),
            node("Reshape", ["scaled", "shape"], ["chunk"]), node("Add", ["chunk", "state"], ["action"]),
        ], [0, 1, 2], [("context", "context", "whole"), ("big", "big", "whole"), ("gain", "gain", "whole"),
                       ("state", "state", "whole")], [("action", "action", "whole")], [("w", head)])
        b.action("action", self.h, low, high, deadline_us)

    def inputs(self, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {"instruction": rng.integers(0, 10, (1, 4)), "image": rng.integers(0, 3, (4, 6), dtype=np.uint8),
                "state": rng.uniform(-1, 1, (1, 3)).astype(np.float32)}

    def reference(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        text = (self.table[inputs["instruction"]] @ self.shared).sum(1)
        sight = inputs["image"].astype(np.float32).reshape(1, 24) @ self.vision @ self.shared
        context = np.tanh(text + sight)
        big = np.asarray(context.max() > 0.5)
        chunk = (context @ self.head * (self.gain if big else 1)).reshape(1, self.H, self.dim)
        return {"text": text, "sight": sight, "context": context, "big": big,
                "action": (chunk + inputs["state"]).astype(np.float32)}


class Flow:
    """Two sources, a prefix and a loop of K iterations with a carry, a row table and a row output."""

    H, h, dim = 5, 2, 3

    def __init__(self, iterations: int):
        self.iterations = iterations
        self.prefix, self.mix = _random(5, 3, 3), _random(6, 3, 3)
        self.table = _random(7, iterations, 1, 1, 3)
        b = self.bundle = Bundle("flow")
        b.source("observation", "f32", (1, 3), "observation")
        b.source("noise", "f32", (1, self.H, self.dim), "observation")
        prefix, mix = b.weight("prefix.w", self.prefix), b.weight("mix.w", self.mix)
        b.value("table", "f32", self.table.shape, b.weight("table", self.table))
        b.value("memory", "f32", (1, 3))
        b.value("sample", "f32", (1, self.H, self.dim))
        b.value("sample.scratch", "f32", (1, self.H, self.dim))
        b.value("trace", "f32", (iterations, 1, self.H, self.dim))
        node = helper.make_node
        b.stage("prefix", [node("MatMul", ["o", "w"], ["memory"])], [0], [("o", "observation", "whole")],
                [("memory", "memory", "whole")], [("w", prefix)])
        b.stage("denoise", [
            node("MatMul", ["x", "w"], ["mixed"]), node("Add", ["mixed", "memory"], ["sum"]),
            node("Add", ["sum", "t"], ["timed"]), node("Tanh", ["timed"], ["v"]), node("Add", ["x", "v"], ["next"]),
            node("Identity", ["v"], ["velocity"]),
        ], [0, 1], [("memory", "memory", "whole"), ("t", "table", "row"), ("x", "noise", "carry")],
            [("next", "sample", "carry"), ("velocity", "trace", "row")], [("w", mix)], iterations,
            [("noise", "sample", "sample.scratch")])
        b.plan.add("samplings", stage=1, form=vocabulary.LOOP_FORMS["steps"], iterations=iterations, written=10,
                   solver=b.plan.string("euler"), error=0.25, budget=0.5)
        for stage, group, scheme, decider, error, time_us in (
                (0, "prefix/encoder", "int8", "optimiser", 0.125, 1.5), (1, "denoise/mix.0", "int4", "rule", 0.0, 0.0),
                (1, 'denoise/"mix" 1', "fp32", "default", 0.0, 0.1)):
            b.plan.add("precisions", stage=stage, group=b.plan.string(group), scheme=vocabulary.SCHEMES[scheme],
                       decider=vocabulary.DECIDERS[decider], layers=2, error=error, time_us=time_us, bytes=36)
        b.action("sample", self.h)

    def on_board(self) -> Flow:
        """With engines to build on a board, and none to run here."""
        plan = self.bundle.plan
        text = {"name": "orin-nano-8gb", "jetpack": "6.2", "l4t": "36.4.3", "tensorrt": "10.3",
                "timing_cache": "timing.cache"}
        plan.add("board", compute_capability=87, **{k: plan.string(v) for k, v in text.items()})
        for stage, flags, int8, int4 in ((0, 3, 1, 0), (1, 0, 0, 1)):
            plan.records["stages"][stage].update(backend=vocabulary.BACKENDS["tensorrt"])
            plan.add("builds", stage=stage, flags=flags, level=3, aux_streams=stage, int8_gemms=int8,
                     int4_dequants=int4,
                     attentions=2, workspace_bytes=1 << 29, weight_bytes=36, engine_bytes_min=20,
                     engine_bytes_max=8_000_000_000, activation_bytes=1000)
        return self

    def inputs(self, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {"observation": rng.uniform(-1, 1, (1, 3)).astype(np.float32),
                "noise": rng.uniform(-1, 1, (1, self.H, self.dim)).astype(np.float32)}

    def reference(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        memory = inputs["observation"] @ self.prefix
        x, trace = inputs["noise"], []
        for t in self.table:
            trace.append(np.tanh(x @ self.mix + memory + t))
            x = x + trace[-1]
        return {"memory": memory, "sample": x, "trace": np.stack(trace)}


class Recall:
    """Two histories: an encoded image of three frames and a raw state of two; one gain per task. The action is
    gain * (newest + older + oldest feature) + newest - older state."""

    H, dim = 1, 3

    def __init__(self):
        self.encode = _random(8, 6, 3)
        b = self.bundle = Bundle("recall")
        b.source("gain", "f32", (1, 1), "task")
        b.source("image", "f32", (1, 6), "observation")
        b.source("state", "f32", (1, 3), "observation")
        weight = b.weight("encode.w", self.encode)
        b.value("feature", "f32", (1, 3))
        b.delay("feature", "feature@1")
        b.delay("feature@1", "feature@2")
        b.delay("state", "state@1")
        b.value("action", "f32", (1, 1, 3))
        for source, frames in ((1, 3), (2, 2)):
            b.plan.add("histories", source=source, frames=frames)
        node = helper.make_node
        b.stage("encode", [node("MatMul", ["x", "w"], ["y"])], [1], [("x", "image", "whole")],
                [("y", "feature", "whole")], [("w", weight)])
        b.stage("act", [
            node("Add", ["a", "b"], ["ab"]), node("Add", ["ab", "c"], ["abc"]), node("Mul", ["abc", "g"], ["scaled"]),
            node("Sub", ["s", "t"], ["moved"]), node("Add", ["scaled", "moved"], ["sum"]),
            node("Constant", [], ["shape"], value_ints=[1, 1, 3]), node("Reshape", ["sum", "shape"], ["action"]),
        ], [0, 1, 2], [("a", "feature", "whole"), ("b", "feature@1", "whole"), ("c", "feature@2", "whole"),
                       ("g", "gain", "whole"), ("s", "state", "whole"), ("t", "state@1", "whole")],
            [("action", "action", "whole")])
        b.action("action", 1)

    def inputs(self, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {"gain": rng.uniform(1, 2, (1, 1)).astype(np.float32),
                "image": rng.uniform(-1, 1, (1, 6)).astype(np.float32),
                "state": rng.uniform(-1, 1, (1, 3)).astype(np.float32)}

    def reference(self, seen: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """After these observations of one episode, oldest first."""
        ago = [seen[max(0, len(seen) - 1 - k)] for k in range(3)]
        features = [o["image"] @ self.encode for o in ago]
        action = ago[0]["gain"] * sum(features) + ago[0]["state"] - ago[1]["state"]
        return {"feature": features[0], "feature@1": features[1], "feature@2": features[2], "state@1": ago[1]["state"],
                "action": action.reshape(1, 1, 3)}
