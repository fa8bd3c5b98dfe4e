"""`verify --through tensorrt` on doubles of TensorRT's and CUDA's Python APIs. Not run on a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

import vlacompile as vc
from tests.check import tensorrt_double
from tests.samples import policies
from vlacompile.check.tensorrt_python import verify_through_tensorrt
from vlart.bundle.plan.plan import LoopEnd
from vlart.errors import ConfigError


@pytest.fixture(scope="module")
def board_bundle(tmp_path_factory, every_stage):
    """With a loop, whose values are carried and whose tables are rows."""
    out = tmp_path_factory.mktemp("through") / "flow.vlab"
    return vc.build(policies.flow(), target="orin-nano-8gb", recipe=str(every_stage), out=out)


def test_every_value_of_every_stage_by_the_recipe(board_bundle, cli, monkeypatch):
    gpu = tensorrt_double.install(monkeypatch)
    code, out, err = cli("verify", board_bundle.path, "--through", "tensorrt")
    assert code == 0, out + err
    made = {board_bundle.plan.values[b.value].name for s in board_bundle.plan.stages for b in s.outputs
            if not s.carries}
    made |= {board_bundle.plan.values[c.result].name for s in board_bundle.plan.stages for c in s.carries}
    assert "step.0" in made and all(name in out for name in made) and "TensorRT's Python API" in out
    build = board_bundle.plan.stages[0].build
    assert gpu.log[:3] == [("workspace", build.workspace_bytes), ("clear", "TF32"),
                           ("level", build.level, "aux", build.aux_streams)]
    assert gpu.flags == 1 << 1 and not gpu.memory and not gpu.streams, "typed networks; all is freed"


def test_a_wrong_engine_fails(board_bundle, cli, monkeypatch):
    tensorrt_double.install(monkeypatch).corrupt = True
    code, out, _ = cli("verify", board_bundle.path, "--through", "tensorrt")
    assert code == 10 and "NO" in out


@pytest.mark.parametrize("fail, said", [("parse", "UNSUPPORTED_NODE"), ("cudaMalloc", "CUDA refuses cudaMalloc"),
                                        ("cudaMemcpyAsync", "CUDA refuses cudaMemcpyAsync")])
def test_refusals_name_what_refused_and_free_what_was_taken(board_bundle, cli, monkeypatch, fail, said):
    gpu = tensorrt_double.install(monkeypatch)
    gpu.fail = fail
    code, _, err = cli("verify", board_bundle.path, "--through", "tensorrt")
    assert code in (3, 8) and said in err and "fix:" in err and not gpu.memory and not gpu.streams


def test_without_tensorrt_or_stages_for_it(board_bundle, late_fusion_bundle, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    code, _, err = cli("verify", board_bundle.path, "--through", "tensorrt")
    assert code == 3 and "TensorRT's Python API is not installed" in err
    tensorrt_double.install(monkeypatch)
    code, _, err = cli("verify", late_fusion_bundle.path, "--through", "tensorrt")
    assert code == 3 and "no stages for TensorRT" in err


def test_a_loop_that_its_data_ends_is_refused_before_anything_is_built(board_bundle, monkeypatch):
    """One iteration of it would be compared with what all of them give."""
    gpu = tensorrt_double.install(monkeypatch)
    stages = tuple(replace(s, end=LoopEnd(0, False)) if s.iterations > 1 else s for s in board_bundle.plan.stages)
    assert stages != board_bundle.plan.stages
    with pytest.raises(ConfigError, match="cannot be run by itself"):
        verify_through_tensorrt(replace(board_bundle, plan=replace(board_bundle.plan, stages=stages)))
    assert not gpu.log


def test_the_double_has_the_names_of_nvidias_api(monkeypatch):
    """Of TensorRT-RTX, whose Python API has the same classes; only names are held."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'vlacompile[rtx]'")
    tensorrt_double.install(monkeypatch)
    double = sys.modules["tensorrt"]
    for name in ("Builder", "OnnxParser", "Runtime"):
        own = {n for n in vars(getattr(double, name)) if not n.startswith("_")}
        assert own <= set(dir(getattr(rtx, name))), name
    for kind in ("NetworkDefinitionCreationFlag", "MemoryPoolType", "BuilderFlag", "TensorIOMode"):
        assert {m.name for m in getattr(double, kind)} <= set(dir(getattr(rtx, kind))), kind
    assert {"set_tensor_address", "execute_async_v3"} <= set(dir(rtx.IExecutionContext))
    assert {"set_memory_pool_limit", "builder_optimization_level", "max_aux_streams", "set_flag", "clear_flag"} <= set(
        dir(rtx.IBuilderConfig))
