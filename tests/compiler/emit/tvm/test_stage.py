"""Stages that TVM compiles ahead of time: chosen by the recipe, run here and emulated, refused where wrong."""

from __future__ import annotations

import gzip
import importlib.util
import json
import platform
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vlacompile as vc
from benchmarks import emulator
from tests.samples import policies, ssh_keys
from tests.samples.staging import verified
from vlacompile.cli.main import main
from vlacompile.compiler.assemble.assemble import Parts, assemble
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.emit.tvm import stage as tvm_stage
from vlacompile.hardware.target import load_target
from vlacompile.phases.read_inputs import resolve
from vlacompile.recipe.recipe import load_recipe
from vlacompile.report.page import page
from vlacompile.report.tvm_stages import compiled_rows, kernel_rows
from vlart.bundle.directory import GOLDEN_FILE, WEIGHTS_FILE, read_bundle, stage_path, with_files, write_bundle
from vlart.bundle.signature import sign
from vlart.errors import ConfigError, EmitError, RuntimeFailure
from vlart.runtime.library import onnxruntime_library
from vlart.runtime.session import Session
from vlart.serve.policy_host import PolicyHost
from vlart.verify.frames import frames_bytes
from vlart.verify.trial import try_bundle

needs_tvm = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="pip install 'vlacompile[tvm]'")
HERE = platform.machine()
VLART_RUN = Path(__file__).parents[4] / "build" / "runtime_c" / "vlart-run"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tvm.toml"
    path.write_text(policies.EVERY_STAGE.replace("[stages]\n", '[stages]\ntvm = ["*"]\n'), encoding="utf-8")
    return str(path)


def contents_for(policy: vc.Policy, recipe: str, machine: str):
    """(plan, files, frames) of a bundle whose stages are compiled for a machine."""
    wanted, where = resolve(load_recipe(recipe), policy), load_target("host")
    found = verified(policy, where, wanted)
    staging, frames = found.staging, list(found.frames)
    emitted = {s.name: emit_onnx(s) for s in staging.staged.stages}
    files = {stage_path(n, "tvm"): tvm_stage.compile_tvm(e, machine).library for n, e in emitted.items()}
    made = assemble(staging.staged, emitted, where, wanted,
                    Parts(dict.fromkeys(emitted, "tvm"), files, golden=frames_bytes(frames)))
    return made.plan, made.contents, frames


@pytest.fixture(scope="module")
def bundle(recipe, tmp_path_factory) -> vc.Bundle:
    return vc.build(policies.late_fusion(), recipe=recipe, out=tmp_path_factory.mktemp("tvm") / "all.vlab")


def test_patterns_choose_stages_and_one_that_matches_nothing_is_refused():
    names = ["language", "vision.base", "vision.wrist"]
    assert tvm_stage.chosen_stages(names, ["vision.*"]) == {"vision.base", "vision.wrist"}
    assert not tvm_stage.chosen_stages(names, [])
    with pytest.raises(ConfigError, match="no stage") as error:
        tvm_stage.chosen_stages(names, ["visio"])
    assert "vision" in error.value.why or "language" in error.value.why


def test_default_recipes_give_tvm_nothing():
    assert load_recipe(None).stages.tvm == ()


