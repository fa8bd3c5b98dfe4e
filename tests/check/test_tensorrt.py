"""Bundles for a board: what they hold, the stand-in that tries them here, and `vlacompile check`."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import vlacompile as vc
from benchmarks import int8_attention
from tests.samples import policies
from tests.samples.small_onnx import product, scalar, weight, write
from vlacompile.check import compile as compiling
from vlacompile.check.compile import Refusal, compile_stage
from vlacompile.check.rtx_log import read_log
from vlacompile.check.tensorrt import BundleCheck, check_bundle, judge
from vlacompile.cli.main import main
from vlacompile.compiler.emit.onnx.bytes_for_tensorrt import bytes_for_tensorrt
from vlacompile.compiler.emit.onnx.for_tensorrt import dequantise_to_fp16, own_dequantisations
from vlacompile.compiler.emit.onnx.onnx_stage import source_line
from vlart.bundle.directory import with_files, write_bundle
from vlart.bundle.plan.plan import Build
from vlart.errors import BundleError, EmitError, ParityError, RuntimeFailure

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                                    reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")
PLAIN = Build(("strongly_typed",), 3, 0, 1 << 29, 0, 0, 1 << 40, 1 << 40)
RECIPE = """name = "{0}"
description = "everything that may be in {0}"
[loop]
form = "steps"
[precision]
base = "fp16"
layers = "{0}"
"""


@pytest.fixture(scope="session")
def on_board(tmp_path_factory):
    """on_board(scheme): the flow policy for an Orin Nano; "" leaves the precision open."""
    where, built = tmp_path_factory.mktemp("board"), {}

    def build(scheme: str) -> vc.Bundle:
        if scheme not in built:
            recipe = where / f"{scheme}.toml"
            recipe.write_text(RECIPE.format(scheme), encoding="utf-8")
            built[scheme] = vc.build(policies.flow(), target="orin-nano-8gb", recipe=str(recipe) if scheme else None,
                                     out=where / f"flow{scheme}.vlab")
        return built[scheme]

    return build


# the bundle

def test_a_bundle_for_a_board_says_how_it_is_built(on_board):
    plan = on_board("").plan
    assert plan.board.name == "orin-nano-8gb" and plan.board.compute_capability == 87
    assert (plan.board.jetpack, plan.board.tensorrt) == ("6.2", "10.3")
    assert all(s.backend == "tensorrt" and s.build is not None for s in plan.stages)
    assert all(s.build.engine_bytes_min <= s.build.weight_bytes <= s.build.engine_bytes_max for s in plan.stages)
    assert {p.scheme for s in plan.stages for p in s.precisions} == {"fp16"}  # a recipe that says nothing


def test_it_is_tried_by_a_stand_in_that_is_asked_for(on_board, capsys):
    path = on_board("int8").path
    with pytest.raises(RuntimeFailure, match="TensorRT backend cannot be loaded") as caught:
        vc.Session(path)
    assert "--stand-in" in caught.value.fix and "board" in caught.value.fix
    report = vc.verify(path, stand_in=True).require()
    assert report.stand_in and report.as_dict()["stand_in"]
    assert main(["verify", str(path), "--stand-in"]) == 0
    assert "a stand-in, not the board" in capsys.readouterr().out


def _rewritten(bundle: vc.Bundle, out: Path, change) -> vc.Bundle:
    """The same bundle, its bytes of weights changed in place, and everything that is told of its files told anew."""
    contents = {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files}
    weights = bytearray(contents["stages/weights.bin"])
    change(weights)
    contents["stages/weights.bin"] = bytes(weights)
    plan = with_files(bundle.plan, contents)
    return write_bundle(out, plan, contents, bundle.manifest["provenance"], lambda path: None)


def test_the_stand_in_fails_where_a_weight_is_wrong(on_board, tmp_path, capsys):
    """The signs of one layer's numbers in 8 bits, in the file that its stage reads; every checksum is right."""
    bundle = on_board("int8")
    stored = [v.const_value for s in bundle.plan.stages
              for v in ir.load(bundle.path / bundle.plan.files[s.artefact].path).graph.initializers.values()
              if isinstance(v.const_value, ir.ExternalTensor) and v.const_value.dtype == ir.DataType.INT8]
    layer = max(stored, key=lambda t: t.length)

    def negate(weights: bytearray) -> None:
        span = slice(layer.offset, layer.offset + layer.length)
        weights[span] = (-np.frombuffer(weights[span], np.int8)).tobytes()

    same = _rewritten(bundle, tmp_path / "same.vlab", lambda weights: None)
    assert vc.verify(same.path, stand_in=True).passed
    report = vc.verify(_rewritten(bundle, tmp_path / "spoilt.vlab", negate).path, stand_in=True)
    assert report.stand_in and not report.passed
    with pytest.raises(ParityError):
        report.require()
    assert main(["verify", str(tmp_path / "spoilt.vlab"), "--stand-in"]) == ParityError.exit_code


