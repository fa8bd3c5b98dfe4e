"""An ONNX file and its sidecar -> Policy; the translation is first compared with onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import InlinePass

from vlacompile.frontends.onnx.sidecar import Sidecar, examples_of, inputs_of, read_sidecar, sources_of
from vlacompile.frontends.onnx.translate import OnnxModule, check_ops, nodes_of, translate
from vlacompile.policy.policy import TORCH_DTYPES, Policy, Source
from vlacompile.policy.sample_inputs import golden_inputs
from vlart.errors import ParityError, SourceError, nearest
from vlart.verify.metrics import examine
from vlart.verify.tolerances import tolerance

OPSETS = range(17, 22)
CHECKED_FRAMES = 4


def read_policy(path: Path) -> Policy:
    """Raises SourceError for a file that cannot be read or is not supported, ParityError if the translation's results
    differ from onnxruntime's."""
    model = _open(path)
    wanted = inputs_of(model, str(path))
    sidecar = read_sidecar(path, model, wanted)
    examples, sources = examples_of(sidecar, wanted), sources_of(sidecar)
    outputs = _outputs(model, sidecar)
    check_ops(model, str(path))
    session = _session(path)
    module = translate(model, examples, outputs, str(path)).eval()
    for name, ref in module.outputs.items():
        if ref in module.constants:
            raise SourceError(f'output "{name}" depends on no input', where=str(path), why="it is a constant",
                              fix="choose other outputs with `outputs` in the sidecar")
    _compare(path, session, module, {n: sources[n] for n in examples}, examples, outputs)
    return Policy(sidecar.document.name or path.stem, module, sources, examples, outputs=outputs,
                  execute=sidecar.document.execute)


def _open(path: Path) -> ir.Model:
    try:
        proto = onnx.load(path, load_external_data=False)
        _check_opset(path, proto)
        _check_external(path, proto)
        onnx.checker.check_model(str(path))  # by path, because of external data and files over 2 GiB
        model = ir.from_proto(proto)
    except (OSError, DecodeError, onnx.checker.ValidationError, ValueError) as error:
        lines = [t.strip() for t in str(error).splitlines() if t.strip()]
        raise SourceError("the ONNX file cannot be read", where=str(path),
                          why=lines[0] if lines else type(error).__name__, fix="copy it again, completely") from error
    if not model.graph.outputs:
        raise SourceError("the ONNX file has no outputs", where=str(path),
                          why="a policy without outputs computes nothing", fix="export the policy again")
    for tensor in model.graph.initializers.values():
        if isinstance(tensor.const_value, ir.ExternalTensor):
            tensor.const_value.base_dir = path.parent
    InlinePass()(model)
    return model


def _check_opset(path: Path, proto: onnx.ModelProto) -> None:
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if proto.HasField("graph") and opset not in OPSETS:
        raise SourceError(f"opset {opset} is not covered", where=str(path),
                          why=f"opsets {OPSETS[0]} to {OPSETS[-1]} are", fix="export with opset_version=20")


def _check_external(path: Path, proto: onnx.ModelProto) -> None:
    """Check that files of external data lie beside the model and are long enough."""
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = {e.key: e.value for e in tensor.external_data}
        location = Path(entry.get("location", ""))
        file = path.parent / location
        if location.is_absolute() or ".." in location.parts or not location.parts:
            raise SourceError(f'the weight "{tensor.name}" is stored elsewhere', where=str(path),
                              why=f'its location "{location}" is not below the model\'s directory',
                              fix="save the model with its external data beside it")
        if not file.is_file():
            raise SourceError("the model's external data is missing", where=str(file),
                              why=f'"{tensor.name}" is stored there', fix="copy this file too, beside the .onnx file")
        end = int(entry.get("offset", 0)) + int(entry.get("length", 0))
        if file.stat().st_size < end:
            raise SourceError("the model's external data is truncated", where=str(file),
                              why=f'{file.stat().st_size} bytes; "{tensor.name}" ends at {end}',
                              fix="copy it again, completely")


def _outputs(model: ir.Model, sidecar: Sidecar) -> tuple[str, ...]:
    known = [o.name for o in model.graph.outputs]
    chosen = sidecar.document.outputs or tuple(known)
    for name in chosen:
        if name not in known:
            raise SourceError(f'the model has no output "{name}"', where=sidecar.where, why=nearest(name, known),
                              fix="correct the name in `outputs`, or remove it")
    return chosen


def _session(path: Path):
    """An onnxruntime session of the original file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own exception class per status
        raise SourceError("onnxruntime cannot load the model", where=str(path),
                          why=str(error).strip().splitlines()[0],
                          fix="export it again, with torch.onnx.export(..., dynamo=True)") from error


def _compare(path: Path, session, module: OnnxModule, sources: dict[str, Source], examples: dict[str, torch.Tensor],
             outputs: tuple[str, ...]) -> None:
    """Compare the translation with onnxruntime, on the examples and on the inputs of the golden frames."""
    for label, inputs in golden_inputs(sources, examples, CHECKED_FRAMES, seed=0):
        with torch.no_grad():
            got = module(**inputs)
        want = session.run(list(outputs), {n: t.numpy() for n, t in inputs.items()})
        for name, expected in zip(outputs, want, strict=True):
            limit = tolerance(TORCH_DTYPES[got[name].dtype], "chunk").limit(np.asarray(expected))
            found = examine(got[name].numpy(), np.asarray(expected), limit)
            if not found.passed:
                raise ParityError(f'the translation computes another "{name}" than onnxruntime',
                                  where=f'{path}, frame "{label}"',
                                  why=found.text(),
                                  fix="report the model's ops: " + ", ".join(sorted(_op_types(path)))[:200])


def _op_types(path: Path) -> set[str]:
    return {n.op_type for n in nodes_of(ir.from_proto(onnx.load(path, load_external_data=False)).graph)}
