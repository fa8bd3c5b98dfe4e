"""End to end: build, replay through libvlart, caches, negative controls, determinism, bad input."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from vlart.bundle.directory import GOLDEN_FILE
from vlart.bundle.plan.text import parse_plan
from vlart.errors import BundleError, CaptureError, ConfigError, ParityError, RuntimeFailure, SourceError
from vlart.verify.frames import Expected, read_frames
from vlart.verify.replay import replay


def write_all(session: vc.Session, policy: vc.Policy, **changed) -> None:
    for name, tensor in {**policy.example_inputs, **changed}.items():
        session.write(name, tensor)


@pytest.fixture
def session(late_fusion_bundle):
    with vc.Session(late_fusion_bundle.path, threads=1) as s:
        yield s


@pytest.mark.parametrize("which", ["late_fusion_bundle", "flow_bundle"])
def test_every_stage_and_the_chunk_match_pytorch(which, request):
    report = vc.verify(request.getfixturevalue(which).path, threads=1)
    assert report.passed and {"stage", "chunk"} == {v.level for v in report.values}
    chunk = next(v for v in report.values if v.level == "chunk")
    assert chunk.worst.max_abs <= 1e-4 and chunk.worst.rel_l2 <= 1e-4 and chunk.worst.cosine >= 0.99999


@pytest.mark.parametrize("which", ["late_fusion_bundle", "flow_bundle"])
def test_plan_text(which, request, golden):
    """Without the files' sizes and checksums, which belong to the ONNX exporter."""
    bundle = request.getfixturevalue(which)
    text = (bundle.path / "plan.txt").read_text()
    assert parse_plan(text) == bundle.plan == vc.load(bundle.path).plan
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith("file ")]
    golden(f"{which.removesuffix('_bundle')}.plan.txt", "".join(kept))


def test_what_was_not_written_or_is_equal_runs_nothing(session):
    policy = policies.late_fusion()
    write_all(session, policy)
    session.step()
    once = session.stats().runs()
    assert set(once.values()) == {1}
    session.step()
    write_all(session, policy)
    session.step()
    assert session.stats().runs() == once


def test_a_changed_camera_runs_its_encoder_and_what_needs_it(session):
    policy = policies.late_fusion()
    write_all(session, policy)
    session.step()
    session.write("observation.images.wrist", 255 - policy.example_inputs["observation.images.wrist"])
    session.step()
    assert session.stats().runs() == {"language": 1, "vision.base": 1, "state": 1, "vision.wrist": 2, "fusion": 2}


def test_a_changed_instruction_runs_the_language_and_the_fusion(session):
    policy = policies.late_fusion()
    write_all(session, policy)
    session.step()
    tokens = policy.example_inputs["observation.language.tokens"]
    session.write("observation.language.tokens", (tokens + 1) % 50)
    session.step()
    assert session.stats().runs() == {"language": 2, "vision.base": 1, "state": 1, "vision.wrist": 1, "fusion": 2}
    want = policy.infer(**{**policy.example_inputs, "observation.language.tokens": (tokens + 1) % 50})["action"]
    assert np.abs(session.read("action") - want.detach().numpy()).max() <= 1e-5


def test_swapped_cameras_fail_the_gate(late_fusion_bundle):
    """Negative control: the wrong frames must not pass as parity."""
    frames = read_frames(late_fusion_bundle.path / GOLDEN_FILE)
    swapped = []
    for f in frames:
        base, wrist = f.writes["observation.images.base"], f.writes["observation.images.wrist"]
        swapped.append(dataclasses.replace(f, writes={**f.writes, "observation.images.base": wrist,
                                                      "observation.images.wrist": base}))
    report = replay(late_fusion_bundle.path, swapped, ("action",))
    assert not next(v for v in report.values if v.value == "action").passed
    with pytest.raises(ParityError, match="differs from PyTorch"):
        report.require()


def test_a_stale_instruction_fails_the_gate(late_fusion_bundle):
    """Negative control: a cache that is not renewed shows at the frame that changes the instruction."""
    frames = read_frames(late_fusion_bundle.path / GOLDEN_FILE)
    old = frames[0].writes["observation.language.tokens"]
    stale = [dataclasses.replace(f, writes={**f.writes, "observation.language.tokens": old}) for f in frames]
    assert not replay(late_fusion_bundle.path, stale, ("action",)).passed