@pytest.mark.parametrize(("target", "capability"), [("jetson-thor", 110), ("rtx-4090", 89)])
def test_other_gpus_are_built_for_and_not_checked(target, capability, tmp_path):
    """The bundle is complete, for that GPU; the compiler here makes SM86, which says nothing of it."""
    made = vc.build(policies.flow(), target=target, out=tmp_path / "other.vlab")
    board = made.plan.board
    assert (board.name, board.compute_capability, board.tensorrt) == (target, capability, "10.16")
    assert vc.verify(made.path, stand_in=True).passed and all(s.build for s in made.plan.stages)
    with pytest.raises(BundleError, match=f"bundles for sm_{capability} are not checked") as caught:
        check_bundle(made.path)
    assert "vlart-build" in caught.value.fix


def test_trtexec_is_rendered_from_the_record(on_board, capsys, flow_bundle):
    assert main(["inspect", str(on_board("").path), "--trtexec"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(on_board("").plan.stages)
    name = on_board("").plan.stages[0].name
    assert lines[1] == (f"/usr/src/tensorrt/bin/trtexec --onnx=stages/{name}.onnx --saveEngine=engines/{name}.plan "
                        "--stronglyTyped --noTF32 --builderOptimizationLevel=3 --maxAuxStreams=0 "
                        "--memPoolSize=workspace:512 "
                        "--timingCacheFile=engines/orin-nano-8gb.tensorrt-10.3.timing --skipInference")
    assert main(["inspect", str(flow_bundle.path), "--trtexec"]) == 8


# the rewrites

def test_bytes_are_cast_before_they_are_moved(tmp_path):
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]), helper.make_node("Cast", ["t"], ["c"], to=1),
             helper.make_node("Relu", ["c"], ["y"])]
    model = ir.load(write(tmp_path / "m.onnx", nodes, [("x", TensorProto.UINT8, [2, 3])], [("y", 1, [3, 2])]))
    model.graph.node(0).outputs[0].type = ir.TensorType(ir.DataType.UINT8)  # every value of a stage has a type
    bytes_for_tensorrt(model)
    assert [n.op_type for n in model.graph] == ["Cast", "Transpose", "Relu"]
    assert [v.name for v in model.graph.outputs] == ["y"]


def _dequantised(path: Path, scale: float, products: int) -> ir.Model:
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w32"], name="dq"),
             helper.make_node("Cast", ["w32"], ["w"], to=10),
             *(helper.make_node("MatMul", ["x", "w"], [f"y{i}"], name=f"mm{i}") for i in range(products))]
    return ir.load(write(path, nodes, [("x", 10, [4, 8])], [(f"y{i}", 10, [4, 8]) for i in range(products)],
                         [weight("q", 8, 8, dtype=np.int8), scalar("s", scale, np.float32)]))


def test_a_dequantisation_gives_fp16_itself_where_its_scale_is_exact(tmp_path):
    exact, other = (_dequantised(tmp_path / f"{i}.onnx", s, 1) for i, s in enumerate((0.25, 0.1)))
    dequantise_to_fp16(exact), dequantise_to_fp16(other)
    assert [n.op_type for n in exact.graph] == ["DequantizeLinear", "MatMul"]
    assert [n.op_type for n in other.graph] == ["DequantizeLinear", "Cast", "MatMul"]


def test_a_weight_that_is_wanted_in_both_types_keeps_both(tmp_path):
    """Each output says its own type: an engine refuses a model that says another."""
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w32"], name="dq"),
             helper.make_node("Cast", ["w32"], ["w"], to=10), helper.make_node("MatMul", ["x", "w"], ["y"]),
             helper.make_node("Identity", ["w32"], ["z"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", 10, [4, 8])], [("y", 10, [4, 8]), ("z", 1, [8, 8])],
                 [weight("q", 8, 8, dtype=np.int8), scalar("s", 0.25, np.float32)])
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(path)))
    dequantise_to_fp16(model)
    types = {n.name: n.outputs[0].dtype for n in model.graph if n.op_type == "DequantizeLinear"}
    assert types == {"dq": ir.DataType.FLOAT, "dq__f16": ir.DataType.FLOAT16}
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_every_product_has_a_dequantisation_of_its_own(tmp_path):
    model = _dequantised(tmp_path / "m.onnx", 0.25, 3)
    dequantise_to_fp16(model)
    own_dequantisations(model)
    read = [n.inputs[1].producer() for n in model.graph if n.op_type == "MatMul"]
    assert len(set(read)) == 3 and len({d.inputs[0].name for d in read}) == 3
    assert len({d.inputs[0].const_value.tobytes() for d in read}) == 1