def test_without_the_packages_a_build_says_what_to_install(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(tvm_stage, "PACKAGES", {"no-such-package": "1.0"})
    with pytest.raises(EmitError, match="TVM, which is not installed") as error:
        vc.build(policies.late_fusion(), recipe=recipe, out=tmp_path / "none.vlab")
    assert "no-such-package is not installed, 1.0 is needed" in error.value.why and "[tvm]" in error.value.fix
    assert not (tmp_path / "none.vlab").exists()


@pytest.fixture
def no_library(late_fusion_bundle, tmp_path) -> vc.Bundle:
    """A plan for TVM, whose stage files are not TVM's."""
    plan = replace(late_fusion_bundle.plan, files=(), stages=tuple(
        replace(s, backend="tvm", initializers=()) for s in late_fusion_bundle.plan.stages))
    files = {stage_path(s.name, "tvm"): b"no library" for s in plan.stages}
    files |= {f: (late_fusion_bundle.path / f).read_bytes() for f in (WEIGHTS_FILE, GOLDEN_FILE)}
    return write_bundle(tmp_path / "b.vlab", with_files(plan, files), files, {"outputs": ["action"]}, lambda path: None)


def test_libvlart_says_where_the_libraries_come_from(no_library, tmp_path, monkeypatch):
    """A plan for TVM where there is none, whether its stage files are TVM's or not."""
    absent = tmp_path / "libtvm_ffi.so"
    monkeypatch.setattr("vlart.runtime.session.tvm_libraries", lambda:
                        dict.fromkeys(("tvm_ffi_library", "tvm_library", "tvm_cuda_library"), absent))
    with pytest.raises(RuntimeFailure, match="TVM's runtime cannot be loaded") as error:
        Session(no_library.path, native_code=True)
    assert error.value.status == "NO_BACKEND" and str(absent) in str(error.value) and "--tvm" in error.value.fix


def test_machine_code_is_loaded_by_name_or_signed(no_library, tmp_path, cli):
    """Everything that opens the bundle refuses it before TVM is looked for. Where the gate is open, what fails is what
    comes behind it: the files are no libraries."""
    for opened in (lambda: Session(no_library.path), lambda: vc.AsyncSession(no_library.path),
                   lambda: try_bundle(no_library.path), lambda: PolicyHost(no_library.path)):
        with pytest.raises(RuntimeFailure, match="machine code that nobody vouched for") as refused:
            opened()
        assert refused.value.status == "UNTRUSTED" and "--native-code" in refused.value.fix
    key = ssh_keys.new_key(tmp_path)
    signers = ssh_keys.allow(tmp_path / "signers", key)
    sign(no_library, key)
    for trust, status in (((), "UNTRUSTED"), (("--native-code",), "BACKEND"), (("--signers", signers), "BACKEND")):
        code, out, _ = cli("run", no_library.path, "--json", *trust)
        assert code == 9 and status in json.loads(out)["status"], out
        assert cli("profile", no_library.path, "--measure", "--json")[0] == 9
        done = subprocess.run([VLART_RUN, no_library.path, "--ort", onnxruntime_library(), *trust], check=False,
                              capture_output=True, text=True)
        assert done.returncode == 1 and status in done.stderr, done.stderr


@needs_tvm
@pytest.mark.parametrize("name", [pytest.param("late_fusion", marks=pytest.mark.full), "flow"])  # a loop, with carries
def test_every_stage_gives_the_golden_vectors(recipe, tmp_path, name):
    made = vc.build(getattr(policies, name)(), recipe=recipe, out=tmp_path / "a.vlab")
    assert {s.backend for s in made.plan.stages} == {"tvm"} and not list((made.path / "stages").glob("*.onnx"))
    report = vc.verify(made.path, native_code=True)
    assert report.passed and max(v.worst.rel_l2 for v in report.values) < 1e-6


@needs_tvm
@pytest.mark.full
def test_two_builds_give_the_same_bytes(recipe, bundle, tmp_path):
    again = vc.build(policies.late_fusion(), recipe=recipe, out=tmp_path / "again.vlab")
    assert again.hash == bundle.hash


@needs_tvm
def test_engines_mix_in_one_bundle(tmp_path, recipe):
    path = tmp_path / "mixed.toml"
    path.write_text(Path(recipe).read_text(encoding="utf-8").replace('"*"', '"vision.*"'), encoding="utf-8")
    made = vc.build(policies.late_fusion(), recipe=str(path), out=tmp_path / "mixed.vlab")
    assert {s.name for s in made.plan.stages if s.backend == "tvm"} == {"vision.base", "vision.wrist"}
    assert {s.backend for s in made.plan.stages} == {"tvm", "onnxruntime"}


@needs_tvm
@pytest.mark.parametrize(("wrong", "why"), [
    ("other", "TVM reports an error"), ("onnx", "no shared object"), ("short", "ends before its contents"),
    ("machine", "it is for aarch64" if HERE == "x86_64" else "it is for x86-64"), ("headers", "headers are damaged")])
def test_a_file_that_is_not_the_stage_is_refused_when_it_is_loaded(bundle, late_fusion_bundle, tmp_path, wrong, why):
    state = stage_path("state", "tvm")
    files = {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files}
    good = files[state]
    machine = (183 if HERE == "x86_64" else 62).to_bytes(2, "little")  # of an ELF header, as the number of headers is
    files[state] = {"other": files[stage_path("vision.base", "tvm")], "short": good[:5000],
                    "machine": good[:18] + machine + good[20:], "headers": good[:56] + b"\xff\xff" + good[58:],
                    "onnx": (late_fusion_bundle.path / stage_path("state")).read_bytes()}[wrong]
    plan = with_files(bundle.plan, files)
    out = write_bundle(tmp_path / "b.vlab", plan, files, bundle.manifest["provenance"], lambda path: None)
    with pytest.raises(RuntimeFailure) as error:
        Session(out.path, native_code=True)
    assert error.value.status == "BACKEND_FAILED" and '"state"' in error.value.where and why in str(error.value)


@needs_tvm
def test_a_wrong_weight_shows(bundle, tmp_path):
    """Negative control: one number of the state's weights, in the middle of the compiled file."""
    state = stage_path("state", "tvm")
    files = {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files}
    arrays = np.frombuffer(files[state][: len(files[state]) // 4 * 4], np.float32).copy()
    plausible = np.flatnonzero((np.abs(arrays) > 1e-3) & (np.abs(arrays) < 1))
    assert len(plausible) > 100
    arrays[plausible[len(plausible) // 2]] += 1.0
    files[state] = arrays.tobytes() + files[state][len(files[state]) // 4 * 4:]
    plan = with_files(bundle.plan, files)
    out = write_bundle(tmp_path / "b.vlab", plan, files, bundle.manifest["provenance"], lambda path: None)
    assert not vc.verify(out.path, native_code=True).passed


@needs_tvm
def test_ops_that_tvm_does_not_have_are_named(tmp_path):
    path = tmp_path / "int4.toml"
    path.write_text(policies.EVERY_STAGE.replace("[stages]\n", '[stages]\ntvm = ["fusion"]\n')
                    + '[precision]\n[[precision.rule]]\nlayers = "*"\nscheme = "int4"\n', encoding="utf-8")
    with pytest.raises(EmitError, match="does not compile") as error:
        vc.build(policies.late_fusion(), recipe=str(path), out=tmp_path / "b.vlab")
    assert "MatMulNBits" in error.value.why and '"fusion"' in error.value.where


@pytest.mark.full
@needs_tvm
@pytest.mark.skipif(bool(emulator.missing()) or shutil.which(tvm_stage.CROSS_COMPILER) is None,
                    reason=f"apt-get install g++-aarch64-linux-gnu {' '.join(emulator.missing())}")
@pytest.mark.parametrize("name", ["late_fusion", "flow"])
def test_compiled_for_aarch64_it_gives_the_golden_vectors_emulated(recipe, tmp_path, name):
    machine = emulator.emulator(tmp_path)
    machine.make("all")
    library, (ffi, runtime) = emulator.engine_library(), emulator.tvm_libraries()
    plan, files, frames = contents_for(getattr(policies, name)(), recipe, "aarch64")
    reports = []

    def replay(path: Path) -> None:
        libraries = ("--tvm-ffi", ffi, "--tvm", runtime)
        reports.append(machine.replay(path, library, "--self-test", "--native-code", *libraries))

    write_bundle(tmp_path / "a.vlab", with_files(plan, files), files, {"outputs": ["action"]}, replay)
    assert reports[0]["status"] == "OK", reports[0]
    assert {v["name"] for v in reports[0]["values"]} == {n for f in frames for n in f.expects}
    assert max(v["rel_l2"] for v in reports[0]["values"]) < 1e-6


def searching(folder: Path, trials: int, file: str = "found.json.gz") -> str:
    path = folder / f"search{trials}.toml"
    path.write_text(policies.EVERY_STAGE.replace(
        "[stages]\n", f'[stages]\ntvm = ["state"]\ntvm_schedules = "{file}"\ntvm_trials = {trials}\n'),
                    encoding="utf-8")
    return str(path)


@needs_tvm
@pytest.mark.full
def test_what_a_search_found_is_kept_and_used_again(tmp_path, recipe):
    """The search depends on the clock; a build with its file does not."""
    first = vc.build(policies.late_fusion(), recipe=searching(tmp_path, 24), out=tmp_path / "a.vlab")
    kept = (tmp_path / "found.json.gz").read_bytes()
    assert vc.verify(first.path, native_code=True).passed
    note = next(n for n in first.manifest["provenance"]["notes"] if n.startswith("TVM: state"))
    assert re.search(r"searched schedules for [1-9]\d* of \d+ kernels", note), note
    # other weights
    again = vc.build(policies.late_fusion(seed=1), recipe=searching(tmp_path, 0), out=tmp_path / "b.vlab")
    assert (tmp_path / "found.json.gz").read_bytes() == kept and note in again.manifest["provenance"]["notes"]
    report = first.manifest["provenance"]["tvm"]["state"][HERE]
    assert report == again.manifest["provenance"]["tvm"]["state"][HERE] and report["run"]
    assert set(report["schedules"]) == {"kernels", "found"} and report["schedules"]["found"] > 0  # the rest has a file
    same = vc.build(policies.late_fusion(), recipe=searching(tmp_path, 0), out=tmp_path / "c.vlab")
    library = stage_path("state", "tvm")
    assert (same.path / library).read_bytes() == (first.path / library).read_bytes()
    (tmp_path / "plain.toml").write_text(policies.EVERY_STAGE.replace("[stages]\n", '[stages]\ntvm = ["state"]\n'))
    plain = vc.build(policies.late_fusion(), recipe=str(tmp_path / "plain.toml"), out=tmp_path / "d.vlab")
    assert (plain.path / library).read_bytes() != (first.path / library).read_bytes()


@pytest.mark.parametrize(("damage", "why"), [
    (lambda d: d[:20], "cannot be read"), (lambda d: gzip.compress(b"[]"), "cannot be read"),
    (lambda d: gzip.compress(json.dumps(json.loads(gzip.decompress(d)) | {"machine": "riscv64"}).encode()), "another"),
    (lambda d: gzip.compress(json.dumps(json.loads(gzip.decompress(d)) | {"tvm": "0.1"}).encode()), "another")])
def test_a_file_of_schedules_that_is_none_is_refused(tmp_path, damage, why):
    from vlacompile.compiler.emit.tvm.schedules import schedules_of

    good = gzip.compress(json.dumps({"tvm": "1", "machine": "x86_64", "workloads": [], "records": []}).encode())
    (tmp_path / "s.json.gz").write_bytes(good)
    assert schedules_of("s.json.gz", str(tmp_path / "r.toml"), "x86_64", "1").lines == {"workloads": [], "records": []}
    (tmp_path / "s.json.gz").write_bytes(damage(good))
    with pytest.raises(ConfigError, match=why):
        schedules_of("s.json.gz", str(tmp_path / "r.toml"), "x86_64", "1")


def test_a_search_that_could_not_be_repeated_is_refused(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('name = "x"\ndescription = "x"\n[stages]\ntvm_trials = 8\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="without stages.tvm_schedules"):
        load_recipe(str(path))


@needs_tvm
@pytest.mark.skipif(shutil.which(tvm_stage.CROSS_COMPILER) is None or HERE != "x86_64",
                    reason="apt-get install g++-aarch64-linux-gnu")
@pytest.mark.parametrize("target", ["host-aarch64", "orin-nano-8gb"])
def test_a_stage_is_compiled_for_the_processor_of_the_target(tmp_path, target):
    """Replayed compiled for this machine; the bundle has the target's."""
    path = tmp_path / "r.toml"
    path.write_text(policies.EVERY_STAGE.replace("[stages]\n", '[stages]\ntvm = ["state"]\n')
                    + '[precision]\nbase = "fp32"\n[[precision.rule]]\nlayers = "*"\nscheme = "fp32"\n',
                    encoding="utf-8")
    made = vc.build(policies.late_fusion(), target=target, recipe=str(path), out=tmp_path / "a.vlab")
    library = (made.path / stage_path("state", "tvm")).read_bytes()
    assert library[:4] == b"\x7fELF" and int.from_bytes(library[18:20], "little") == 183  # aarch64
    assert made.accepted.passed and not made.manifest["provenance"]["tvm"]["state"]["aarch64"]["run"]
    assert any("the same stage compiled for x86_64" in n for n in made.manifest["provenance"]["notes"])
    with pytest.raises(RuntimeFailure, match="aarch64"):
        Session(made.path, stand_in=target != "host-aarch64", native_code=True)
    with pytest.raises(ConfigError, match="another processor"):
        vc.build(policies.late_fusion(), target=target, recipe=searching(tmp_path, 8), out=tmp_path / "b.vlab")


TAKEN = {"SURFACE": 0, "LOCAL": 0, "CONSTANT[0]": 400, "CONSTANT[2]": 8}
REPORTS = {"tvm": {"state": {
    "x86_64": {"bytes": 9, "run": True, "schedules": {"kernels": 7, "found": 3}},
    "sm_87": {"bytes": 2_000_000, "run": False, "schedules": None, "resources": {
        "add_kernel": TAKEN | {"REG": 12, "SHARED": 0, "STACK": 8},
        "matmul_kernel": TAKEN | {"REG": 40, "SHARED": 6912, "STACK": 0}}}}}}


def test_what_gpu_kernels_take_is_in_rows():
    here, gpu = compiled_rows(REPORTS)
    assert (here["run"], here["schedules"], here["kernels"], here["registers"]) == (
        "replayed", "tuned for 3 of 7 kernels", None, None)
    assert (gpu["run"], gpu["schedules"], gpu["kernels"]) == ("compiled, not run", "TVM's defaults", 2)
    assert (gpu["registers"], gpu["shared"], gpu["stack"]) == (40, 6912, 8)
    assert [(k["kernel"], k["registers"], k["constant"]) for k in kernel_rows(REPORTS)] == [
        ("matmul_kernel", 40, 408), ("add_kernel", 12, 408)]
    assert compiled_rows({}) == kernel_rows({}) == []


def test_inspect_and_the_report_show_what_gpu_kernels_take(late_fusion_bundle, tmp_path, capsys):
    """Of a copy whose manifest says so; the bundle itself has nothing of TVM."""
    plain = page(late_fusion_bundle, [], [], [], [], None)
    assert "compiled, not run" not in plain and "with TVM" not in plain
    shutil.copytree(late_fusion_bundle.path, tmp_path / "b.vlab")
    manifest = json.loads((tmp_path / "b.vlab" / "manifest.json").read_text(encoding="utf-8"))
    manifest["provenance"] |= REPORTS
    (tmp_path / "b.vlab" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    shown = page(read_bundle(tmp_path / "b.vlab"), [], [], [], [], None)
    assert "matmul_kernel" in shown and "6912" in shown and "<td>compiled, not run</td>" in shown
    assert main(["inspect", str(tmp_path / "b.vlab")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"state, sm_87 +40 +6912 +0 +matmul_kernel", said) and "tuned for 3 of 7" in said