def test_a_perturbed_weight_fails_the_gate(late_fusion_bundle, tmp_path):
    """Negative control: one weight changed by 1 % of the largest; libvlart would refuse the checksum, so
    the plan is written anew around it."""
    from vlart.bundle.directory import with_files
    from vlart.bundle.plan.binary import plan_bytes

    path = tmp_path / "perturbed.vlab"
    shutil.copytree(late_fusion_bundle.path, path)
    weights = path / "stages" / "weights.bin"
    data = np.frombuffer(weights.read_bytes(), np.float32).copy()
    data[: data.size // 2] += 0.01 * np.abs(data).max()
    weights.write_bytes(data.tobytes())
    plan = late_fusion_bundle.plan
    contents = {f.path: (path / f.path).read_bytes() for f in plan.files}
    (path / "plan.bin").write_bytes(plan_bytes(with_files(plan, contents)))
    assert not replay(path, read_frames(path / GOLDEN_FILE), ("action",)).passed
    with pytest.raises(BundleError, match="was altered"):
        vc.verify(path)


def test_scale_alone_fails_the_gate(late_fusion_bundle):
    """Negative control for the metric: a chunk 0.1 % too large has cosine 1."""
    frames = read_frames(late_fusion_bundle.path / GOLDEN_FILE)
    grown = [dataclasses.replace(f, expects={"action": Expected(f.expects["action"].array * np.float32(1.001),
                                                               f.expects["action"].limit)}) for f in frames]
    report = replay(late_fusion_bundle.path, grown, ("action",))
    assert report.values[0].worst.cosine > 0.99999 and not report.passed


@pytest.mark.parametrize("shares, passed", [((0.9, 0.2), True), ((0.2, 1.1), False), ((0.0, 0.0), True)])
def test_a_row_of_frames_with_unlike_limits_shows_what_decided(late_fusion_bundle, shares, passed):
    """Limits may differ from frame to frame: what is shown is within what is beside it exactly where the value
    passes."""
    from vlart.verify.metrics import Metrics
    from vlart.verify.replay import Tally

    tally, want = Tally(), np.ones(100)
    for size, share in zip((2.0, 0.1), shares, strict=True):  # the first frame's limits are twenty times as wide
        got = want + size * share * np.where(np.arange(100) % 2, 1, -1)
        tally.add("a", "stage", got, want, Metrics(size, size, 1 - size), f"{size}")
    (row,) = tally.rows()
    assert row.passed == row.worst.within(row.limit) == passed and row.frames == 2
    if not passed:
        assert row.failed[0] == "0.1" and row.limit.max_abs == 0.1


def test_two_builds_give_the_same_bytes(tmp_path, every_stage, late_fusion_bundle):
    again = vc.build(policies.late_fusion(), recipe=str(every_stage), out=tmp_path / "again.vlab")
    assert again.hash == late_fusion_bundle.hash
    for relative in [*again.manifest["files"], "manifest.json"]:
        assert (again.path / relative).read_bytes() == (late_fusion_bundle.path / relative).read_bytes(), relative


def test_the_queue_hands_out_the_executed_part(tmp_path):
    recipe = tmp_path / "queue.toml"
    recipe.write_text('name = "queue"\ndescription = ""\n[action]\nexecute = 3\n')
    policy = policies.late_fusion()
    bundle = vc.build(policy, recipe=str(recipe), out=tmp_path / "q.vlab")
    with vc.Session(bundle.path) as s:
        write_all(s, policy)
        with pytest.raises(RuntimeFailure) as early:
            s.pop()
        assert early.value.status == "QUEUE_EMPTY"
        s.step()
        chunk = s.read("action")[0]
        assert [np.array_equal(s.pop(), chunk[i]) for i in range(3)] == [True] * 3
        with pytest.raises(RuntimeFailure) as empty:
            s.pop()
        assert empty.value.status == "QUEUE_EMPTY"


def test_an_action_out_of_range_keeps_the_last_safe_chunk(tmp_path):
    recipe = tmp_path / "bounds.toml"
    recipe.write_text('name = "bounds"\ndescription = ""\n[action]\nlow = [-1.0]\nhigh = [1.0]\n')

    def observe(state):
        return {"action": state[:, :, None] * 1.0}

    policy = vc.Policy("echo", observe, {"state": vc.Source("observation")}, {"state": torch.tensor([[0.5, -0.5]])})
    # Golden inputs stay within the bounds: they are the example plus a tenth of its spread.
    bundle = vc.build(policy, recipe=str(recipe), out=tmp_path / "echo.vlab")
    with vc.Session(bundle.path) as s:
        s.write("state", np.array([[0.25, -0.25]], np.float32))
        s.step()
        s.write("state", np.array([[3.0, 0.0]], np.float32))
        with pytest.raises(RuntimeFailure) as caught:
            s.step()
        assert caught.value.status == "ACTION_OUT_OF_RANGE" and "3" in caught.value.why
        assert s.queue().stale == 1 and s.pop()[0] == np.float32(0.25)


@pytest.mark.parametrize(("name", "array", "status"), [
    ("observation.state", np.zeros((1, 8), np.float32), "WRONG_SHAPE"),
    ("observation.state", np.zeros((1, 9), np.int64), "WRONG_DTYPE"),
    ("observation.state", np.full((1, 9), np.nan, np.float32), "NOT_FINITE"),
    ("observation.sttae", np.zeros((1, 9), np.float32), "NOT_FOUND"),
    ("observation.state", np.zeros((1, 9), np.complex64), "WRONG_DTYPE"),
])
def test_a_wrong_write_is_refused_and_changes_nothing(session, name, array, status):
    policy = policies.late_fusion()
    write_all(session, policy)
    session.step()
    before = session.read("action")
    with pytest.raises(RuntimeFailure) as caught:
        session.write(name, array)
    assert caught.value.status == status and caught.value.fix
    session.step()
    assert np.array_equal(session.read("action"), before) and set(session.stats().runs().values()) == {1}


def test_a_source_that_was_never_written_is_named(session):
    policy = policies.late_fusion()
    for name, tensor in policy.example_inputs.items():
        if name != "observation.state":
            session.write(name, tensor)
    with pytest.raises(RuntimeFailure, match="observation.state") as caught:
        session.step()
    assert caught.value.status == "SOURCE_UNSET"


def test_a_closed_session_says_so(late_fusion_bundle):
    session = vc.Session(late_fusion_bundle.path)
    session.close()
    session.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        session.step()


def test_a_missing_engine_library_is_named(late_fusion_bundle, tmp_path):
    with pytest.raises(RuntimeFailure) as caught:
        vc.Session(late_fusion_bundle.path, engine_library=tmp_path / "libonnxruntime.so")
    assert caught.value.status == "NO_BACKEND" and caught.value.fix


@pytest.mark.parametrize("relative", ["plan.bin", "stages/weights.bin", "stages/fusion.onnx", GOLDEN_FILE])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_bundle_is_refused(late_fusion_bundle, tmp_path, relative, damage):
    path = tmp_path / "damaged.vlab"
    shutil.copytree(late_fusion_bundle.path, path)
    file = path / relative
    data = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()
    with pytest.raises((BundleError, RuntimeFailure)) as caught:
        vc.Session(path)
    assert caught.value.fix
    with pytest.raises((BundleError, RuntimeFailure)):
        vc.verify(path)


def test_a_failed_build_leaves_the_old_bundle_and_nothing_else(late_fusion_bundle, tmp_path):
    out = tmp_path / "kept.vlab"
    shutil.copytree(late_fusion_bundle.path, out)
    before = json.loads((out / "manifest.json").read_text())

    def observe(state):
        return {"action": torch.randn(1, 2, 3) * state.sum()}  # draws its own noise: no two runs are equal

    bad = vc.Policy("noise", observe, {"state": vc.Source("observation")}, {"state": torch.randn(1, 4)})
    with pytest.raises((ParityError, CaptureError)):
        vc.build(bad, out=out)
    assert json.loads((out / "manifest.json").read_text()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept.vlab"]


def test_a_directory_that_is_no_bundle_is_not_replaced(tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.txt").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle"):
        vc.build(policies.late_fusion(), out=out)
    assert (out / "chapter1.txt").read_text() == "years of work"


def test_control_flow_on_values_names_the_line():
    def observe(state):
        if state.sum() > 0:  # THE LINE
            return {"action": state}
        return {"action": -state}

    policy = vc.Policy("branch", observe, {"state": vc.Source("observation")}, {"state": torch.randn(1, 2, 3)})
    with pytest.raises(CaptureError) as caught:
        vc.build(policy, out="never.vlab")
    assert "THE LINE" in caught.value.where and "test_build.py" in caught.value.where


class Gate(torch.nn.Module):
    def forward(self, x):
        return x * 2 if bool(x.mean() > 0) else x


def test_control_flow_inside_a_module_names_its_path():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), Gate()).eval()
    policy = vc.Policy("gated", lambda state: {"action": model(state)}, {"state": vc.Source("observation")},
                       {"state": torch.randn(1, 2, 3)})
    with pytest.raises(CaptureError) as caught:
        vc.build(policy, out="never.vlab")
    assert "module model.1 (Gate)" in caught.value.where and "bool(x.mean() > 0)" in caught.value.where


