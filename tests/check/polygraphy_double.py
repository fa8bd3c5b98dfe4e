"""A double of what bisect uses of polygraphy's Python API (0.53, polygraphy.backend.trt), run by ONNX Runtime: names,
arguments and the order of loaders, not TensorRT's arithmetic."""

from __future__ import annotations

import contextlib
import sys
import types
from pathlib import Path

from vlacompile.check.layer_runners import ORT, open_runner


def install(monkeypatch) -> list:
    """Makes it importable; returns the log of what was asked for."""
    log: list = []

    class NetworkFromOnnxPath:
        def __init__(self, path, flags=None, plugin_instancenorm=None, strongly_typed=None):
            log.append(("network", Path(path).name, strongly_typed))
            self.path = path

    class ModifyNetworkOutputs:
        def __init__(self, network, outputs=None, exclude_outputs=None):
            self.path, self.outputs = network.path, outputs

    class CreateConfig:
        def __init__(self, max_workspace_size=None, tf32=None, fp16=None, int8=None):
            log.append(("tf32", tf32))

    class EngineFromNetwork:
        def __init__(self, network, config=None):
            assert isinstance(config, CreateConfig)
            self.network = network

    class TrtRunner:
        def __init__(self, engine):
            self.network, self.stack = engine.network, contextlib.ExitStack()

        def __enter__(self):
            self.run = self.stack.enter_context(open_runner(ORT, Path(self.network.path), self.network.outputs))
            return self

        def __exit__(self, *exc):
            log.append("closed")
            self.stack.close()

        def infer(self, feed_dict, check_inputs=True, copy_outputs_to_host=None):
            return self.run(feed_dict)

    trt = types.ModuleType("polygraphy.backend.trt")
    for made in (NetworkFromOnnxPath, ModifyNetworkOutputs, CreateConfig, EngineFromNetwork, TrtRunner):
        setattr(trt, made.__name__, made)
    backend = types.ModuleType("polygraphy.backend")
    backend.trt = trt
    for name, module in (("polygraphy", types.ModuleType("polygraphy")), ("polygraphy.backend", backend),
                         ("polygraphy.backend.trt", trt)):
        monkeypatch.setitem(sys.modules, name, module)
    return log
