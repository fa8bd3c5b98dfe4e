"""A bundle's engines a second way: built and run through TensorRT's Python API, independently of libvlart.

Every stage of a board's bundle is built from its ONNX file by its recipe in the plan, as `vlart-build` does in C++,
and run by itself on the golden frames' inputs. Buffers, streams and copies are cuda-python's (`cuda.bindings.runtime`)
and not pycuda's: NVIDIA publishes it built for x86-64 and aarch64, it uses the primary context that TensorRT is in, and
its names are those of the CUDA runtime in C, while pycuda is compiled on the board and makes a context of its own.

Not run on a GPU: the tests hold doubles of both APIs (TensorRT 10, cuda-bindings 12 and 13).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from vlacompile.check.layer_runners import TENSORRT, Run
from vlacompile.check.stage_cases import Case, run_cases
from vlart.bundle.directory import Bundle, check_files
from vlart.bundle.plan.plan import Stage
from vlart.errors import BundleError, ConfigError
from vlart.verify.frames import golden_frames
from vlart.verify.replay import ParityReport, Tally
from vlart.vocabulary import NUMPY_DTYPES

INSTALL = "on the board: JetPack's python3-libnvinfer, and pip install 'vlacompile[jetson]'"


def verify_through_tensorrt(bundle: Bundle, progress: Callable[[str], None] = lambda words: None) -> ParityReport:
    """Compares what each stage's engine gives with the golden frames, by their limits. Raises ConfigError without
    TensorRT, cuda-python or stages for them, BundleError for damage and for a stage that TensorRT does not build."""
    trt, cuda = _apis()
    check_files(bundle)
    stages = [s for s in bundle.plan.stages if s.backend == TENSORRT]
    if not stages:
        raise ConfigError("the bundle has no stages for TensorRT", where=str(bundle.path),
                          why=f"it is for {bundle.plan.target}", fix="`vlacompile verify` without --through")
    if ended := next((s.name for s in stages if s.end is not None), None):
        raise ConfigError(f'stage "{ended}" cannot be run by itself', where=str(bundle.path),
                          why="its data says after each iteration whether another one runs, and libvlart asks it",
                          fix="`vlacompile verify` without --through")
    return verify_stages(bundle, stages, lambda stage: open_engine(trt, cuda, bundle, stage), progress)


def verify_stages(bundle: Bundle, stages: Sequence[Stage], opened: Callable[[Stage], AbstractContextManager[Run]],
                  progress: Callable[[str], None] = lambda words: None) -> ParityReport:
    """Compares what each stage gives by itself with the golden frames, by their limits. opened: what runs a stage."""
    frames, tally, runs = golden_frames(bundle.path), Tally(), {}
    outputs = bundle.manifest["provenance"]["outputs"]
    for stage in stages:
        progress(f"build the engine of {stage.name}")
        with opened(stage) as run:
            progress(f"run {stage.name}")
            rows: dict[str, list[np.ndarray]] = {}
            for case, found, _ in run_cases(bundle, stage, frames, run):
                runs[stage.name] = runs.get(stage.name, 0) + 1
                for name, array in _results(bundle, stage, case, found, rows):
                    if (expected := case.frame.expects.get(name)) is not None:
                        tally.add(name, "chunk" if name in outputs else "stage", array, expected.array, expected.limit,
                                  case.frame.label)
    return ParityReport(str(bundle.path), len(frames), tally.rows(), runs)


def _results(bundle: Bundle, stage: Stage, case: Case, found: dict[str, np.ndarray],
             rows: dict[str, list[np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """(value, array) of the frame, once its last iteration has run. rows: of the frame so far."""
    final = {stage.outputs[c.output].port: c.result for c in stage.carries}
    for b in stage.outputs:
        if b.mode == "row":
            rows.setdefault(b.port, []).append(found[b.port])
        if case.last:
            array = np.stack(rows.pop(b.port)) if b.mode == "row" else found[b.port]
            value = bundle.plan.values[final.get(b.port, b.value)]
            yield value.name, array.reshape(value.type.dims)


@contextlib.contextmanager
def open_engine(trt: Any, cuda: Any, bundle: Bundle, stage: Stage) -> Iterator[Run]:
    """Runs of the stage's engine; buffers and stream are freed at the end. trt, cuda: the modules tensorrt and
    cuda.bindings.runtime."""
    log = trt.Logger(trt.Logger.WARNING)
    plan, runtime = _built(trt, log, bundle, stage), trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        raise _refused(bundle, stage, "TensorRT does not load the engine that it built")
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = {n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
    values = {b.port: bundle.plan.values[b.value].type for b in (*stage.inputs, *stage.outputs)}
    if set(names) != set(values):
        raise _refused(bundle, stage, f"its engine has the ports {', '.join(sorted(names))}")
    arrays = {n: np.empty(tuple(engine.get_tensor_shape(n)), NUMPY_DTYPES[values[n].dtype]) for n in names}
    with contextlib.ExitStack() as freed:
        stream = _call(cuda, "cudaStreamCreate")
        freed.callback(_call, cuda, "cudaStreamDestroy", stream)
        at = {}
        for n, array in arrays.items():
            at[n] = _call(cuda, "cudaMalloc", max(array.nbytes, 1))
            freed.callback(_call, cuda, "cudaFree", at[n])
            if not context.set_tensor_address(n, int(at[n])):
                raise _refused(bundle, stage, f"TensorRT takes no buffer for {n}")

        def run(feed) -> dict[str, np.ndarray]:
            kinds, given = cuda.cudaMemcpyKind, {}
            for n in sorted(inputs):
                given[n] = np.ascontiguousarray(feed[n], arrays[n].dtype).reshape(arrays[n].shape)
                _call(cuda, "cudaMemcpyAsync", at[n], given[n].ctypes.data, given[n].nbytes,
                      kinds.cudaMemcpyHostToDevice, stream)
            if not context.execute_async_v3(int(stream)):
                raise _refused(bundle, stage, "TensorRT does not run the engine")
            found = {n: np.empty_like(a) for n, a in arrays.items() if n not in inputs}
            for n, array in found.items():
                _call(cuda, "cudaMemcpyAsync", array.ctypes.data, at[n], array.nbytes, kinds.cudaMemcpyDeviceToHost,
                      stream)
            _call(cuda, "cudaStreamSynchronize", stream)  # before `given` and `found` are touched again
            return found

        yield run


def _built(trt: Any, log: Any, bundle: Bundle, stage: Stage) -> Any:
    """The serialised engine, by the recipe that vlart-build follows as well."""
    assert stage.artefact is not None and stage.build is not None, "stages of TensorRT have both"
    path, recipe = bundle.path / bundle.plan.files[stage.artefact].path, stage.build
    builder = trt.Builder(log)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if "strongly_typed" in recipe.flags else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(Path(path).resolve())):  # the weights lie beside the file
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise _refused(bundle, stage, "its parser: " + ("; ".join(errors) or "no reason given"))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
    config.builder_optimization_level, config.max_aux_streams = recipe.level, recipe.aux_streams
    (config.clear_flag if "no_tf32" in recipe.flags else config.set_flag)(trt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refused(bundle, stage, "its builder gives no engine; its log above has the reason")
    return plan


def _call(cuda: Any, name: str, *arguments: Any) -> Any:
    """A function of the CUDA runtime: (status, result) or (status,)."""
    status, *result = getattr(cuda, name)(*arguments)
    if int(status) != 0:
        raise ConfigError(f"CUDA refuses {name}", where="this machine's GPU", why=str(status),
                          fix="`nvidia-smi`, on a Jetson `jtop`: free memory, and what else runs")
    return result[0] if result else None


def _refused(bundle: Bundle, stage: Stage, why: str) -> BundleError:
    return BundleError(f'TensorRT does not run stage "{stage.name}"', where=str(bundle.path), why=why,
                       fix="`vlacompile check --tensorrt` names unsupported ops; the bundle must be for this board's "
                           "JetPack")


def _apis() -> tuple[Any, Any]:
    try:
        import tensorrt
        from cuda.bindings import runtime
    except ImportError as error:
        raise ConfigError("TensorRT's Python API is not installed", where="--through tensorrt", why=str(error),
                          fix=INSTALL) from error
    return tensorrt, runtime