def test_a_policy_in_training_mode_is_refused():
    policy = policies.late_fusion()
    policy.observe.train()
    with pytest.raises(CaptureError, match="training mode"):
        vc.build(policy, out="never.vlab")


def test_an_output_that_is_not_returned_is_named():
    policy = dataclasses.replace(policies.late_fusion(), outputs=("actions",))
    with pytest.raises(CaptureError, match="returns no actions"):
        vc.build(policy, out="never.vlab")


def test_recipe_and_target_errors_name_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="no target") as target:
        vc.build(policies.late_fusion(), target="hots", out=tmp_path / "x.vlab")
    assert '"host"' in target.value.why
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\ndescription = ""\n[action]\nexecut = 3\n')
    with pytest.raises(ConfigError, match="action.execut") as key:
        vc.build(policies.late_fusion(), recipe=str(recipe), out=tmp_path / "x.vlab")
    assert '"execute"' in key.value.why
    recipe.write_text('name = "r"\ndescription = ""\n[action]\nexecute = 99\n')
    with pytest.raises(ConfigError, match="more than the chunk has"):
        vc.build(policies.late_fusion(), recipe=str(recipe), out=tmp_path / "x.vlab")


def test_policies_that_do_not_fit_together_are_refused():
    state = {"state": torch.randn(1, 2, 3)}
    observe = lambda state: {"action": state}
    with pytest.raises(SourceError, match="different inputs"):
        vc.Policy("p", observe, {}, state)
    with pytest.raises(SourceError, match="not an update class") as caught:
        vc.Source("obervation")
    assert '"observation"' in caught.value.why
    with pytest.raises(SourceError, match="NaN"):
        vc.Policy("p", observe, {"state": vc.Source("observation")}, {"state": torch.tensor([float("nan")])})
    with pytest.raises(SourceError, match="only one of step and loop"):
        vc.Policy("p", observe, {"state": vc.Source("observation")}, state, loop=vc.Loop(2, {"action": "state"}))


