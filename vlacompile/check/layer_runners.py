"""Runs a stage's ONNX file so that every value inside it can be read: by ONNX Runtime, or by NVIDIA's polygraphy.

ONNX Runtime runs the graph as it stands, without its own rewriting: what a node gives is what its precision makes of
it. polygraphy marks the same values as outputs of a TensorRT network and builds an engine (Python API of polygraphy
0.53: NetworkFromOnnxPath, ModifyNetworkOutputs, CreateConfig, EngineFromNetwork, TrtRunner); marking a value can keep
TensorRT from fusing over it. The polygraphy way was not run on a GPU: the tests hold a double of that API.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vlart.errors import ConfigError

ORT, TENSORRT = "onnxruntime", "tensorrt"
ENGINES = (ORT, TENSORRT)
Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]  # inputs by port to values by name


def best_engine(backend: str) -> str:
    """For a stage of that backend here: TensorRT where the board's stages can be built and run with it."""
    there = all(importlib.util.find_spec(n) is not None for n in ("polygraphy", "tensorrt"))
    return TENSORRT if backend == TENSORRT and there else ORT


@contextlib.contextmanager
def open_runner(engine: str, path: Path, outputs: Sequence[str], flags: Sequence[str] = ()) -> Iterator[Run]:
    """path: the stage's ONNX file, with its weights beside it. outputs: values to be read. flags: of the stage's build.
    Raises ConfigError if polygraphy is not installed."""
    if engine == ORT:
        yield _onnxruntime(path, outputs)
        return
    try:
        from polygraphy.backend import trt
    except ImportError as error:
        raise ConfigError("polygraphy is not installed", where="--engine tensorrt", why=str(error),
                          fix="pip install 'vlacompile[jetson]', or --engine onnxruntime") from error
    network = trt.NetworkFromOnnxPath(str(path), strongly_typed="strongly_typed" in flags)
    config = trt.CreateConfig(tf32="no_tf32" not in flags)
    engine_of = trt.EngineFromNetwork(trt.ModifyNetworkOutputs(network, outputs=list(outputs)), config=config)
    with trt.TrtRunner(engine_of) as runner:
        yield lambda feed: {n: np.asarray(a) for n, a in runner.infer(dict(feed)).items()}


def _onnxruntime(path: Path, outputs: Sequence[str]) -> Run:
    import onnx
    import onnxruntime as ort

    model = onnx.load(path, load_external_data=False)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in outputs)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {i.name for i in session.get_inputs()}
    return lambda feed: dict(zip(outputs, session.run(list(outputs), {n: a for n, a in feed.items() if n in given}),
                                 strict=True))
