"""What is read as a bundle: regular files below its directory, once, in a time that follows their size."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest
from sample_bundles import Bundle, Flow, Reactive
from vlart_ctypes import Failure, Policy

from tests.runtime_c.running import assert_outputs, run_tool
from vlart import vocabulary


def opened(lib, root) -> None:
    with Policy(lib, root):
        pass


@pytest.mark.parametrize("path", ["stages/prefix.onnx", "stages/denoise.onnx", "stages/weights.bin", "plan.bin"])
def test_what_runs_is_what_was_checked(lib, ort, tmp_path, path):
    """Another file takes the place of one that was checked, between [open] and [init]."""
    flow = Flow(3)
    root = flow.bundle.write(tmp_path)
    with Policy(lib, root) as policy:
        (root / "other").write_bytes(b"not what was checked")
        (root / "other").replace(root / path)
        policy.start(ort)
        policy.run(flow.inputs())
        assert_outputs(policy, flow.reference(flow.inputs()))


@pytest.mark.parametrize("path", ["stages/denoise.onnx", "stages/weights.bin"])
def test_what_openvino_reads_by_its_path_is_what_was_checked(lib, openvino, tmp_path, path):
    root = openvino.write(Flow(3).bundle, tmp_path)
    with Policy(lib, root) as policy:
        (root / "other").write_bytes((root / path).read_bytes())  # even one that is equal
        (root / "other").replace(root / path)
        with pytest.raises(Failure, match="another file took its place") as failure:
            policy.start(openvino.library)
    assert failure.value.status == "UNSUPPORTED"


def test_onnx_runtime_stands_in_for_openvino_where_it_is_told_to(lib, ort, tmp_path):
    flow = Flow(3)
    root = flow.bundle.for_openvino().write(tmp_path)
    with Policy(lib, root) as policy, pytest.raises(Failure, match="NO_BACKEND"):
        policy.start(ort, openvino_library=b"/absent/libopenvino_c.so")
    with Policy(lib, root).start(ort, openvino_library=b"/absent/libopenvino_c.so", stand_in=1) as policy:
        policy.run(flow.inputs())
        assert_outputs(policy, flow.reference(flow.inputs()))


FILES = ("plan.bin", "stages/weights.bin", "stages/prefix.onnx")


@pytest.mark.parametrize("path", FILES)
def test_a_pipe_is_refused_and_not_waited_for(lib, tmp_path, path):
    root = Flow(3).bundle.write(tmp_path)
    (root / path).unlink()
    os.mkfifo(root / path)
    ran = run_tool("vlart-run", root)
    assert ran.returncode == 1 and "it is no regular file" in ran.stderr and path in ran.stderr


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "kept"])
def test_a_link_is_refused(lib, tmp_path, path, target):
    root = Flow(3).bundle.write(tmp_path)
    (root / path).rename((root / path).with_name("kept"))
    (root / path).symlink_to(target)
    with pytest.raises(Failure, match="IO.*symbolic link"):
        opened(lib, root)


def test_a_linked_folder_is_refused_and_a_link_to_the_bundle_is_not(lib, tmp_path):
    root = Flow(3).bundle.write(tmp_path / "a.vlab")
    (tmp_path / "link.vlab").symlink_to(root)
    opened(lib, tmp_path / "link.vlab")
    shutil.move(root / "stages", tmp_path / "elsewhere")
    (root / "stages").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="IO.*symbolic link"):
        opened(lib, root)


def test_a_plan_of_any_size_is_refused(lib, tmp_path):
    """Before it is read: its size is a number that costs nothing to write."""
    root = Flow(3).bundle.write(tmp_path)
    with (root / "plan.bin").open("r+b") as file:
        file.truncate(1 << 40)
    began = time.process_time()
    with pytest.raises(Failure, match=f"UNSUPPORTED.*{1 << 40} bytes"):
        opened(lib, root)
    assert time.process_time() - began < 1


def test_every_stage_has_the_file_that_a_stand_in_needs(lib, ort, tmp_path):
    flow = Flow(3).on_board()
    for index in range(2):
        flow.bundle.plan.records["stages"][index]["artefact"] = 0xFFFFFFFF
    with pytest.raises(Failure, match="CORRUPT.*not a stage file"):
        Policy(lib, flow.bundle.write(tmp_path)).start(ort, stand_in=1)


def library(stages: int, instructions: int) -> Bundle:
    """Every instruction stores what every stage makes of it."""
    bundle = Bundle("library")
    plan, s = bundle.plan, bundle.plan.string
    tokens = bundle.source("tokens", "i64", (1, 2), "task")
    ids, one = bundle.weight("ids", np.zeros((1, 2), np.int64)), bundle.weight("one", np.ones((1,), np.float32))
    names = b"".join(f"v{i}\0".encode() for i in range(stages))
    begin = len(plan.strings)
    plan.strings += names
    at = {f"v{i}": begin + k for i, k in zip(range(stages), _starts(names), strict=True)}
    plan.add("indices", value=0)
    for i in range(stages):
        value = plan.add("values", name=at[f"v{i}"], dtype=vocabulary.DTYPES["f32"], rank=1, dims=(1,) * 8, bytes=4,
                         storage=vocabulary.STORAGES["arena"], offset=bundle.arena_bytes, weight=0xFFFFFFFF)
        bundle.arena_bytes += 64
        binding = plan.add("bindings", port=at["v0"], value=value, mode=vocabulary.BINDING_MODES["whole"])
        plan.records["indices"].append({"value": 0})
        plan.add("stages", name=at[f"v{i}"], backend=vocabulary.BACKENDS["library"], artefact=0xFFFFFFFF, iterations=1,
                 dep_begin=i, dep_count=1, input_begin=binding, output_begin=binding, output_count=1)
    for k in range(instructions):
        first = plan.add("stored", value=0, weight=ids)
        for i in range(stages):
            plan.add("stored", value=1 + i, weight=one)
        plan.add("instructions", source=tokens, text=s(f"task {k}"), stored_begin=first, stored_count=1 + stages)
    return bundle


def _starts(names: bytes) -> list[int]:
    return [0, *(i + 1 for i, c in enumerate(names[:-1]) if c == 0)]


def test_instructions_are_checked_in_the_time_of_their_size(lib, tmp_path):
    root = library(stages=6000, instructions=40).write(tmp_path)
    assert (root / "plan.bin").stat().st_size < 4_000_000
    began = time.process_time()
    opened(lib, root)
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize(("change", "why"), [
    (lambda rows, stored: rows[1].update(stored_begin=0), "another instruction's"),
    (lambda rows, stored: stored[3].update(value=2), "stored twice"),
    (lambda rows, stored: stored[3].update(value=0, weight=0), "stored twice"),
    (lambda rows, stored: rows[1].update(stored_count=3), "output of a stage is missing"),
])
def test_what_instructions_store_is_theirs(lib, tmp_path, change, why):
    bundle = library(stages=3, instructions=2)
    opened(lib, bundle.write(tmp_path / "whole"))
    change(bundle.plan.records["instructions"], bundle.plan.records["stored"])
    with pytest.raises(Failure, match=f"CORRUPT.*{why}"):
        opened(lib, bundle.write(tmp_path / "damaged"))


def test_a_reactive_bundle_keeps_its_files(lib, ort, tmp_path):
    """All files may go once a session has begun."""
    reactive = Reactive()
    root = reactive.bundle.write(tmp_path / "bundle")
    with Policy(lib, root) as policy:
        policy.start(ort)
        shutil.rmtree(root)
        policy.run(reactive.inputs())
        assert_outputs(policy, reactive.reference(reactive.inputs()))
