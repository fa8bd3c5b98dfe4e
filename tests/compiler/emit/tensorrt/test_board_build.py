"""Bundles for a board, from the compiler to the board's own builder: on a double of the board's libraries, whose
engines ONNX Runtime runs (runtime_c/tests/fake_tensorrt.c). Not run on a board."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import vlacompile as vc
from tests.policy.test_text import KNOWN, MASK, TOKENS, act, ids_of, tokenizer
from tests.policy.test_text import inputs as text_inputs
from tests.runtime_c.running import BUILD, make, run_tool
from tests.runtime_c.tensorrt import Board, lock
from tests.samples import policies
from tests.samples.deep import deep
from vlacompile.compiler.fit.engine_memory import ENGINE_BYTES
from vlart.bundle.plan.arena import TENSORRT_ALIGN
from vlart.errors import RuntimeFailure


@pytest.fixture(scope="module", params=["late_fusion", "flow"])
def bundle(request, tmp_path_factory):
    make(f"BUILD={BUILD}", "all", str(BUILD / "libfake_tensorrt.so"))
    out = tmp_path_factory.mktemp("bundle") / "b.vlab"
    return vc.build(getattr(policies, request.param)(), target="orin-nano-8gb@25w", out=out)


@pytest.fixture
def board(bundle, tmp_path):
    """Engines that weigh what was planned."""
    (tmp_path / "board").mkdir()
    sizes = " ".join(f"{s.name}:{(s.build.engine_bytes_min + s.build.engine_bytes_max) // 2}"
                     for s in bundle.plan.stages)
    return Board(tmp_path / "board", sizes=sizes)


def test_a_bundle_is_built_proved_and_run(bundle, board):
    done = board.build(bundle.path)
    assert done.returncode == 0, done.stderr
    found = lock(bundle.path)
    assert found["golden"] == "passed"
    assert [e["stage"] for e in found["engines"]] == [s.name for s in bundle.plan.stages]
    built = [line.split() for line in board.calls("build")]
    assert [(w[1], w[3], w[5], w[7]) for w in built] == [
        (s.name, "3", str(s.build.level), str(s.build.workspace_bytes)) for s in bundle.plan.stages]
    for arguments in ([], ["--whole-tick"]):
        done = run_tool("vlart-run", bundle.path, "--tensorrt", board.library, "--self-test", *arguments)
        assert done.returncode == 0 and "self-test passed" in done.stdout, done.stderr


def test_values_lie_where_tensorrt_takes_them(bundle, board):
    """No copies between stages: only rows of computed values may lie off the alignment of addresses."""
    assert board.build(bundle.path).returncode == 0
    board.set()
    assert run_tool("vlart-run", bundle.path, "--tensorrt", board.library).returncode == 0
    rows = sum(b.mode == "row" and bundle.plan.values[b.value].weight is None
               for s in bundle.plan.stages for b in (*s.inputs, *s.outputs))
    assert rows > 0 or not board.calls("copy")
    assert all(v.offset % TENSORRT_ALIGN == 0 for v in bundle.plan.values if v.weight is None)


def test_wider_weights_than_planned_are_noticed(bundle, board):
    """The sign of layers that fell back to f32."""
    stage = max(bundle.plan.stages, key=lambda s: s.build.weight_bytes)
    board.set(sizes=f"{stage.name}:{stage.build.engine_bytes_max + 1}")
    done = board.build(bundle.path, "--rebuild")
    assert done.returncode == 1 and "not the one that was planned" in done.stderr


def test_known_instructions_need_no_engine(tmp_path, every_stage):
    """The stages of the text are not built; the session looks up what they make."""
    policy = replace(policies.late_fusion(), texts={TOKENS: vc.Text(tokenizer().to_str(), MASK, vc.Fit(pad=0))})
    bundle = vc.build(policy, target="orin-nano-8gb@25w", recipe=str(every_stage), out=tmp_path / "b.vlab",
                      instructions=KNOWN, only_instructions=True)
    (tmp_path / "board").mkdir()
    weigh = {s.name: (s.build.engine_bytes_min + s.build.engine_bytes_max) // 2 for s in bundle.plan.stages if s.build}
    board = Board(tmp_path / "board", sizes=" ".join(f"{n}:{b}" for n, b in weigh.items()))
    assert 0 < len(weigh) < len(bundle.plan.stages)
    done = board.build(bundle.path)
    assert done.returncode == 0, done.stderr
    assert [e["stage"] for e in lock(bundle.path)["engines"]] == list(weigh)
    rest = {n: a for n, a in text_inputs().items() if n not in (TOKENS, MASK)}
    with vc.Session(bundle.path, tensorrt_library=board.library, whole_tick=True) as session, \
            vc.Session(bundle.path, stand_in=True) as stand_in:
        for words in KNOWN:
            for s in (session, stand_in):
                s.write_text(TOKENS, words)
            np.testing.assert_allclose(act(session, rest), act(stand_in, rest), atol=1e-6)
        with pytest.raises(RuntimeFailure, match="other instructions"):
            act(session, {TOKENS: ids_of("bowl")[0]})


LAYERED = """name = "layers"
description = "every stage by itself, equal layers as one engine, fp16"
[stages]
min_flops = 0
depth = "{depth}"
[precision]
base = "fp16"
layers = "fp16"
"""


def test_equal_layers_are_one_engine_bound_to_the_weights_of_each(tmp_path):
    """Built, proved and run on the double; the same actions as of one engine for all layers, and as of a stand-in."""
    built, acted = {}, {}
    for depth in ("loop", "unrolled"):
        (tmp_path / f"{depth}.toml").write_text(LAYERED.format(depth=depth), encoding="utf-8")
        bundle = vc.build(deep(4), target="orin-nano-8gb@25w", recipe=str(tmp_path / f"{depth}.toml"),
                          out=tmp_path / f"{depth}.vlab")
        (tmp_path / depth).mkdir()
        board = Board(tmp_path / depth, sizes=" ".join(
            f"{s.name}:{(s.build.engine_bytes_min + s.build.engine_bytes_max) // 2}" for s in bundle.plan.stages))
        assert (done := board.build(bundle.path)).returncode == 0, done.stderr
        board.set()
        given = {n: t.numpy() for n, t in deep(4).example_inputs.items()}
        for whole in (False, True):
            with vc.Session(bundle.path, tensorrt_library=board.library, whole_tick=whole) as session, \
                    vc.Session(bundle.path, stand_in=True) as stand_in:
                acted[depth] = act(session, given)
                np.testing.assert_allclose(acted[depth], act(stand_in, given), atol=1e-6)
        built[depth] = bundle.plan, len(board.calls("upload"))
    np.testing.assert_allclose(acted["loop"], acted["unrolled"], rtol=2e-3, atol=2e-3)
    plan, uploads = built["loop"]
    layers, = (s for s in plan.stages if s.name.endswith(".layers"))
    rows = [b for b in layers.inputs if b.mode == "row"]
    assert layers.iterations == 4 and layers.build.weight_bytes < layers.weight_bytes
    assert uploads == 2 * 4 * len(rows), "each layer's weights once per session, and no more"
    whole, _ = built["unrolled"]
    assert sum(s.build.engine_bytes_max for s in plan.stages) < \
        sum(s.build.engine_bytes_max for s in whole.stages) + 2 * ENGINE_BYTES
    assert not any(s.name.endswith(".layers") for s in whole.stages)


def test_a_bundle_for_another_board_is_refused(bundle, board):
    board.module("p3767-0000")
    done = board.build(bundle.path)
    assert done.returncode == 1 and "board orin-nano-8gb, here is orin-nx-16gb" in done.stderr
    board.module("p3767-0005")
    board.set(tensorrt="10.16.2.10")
    done = run_tool("vlart-run", bundle.path, "--tensorrt", board.library)
    assert done.returncode == 1 and "TensorRT 10.3, here is 10.16.2.10" in done.stderr
