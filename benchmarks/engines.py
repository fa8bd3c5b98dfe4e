"""The engines that are compared: what a user would otherwise run the same policy with.

Each gets the same inputs, computes the same chunk, and is told a number of threads. Only ours keeps
anything between replans; that is the point of the comparison and it is reported for both cases, an
unchanged and a changed instruction.
"""

from __future__ import annotations

import io
import contextlib
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch

from vlacompile.policy import Policy

Inputs = dict[str, np.ndarray]


class Engine(ABC):
    """A policy made ready by one tool."""

    @abstractmethod
    def __init__(self, policy: Policy, threads: int, work: Path):
        """Everything that happens before the first replan; timed as build time."""

    @abstractmethod
    def replan(self, inputs: Inputs) -> np.ndarray:
        """The chunk, f32 [1,H,action_dim]."""


class _Positional(torch.nn.Module):
    """The policy's function with positional arguments, for exporters."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.inner, self.names = policy.observe, tuple(policy.example_inputs)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(**dict(zip(self.names, inputs, strict=True)))["action"]


class TorchEager(Engine):
    def __init__(self, policy: Policy, threads: int, work: Path):
        torch.set_num_threads(threads)
        self.function = policy.infer

    def replan(self, inputs: Inputs) -> np.ndarray:
        with torch.no_grad():
            return self.function(**{n: torch.from_numpy(a) for n, a in inputs.items()})["action"].numpy()


class TorchCompile(TorchEager):
    """inductor, with weights frozen: its fastest setting for inference on a CPU."""

    def __init__(self, policy: Policy, threads: int, work: Path):
        super().__init__(policy, threads, work)
        import torch._inductor.config as inductor

        inductor.freezing = True
        module = _Positional(policy).eval()
        compiled = torch.compile(module)
        self.function = lambda **inputs: {"action": compiled(*inputs.values())}
        with torch.no_grad():
            self.function(**policy.example_inputs)


def _onnx_file(policy: Policy, work: Path) -> Path:
    """The whole policy as one ONNX graph, as a user would export it."""
    path = work / f"{policy.name}.onnx"
    if not path.is_file():
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            torch.onnx.export(_Positional(policy).eval(), tuple(policy.example_inputs.values()), str(path), dynamo=True,
                              opset_version=20, external_data=True, verbose=False)
    return path


class OnnxMonolith(Engine):
    def __init__(self, policy: Policy, threads: int, work: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(str(_onnx_file(policy, work)), options,
                                                    providers=["CPUExecutionProvider"])
        names = [i.name for i in self.session.get_inputs()]
        self.ports = dict(zip(policy.example_inputs, names, strict=True))

    def replan(self, inputs: Inputs) -> np.ndarray:
        return self.session.run(None, {self.ports[n]: a for n, a in inputs.items()})[0]


class OpenVino(Engine):
    def __init__(self, policy: Policy, threads: int, work: Path):
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self.request = core.compile_model(str(_onnx_file(policy, work)), "CPU", settings).create_infer_request()
        self.names = tuple(policy.example_inputs)

    def replan(self, inputs: Inputs) -> np.ndarray:
        return self.request.infer([inputs[n] for n in self.names])[0].copy()


class ExecuTorch(Engine):
    """XNNPACK delegate, fp32."""

    def __init__(self, policy: Policy, threads: int, work: Path):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
        from executorch.extension.pybindings import portable_lib

        path = work / f"{policy.name}.pte"
        if not path.is_file():
            exported = torch.export.export(_Positional(policy).eval(), tuple(policy.example_inputs.values()), strict=False)
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            path.write_bytes(lowered.to_executorch().buffer)
        portable_lib._unsafe_reset_threadpool(threads)
        self.module = portable_lib._load_for_executorch(str(path))
        self.names = tuple(policy.example_inputs)

    def replan(self, inputs: Inputs) -> np.ndarray:
        return self.module.forward([torch.from_numpy(inputs[n]) for n in self.names])[0].numpy()


class VlaCompile(Engine):
    def __init__(self, policy: Policy, threads: int, work: Path):
        import vlacompile as vc

        path = work / f"{policy.name}.vlab"
        if not path.is_dir():
            vc.build(policy, recipe="libero-goal", out=path)
        self.session = vc.Session(path, threads=threads)

    def replan(self, inputs: Inputs) -> np.ndarray:
        for name, array in inputs.items():
            self.session.write(name, array)
        self.session.step()
        return self.session.read("action")


ENGINES: dict[str, type[Engine]] = {
    "PyTorch eager": TorchEager,
    "torch.compile": TorchCompile,
    "ONNX Runtime, one graph": OnnxMonolith,
    "OpenVINO, one graph": OpenVino,
    "ExecuTorch XNNPACK": ExecuTorch,
    "vlacompile": VlaCompile,
}