def test_the_line_of_the_model_and_no_path():
    trace = ('  File "/home/someone/robots/policy.py", line 12, in forward\n    return self.head(x)\n'
             '  File "/x/site-packages/torch/nn/modules/linear.py", line 134, in forward\n    return F.linear(\n')
    assert source_line(trace) == "robots/policy.py:12: return self.head(x)"
    assert source_line("") == ""


def test_nodes_of_a_stage_say_where_they_come_from(on_board):
    bundle = on_board("")
    told = [n.doc_string for s in bundle.plan.stages
            for n in ir.load(bundle.path / bundle.plan.files[s.artefact].path).graph]
    assert any("samples/policies.py:" in t for t in told
               if t) and not any("/work" in t or "/home" in t for t in told if t)


# the log, and processes that end

ROW = ("Name: a_myl0_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,2], Strides: [2,1], Datatype: Int8, "
       "Format: f }], "
       "Constants: [ { Name: w, Dimensions: [2,2], Datatype: Int8, Format: f }], Outputs: [ { Name: y, Datatype: "
       "Half }], "
       "TacticName: t, StreamId: 0, Metadata: [ONNX Layer: mm1][ONNX Layer: mm2]")


def test_the_log_is_read():
    found = read_log(["Total Weights Memory: 12 bytes", "Total Activation Memory: 34 bytes",
                      f"Layers:\n{ROW}\n\nI/O Tensors:"])
    assert (found.weight_bytes, found.activation_bytes, len(found.kernels)) == (12, 34, 1)
    kernel = found.kernels[0]
    assert (kernel.inputs, kernel.constants, kernel.outputs) == (("Int8",), ("Int8",), ("Half",))
    assert kernel.nodes == {"mm1", "mm2"} and not kernel.attention


def _other_worker(tmp_path, monkeypatch, body: str) -> None:
    (tmp_path / "compile.py").write_text("")
    (tmp_path / "worker.py").write_text(body)
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compile.py"))


@pytest.mark.parametrize("body,kind,words", [
    (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "crashed", "SIGSEGV"),
    ("import time; time.sleep(60)", "timeout", "longer than 1 s"),
    ("pass", "crashed", "status 0"),  # it ends well and leaves nothing
])
def test_a_process_that_dies_is_a_result(tmp_path, monkeypatch, body, kind, words):
    _other_worker(tmp_path, monkeypatch, body)
    found = compile_stage(tmp_path / "m.onnx", seconds=1 if kind == "timeout" else 30)
    assert found.compiled is None and found.refusal.kind == kind and words in found.refusal.why


def test_a_crash_is_told_with_its_stage(tmp_path):
    model = ir.load(product(tmp_path / "m.onnx"))
    attempt = compiling.Attempt("", 0, Refusal("crashed", "", "", "the compiler's process ended with SIGSEGV"), None)
    report = BundleCheck("b.vlab", "p", "t", "r", (judge("head", PLAIN, model, attempt),))
    assert not report.passed and os.sep not in json.dumps(report.as_dict()["stages"][0]["stage"])
    with pytest.raises(EmitError, match='crashes on the stage "head"') as caught:
        report.require()
    assert "SIGSEGV" in caught.value.why


# with the compiler

@needs_compiler
@pytest.mark.parametrize("scheme", ["", pytest.param("int8", marks=pytest.mark.full),
                                    pytest.param("int4", marks=pytest.mark.full)])
def test_small_policies_are_taken_as_planned(on_board, scheme):
    report = check_bundle(on_board(scheme).path).require()
    assert report.passed and all(s.engine_bytes > 0 for s in report.stages)


@needs_compiler
def test_a_stage_that_came_out_in_fp32_is_seen(tmp_path):
    """The plan says fp16; the very same product in fp32 holds twice the weights."""
    planned = replace(PLAIN, weight_bytes=1024 * 512 * 2)
    wide = write(tmp_path / "w.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
                 [("x", 1, [64, 1024])], [("y", 1, [64, 512])], [weight("w", 1024, 512, dtype=np.float32)])
    narrow = write(tmp_path / "n.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
                   [("x", 10, [64, 1024])], [("y", 10, [64, 512])], [weight("w", 1024, 512)])
    good, bad = (judge("s", planned, ir.load(p), compile_stage(p)) for p in (narrow, wide))
    assert good.passed, good.faults
    assert not bad.passed and "planned were" in bad.faults[0]


@needs_compiler
def test_what_is_not_fused_is_counted(tmp_path):
    """A plan with an INT8 product and an attention, and a graph that has neither in INT8 nor at all."""
    path = product(tmp_path / "m.onnx")
    found = judge("s", replace(PLAIN, weight_bytes=256 * 512 * 2, int8_gemms=1, attentions=1), ir.load(path),
                  compile_stage(path))
    assert [c.good for c in found.counts] == [False, True, False] and len(found.faults) == 2


