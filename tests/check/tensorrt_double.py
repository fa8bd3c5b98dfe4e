"""Doubles of TensorRT's Python API (10.x) and of cuda.bindings.runtime, as far as `verify --through tensorrt` uses
them: names, order and streams; ONNX Runtime does the arithmetic. What is queued on a stream happens when it is
synchronised, so that a result read too early is not there. Not run on a GPU."""

from __future__ import annotations

import ctypes
import enum
import sys
import types
from pathlib import Path

import numpy as np
import onnx

from vlacompile.check.layer_runners import ORT, open_runner


class Gpu:
    """log: recipe calls. memory: live allocations. fail: name of a CUDA function that reports an error."""

    def __init__(self):
        self.log, self.memory, self.streams, self.fail, self.corrupt = [], {}, {}, None, False
        self.flags = 0


def install(monkeypatch) -> Gpu:
    gpu = Gpu()
    cuda = _runtime(gpu)
    bindings, package = types.ModuleType("cuda.bindings"), types.ModuleType("cuda")
    bindings.runtime = cuda
    for name, module in (("tensorrt", _tensorrt(gpu)), ("cuda", package), ("cuda.bindings", bindings),
                         ("cuda.bindings.runtime", cuda)):
        monkeypatch.setitem(sys.modules, name, module)
    return gpu


def _runtime(gpu):
    cuda = types.ModuleType("cuda.bindings.runtime")

    def named(name, result):
        def call(*arguments):
            return (2,) if gpu.fail == name else (0, *result(*arguments))
        setattr(cuda, name, call)

    def malloc(size):
        block = ctypes.create_string_buffer(size)
        gpu.memory[ctypes.addressof(block)] = block
        return (ctypes.addressof(block),)

    def stream():
        gpu.streams[len(gpu.streams) + 1] = []
        return (len(gpu.streams),)

    def synchronise(handle):
        for queued in gpu.streams[handle]:
            queued()
        gpu.streams[handle].clear()
        return ()

    def copy(to, at, size, kind, handle):
        gpu.streams[handle].append(lambda: ctypes.memmove(to, at, size))
        return ()

    class Kind(enum.IntEnum):
        cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = 1, 2  # noqa: N815

    cuda.cudaMemcpyKind = Kind
    named("cudaMalloc", malloc)
    named("cudaFree", lambda at: (gpu.memory.pop(at), ())[1])
    named("cudaStreamCreate", stream)
    named("cudaStreamDestroy", lambda handle: (gpu.streams.pop(handle), ())[1])
    named("cudaMemcpyAsync", copy)
    named("cudaStreamSynchronize", synchronise)
    return cuda


def _tensorrt(gpu):
    trt = types.ModuleType("tensorrt")
    trt.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
    trt.MemoryPoolType = enum.IntEnum("MemoryPoolType", {"WORKSPACE": 0})
    trt.BuilderFlag = enum.IntEnum("BuilderFlag", {"TF32": 7})
    trt.TensorIOMode = enum.IntEnum("TensorIOMode", {"INPUT": 1, "OUTPUT": 2})
    for made in (*_building(gpu), _running(gpu, trt)):
        setattr(trt, made.__name__, made)
    return trt


def _building(gpu):
    class Logger:
        WARNING = 2

        def __init__(self, severity=2):
            pass

    class Network:
        path = None

    class Config:
        def set_memory_pool_limit(self, pool, size):
            gpu.log.append(("workspace", size))

        def set_flag(self, flag):
            gpu.log.append(("set", flag.name))

        def clear_flag(self, flag):
            gpu.log.append(("clear", flag.name))

    class Builder:
        def __init__(self, logger):
            pass

        def create_network(self, flags=0):
            gpu.flags = flags
            return Network()

        def create_builder_config(self):
            return Config()

        def build_serialized_network(self, network, config):
            gpu.log.append(("level", config.builder_optimization_level, "aux", config.max_aux_streams))
            return str(network.path).encode()

    class OnnxParser:
        num_errors = 1

        def __init__(self, network, logger):
            self.network = network

        def get_error(self, i):
            return "In node 3 (parseGraph): UNSUPPORTED_NODE"

        def parse_from_file(self, path):
            self.network.path = path
            return gpu.fail != "parse"

    return Logger, Builder, OnnxParser


def _running(gpu, trt):
    class Engine:
        def __init__(self, path):
            self.path, graph = path, onnx.load(path, load_external_data=False).graph
            self.ports = {v.name: v.type.tensor_type for v in (*graph.input, *graph.output)}
            self.inputs, self.outputs = [v.name for v in graph.input], [v.name for v in graph.output]
            self.num_io_tensors = len(self.ports)

        def get_tensor_name(self, i):
            return list(self.ports)[i]

        def get_tensor_mode(self, name):
            return trt.TensorIOMode.INPUT if name in self.inputs else trt.TensorIOMode.OUTPUT

        def get_tensor_shape(self, name):
            return tuple(d.dim_value for d in self.ports[name].shape.dim)

        def create_execution_context(self):
            return Context(self)

    class Context:
        def __init__(self, engine):
            self.engine, self.at = engine, {}

        def set_tensor_address(self, name, address):
            self.at[name] = address
            return address in gpu.memory

        def execute_async_v3(self, stream_handle):
            gpu.streams[stream_handle].append(self.run)
            return True

        def array(self, name):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(self.engine.ports[name].elem_type)
            shape = self.engine.get_tensor_shape(name)
            size = max(int(np.prod(shape)) * dtype.itemsize, 1)
            return np.frombuffer((ctypes.c_char * size).from_address(self.at[name]), dtype)[:int(np.prod(shape))] \
                .reshape(shape)

        def run(self):
            with open_runner(ORT, Path(self.engine.path), self.engine.outputs) as run:
                found = run({n: self.array(n).copy() for n in self.engine.inputs})
            for n, array in found.items():
                self.array(n)[...] = array * np.asarray(1.5 if gpu.corrupt else 1, array.dtype)

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan):
            return Engine(plan.decode())

    return Runtime
