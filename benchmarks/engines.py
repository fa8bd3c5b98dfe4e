"""The engines that are compared: alternatives for running the same policy.

Each gets the same inputs, computes the same chunk, and is limited to a number of threads. Only ours caches anything
between replans; that is the point of the comparison, so both cases are reported, an unchanged and a changed
instruction.
What a robot does not need (export, compilation to a file) is `prepare`, done in another process so that the memory is
that of running.
"""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from vlacompile.policy.policy import Policy

Inputs = dict[str, np.ndarray]


def open_policy(member: str) -> Policy:
    from examples.libero_goal import policy as pair

    return getattr(pair, member)()


class Engine(ABC):
    """A policy compiled or loaded by one tool."""

    @classmethod  # noqa: B027
    def prepare(cls, policy: Policy, work: Path) -> None:
        """Write the tool's artefact into `work`. Default: none."""

    @abstractmethod
    def __init__(self, member: str, names: tuple[str, ...], threads: int, work: Path):
        """Load the artefact of `prepare`. names: of the inputs, in the policy's order."""

    @abstractmethod
    def replan(self, inputs: Inputs) -> np.ndarray:
        """The chunk, f32 [1,H,action_dim]."""


def positional(policy: Policy) -> torch.nn.Module:
    """The policy's function with positional arguments and one output, for exporters."""
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.names = policy.observe, tuple(policy.example_inputs)

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return self.inner(**dict(zip(self.names, inputs, strict=True)))["action"]

    return Positional().eval()


class TorchEager(Engine):
    def __init__(self, member: str, names: tuple[str, ...], threads: int, work: Path):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.function = positional(open_policy(member))

    def replan(self, inputs: Inputs) -> np.ndarray:
        with self.torch.no_grad():
            return self.function(*(self.torch.from_numpy(a) for a in inputs.values())).numpy()


class TorchCompile(TorchEager):
    """inductor with frozen weights: its fastest setting for inference on a CPU."""

    def __init__(self, member: str, names: tuple[str, ...], threads: int, work: Path):
        super().__init__(member, names, threads, work)
        import torch._inductor.config as inductor

        inductor.freezing = True
        self.function = self.torch.compile(self.function)
        self.replan({n: t.numpy() for n, t in open_policy(member).example_inputs.items()})


class OneOnnxGraph(Engine):
    """The whole policy as one ONNX file, as a user would export it."""

    @classmethod
    def prepare(cls, policy: Policy, work: Path) -> None:
        import torch

        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            torch.onnx.export(positional(policy), tuple(policy.example_inputs.values()), str(work / "policy.onnx"),
                              dynamo=True, opset_version=20, external_data=True, verbose=False)


class OnnxRuntime(OneOnnxGraph):
    def __init__(self, member: str, names: tuple[str, ...], threads: int, work: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(str(work / "policy.onnx"), options,
                                                    providers=["CPUExecutionProvider"])
        self.ports = dict(zip(names, [i.name for i in self.session.get_inputs()], strict=True))

    def replan(self, inputs: Inputs) -> np.ndarray:
        return self.session.run(None, {self.ports[n]: a for n, a in inputs.items()})[0]


class OpenVino(OneOnnxGraph):
    def __init__(self, member: str, names: tuple[str, ...], threads: int, work: Path):
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        model = openvino.Core().compile_model(str(work / "policy.onnx"), "CPU", settings)
        self.request = model.create_infer_request()

    def replan(self, inputs: Inputs) -> np.ndarray:
        return self.request.infer(list(inputs.values()))[0].copy()


class ExecuTorch(Engine):
    """XNNPACK delegate, fp32."""

    @classmethod
    def prepare(cls, policy: Policy, work: Path) -> None:
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(positional(policy), tuple(policy.example_inputs.values()), strict=False)
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        (work / "policy.pte").write_bytes(lowered.to_executorch().buffer)

    def __init__(self, member: str, names: tuple[str, ...], threads: int, work: Path):
        import torch
        from executorch.extension.pybindings import portable_lib

        portable_lib._unsafe_reset_threadpool(threads)
        self.module, self.torch = portable_lib._load_for_executorch(str(work / "policy.pte")), torch

    def replan(self, inputs: Inputs) -> np.ndarray:
        return self.module.forward([self.torch.from_numpy(a) for a in inputs.values()])[0].numpy()


class VlaCompile(Engine):
    @classmethod
    def prepare(cls, policy: Policy, work: Path) -> None:
        import vlacompile as vc

        vc.build(policy, recipe="libero-goal", out=work / "policy.vlab")

    def __init__(self, member: str, names: tuple[str, ...], threads: int, work: Path):
        import vlacompile as vc

        self.session = vc.Session(work / "policy.vlab", threads=threads)

    def replan(self, inputs: Inputs) -> np.ndarray:
        for name, array in inputs.items():
            self.session.write(name, array)
        self.session.step()
        return self.session.read("action")


ENGINES: dict[str, type[Engine]] = {
    "PyTorch eager": TorchEager,
    "torch.compile": TorchCompile,
    "ONNX Runtime, one graph": OnnxRuntime,
    "OpenVINO, one graph": OpenVino,
    "ExecuTorch XNNPACK": ExecuTorch,
    "vlacompile": VlaCompile,
}