@needs_compiler
def test_an_attention_with_int8_products_is_no_longer_one_kernel():
    """Why they stay in fp16 (docs/boards.md); fp16 is the control."""
    found = {form: int8_attention.compiled(form, (4, 64, 64, 64)) for form in int8_attention.FORMS}
    assert found["fp16"]["fused"] and not any(found[f]["fused"] for f in int8_attention.FORMS[1:])
    assert [found[f]["int8_products"] for f in int8_attention.FORMS] == [0, 1, 2]
    assert found["both products in int8"]["between_bytes"] > found["fp16"]["between_bytes"]



@needs_compiler
def test_a_zero_point_is_refused_with_its_node_and_what_helps(tmp_path):
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], name="dq"),
             helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")]
    path = write(tmp_path / "m.onnx", nodes, [("x", 10, [64, 64])], [("y", 10, [64, 64])],
                 [weight("q", 64, 64, dtype=np.int8), scalar("s", 0.25, np.float16), scalar("z", 3, np.int8)])
    found = judge("s", PLAIN, ir.load(path), compile_stage(path))
    assert found.refusal["kind"] == "rejected" and "symmetrically" in found.refusal["fix"], found.refusal


@needs_compiler
def test_an_op_that_it_has_not_is_named_with_its_line(tmp_path):
    path = write(tmp_path / "m.onnx", [helper.make_node("NonZero", ["x"], ["y"], name="which",
                                                        doc_string="robots/policy.py:7: keep = mask.nonzero()")],
                 [("x", 1, [8])], [("y", 7, [1, None])])
    found = judge("pick", PLAIN, ir.load(path), compile_stage(path))
    report = BundleCheck("b.vlab", "p", "t", "r", (found,))
    with pytest.raises(EmitError) as caught:
        report.require()
    assert 'node "which"' in caught.value.where and "robots/policy.py:7" in caught.value.where
    assert "where()" in caught.value.fix


@needs_compiler
def test_fp8_is_refused_for_this_generation(tmp_path):
    fp8 = helper.make_tensor("q", TensorProto.FLOAT8E4M3FN, [64, 64], [0.5] * 4096)
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="qx"),
             helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="dx"),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], name="dw"),
             helper.make_node("MatMul", ["xd", "w"], ["y"], name="mm")]
    path = write(tmp_path / "m.onnx", nodes, [("x", 10, [64, 64])], [("y", 10, [64, 64])],
                 [fp8, zero, scalar("s", 0.25, np.float16)])
    found = compile_stage(path)
    assert found.compiled is None and found.refusal.kind == "not built" and "fp8" in found.refusal.why, found.refusal


@needs_compiler
def test_the_compilers_own_crash_is_no_pass(tmp_path):
    """Q, K and V of one input, twice, with weights dequantised once: TensorRT-RTX 1.7.1 does not survive it in 8
    bits."""
    nodes, tensors, x = [], [scalar("s", 0.25, np.float16)], "x"
    for n in "qkv":
        tensors.append(weight(f"{n}_8", 64, 64, dtype=np.int8))
        nodes.append(helper.make_node("DequantizeLinear", [f"{n}_8", "s"], [n], name=f"dq_{n}"))
    for step in range(2):
        nodes += [helper.make_node("MatMul", [x, n], [f"{n}{step}"], name=f"mm_{n}{step}") for n in "qkv"]
        nodes += [helper.make_node("Add", [f"q{step}", f"k{step}"], [f"a{step}"]),
                  helper.make_node("Add", [f"a{step}", f"v{step}"], [f"b{step}"]),
                  helper.make_node("Tanh", [f"b{step}"], [f"x{step}"])]
        x = f"x{step}"
    path = write(tmp_path / "m.onnx", nodes, [("x", 10, [16, 64])], [(x, 10, [16, 64])], tensors)
    shared = compile_stage(path)
    model = ir.load(path)
    own_dequantisations(model)
    ir.save(model, tmp_path / "own.onnx")
    assert compile_stage(tmp_path / "own.onnx").compiled is not None
    if shared.compiled is None:  # a later compiler may take it
        assert shared.refusal.kind in ("crashed", "not built"), shared.refusal


@needs_compiler
@pytest.mark.full
@pytest.mark.parametrize("scheme", ["fp16"])
def test_a_policy_of_real_size_is_taken_as_planned(tmp_path, scheme):
    """`profiles/rtx/libero-goal-light-*.json` are such results."""
    from examples.libero_goal.policy import light

    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(scheme), encoding="utf-8")
    bundle = vc.build(light(), target="orin-nano-8gb", recipe=str(recipe), out=tmp_path / "light.vlab")
    report = check_bundle(bundle.path).require()
    assert sum(c.found for s in report.stages for c in s.counts if c.what == "fused attentions") == 13