def test_running_needs_no_torch(tmp_path):
    """What runs and checks a bundle on a robot does not load PyTorch."""
    code = ("import sys, vlacompile as vc; vc.Session, vc.load, vc.verify; import vlart.verify.replay; "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_means_over_chunks_end_with_their_task(tmp_path):
    """The golden frames change the task while older chunks still count; replays and libvlart forget them alike."""
    rows = torch.linspace(-1, 1, 12).reshape(1, 4, 3)

    def observe(state, goal):
        return {"action": rows * state.sum() + goal[:, None]}

    policy = vc.Policy("means", observe, {"state": vc.Source("observation"), "goal": vc.Source("task")},
                       {"state": torch.randn(1, 4), "goal": torch.randn(1, 3)}, ensemble=0.5)
    bundle = vc.build(policy, out=tmp_path / "means.vlab")
    with vc.Session(bundle.path, threads=1) as session:
        popped = []
        for goal in (0.0, 0.0, 5.0):
            session.write("state", torch.ones(1, 4))
            session.write("goal", torch.full((1, 3), goal))
            session.step()
            popped.append(session.pop())
    first, second, third = (rows[0].numpy() * 4)[[0, 1, 0]]
    assert np.allclose(popped[0], first, atol=1e-5) and np.allclose(popped[2], third + 5.0, atol=1e-5)
    assert not np.allclose(popped[1], first, atol=1e-3) and not np.allclose(popped[1], second, atol=1e-3)
