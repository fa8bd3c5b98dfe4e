"""The wheels: what is in them, what they ask of a system, and that they run where nothing else is installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from benchmarks import emulator
from tests.house.layers import ROOT
from tests.packages.conftest import installed, only

MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine of an ELF header
OLDEST_PYTHON = (3, 10)  # of JetPack 6
NATIVE = ("libvlart.so", "vlart-run", "vlart-dump", "vlart-build")
QUICKSTART = """
import sys, vlart
from vlart.verify.replay import verify
report = verify(sys.argv[1], threads=1)
assert report.passed and len(report.values) > 3
assert vlart.__file__.startswith(sys.argv[2]), vlart.__file__
assert not {"torch", "onnx", "onnxscript", "vlacompile"} & set(sys.modules)
print("ran", len(report.values))
"""


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tracked(folder: str, ending: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", folder], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    return {name for name in listed if name.endswith(ending) and (ROOT / name).is_file()}


def test_the_runtime_has_its_modules_and_programs(runtime_wheels):
    for processor, path in runtime_wheels.items():
        assert path.name.endswith(f"-py3-none-manylinux_2_34_{processor}.whl")
        names = {n for n in contents(path) if ".dist-info/" not in n}
        assert names == (tracked("vlart", ".py") - {"vlart/setup.py"} | {"vlart/py.typed"}
                         | {f"vlart/native/{name}" for name in NATIVE})
        with zipfile.ZipFile(path) as archive:
            assert all(archive.getinfo(f"vlart/native/{name}").external_attr >> 16 & 0o111 for name in NATIVE)


def test_the_runtime_is_small(runtime_wheels):
    assert max(sum(map(len, contents(path).values())) for path in runtime_wheels.values()) < 10 << 20


def test_the_compiler_has_its_modules_and_tables(compiler_wheel):
    names = {n for n in contents(compiler_wheel) if ".dist-info/" not in n}
    assert compiler_wheel.name.endswith("-py3-none-any.whl")
    assert {n for n in names if n.endswith(".py")} == tracked("vlacompile", ".py")
    tables = {n.removeprefix("vlacompile/") for n in names if n.endswith(".toml")}
    assert tables == tracked("recipes", ".toml") | tracked("targets", ".toml")
    data = {"report/page.html", "report/figures.css", "view/live.html", "deploy/device.sh", "deploy/acceptance.sh",
            "deploy/slots.sh", "zoo/recorded.json"}
    assert {f"vlacompile/{name}" for name in data} <= names


def test_versions_and_requirements_agree(runtime_wheels, compiler_wheel, plugin_wheel):
    """One version, and neither the runtime nor the plugin brings the compiler or PyTorch."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = {}
    for path in (*runtime_wheels.values(), compiler_wheel, plugin_wheel):
        metadata = next(text for name, text in contents(path).items() if name.endswith(".dist-info/METADATA")).decode()
        assert re.search(r"^Version: (.*)$", metadata, re.MULTILINE)[1] == version
        found[path.name.partition("-")[0]] = re.findall(r"^Requires-Dist: ([^;\n]*)(?!.*extra)", metadata, re.MULTILINE)
    assert f"vlacompile-runtime=={version}" in found["vlacompile"]
    assert found["lerobot_policy_vlacompile"] == [f"vlacompile-runtime=={version}"]
    assert {re.match(r"[\w-]+", r)[0] for r in found["vlacompile_runtime"]} >= {"numpy", "onnxruntime"}
    assert not {"torch", "onnxscript", "onnx", "vlacompile"} & {re.match(r"[\w-]+", r)[0]
                                                               for r in found["vlacompile_runtime"]}


def test_no_path_of_this_machine(runtime_wheels, compiler_wheel, plugin_wheel):
    here = {str(ROOT).encode(), str(Path.home()).encode() + b"/", f"{tempfile.gettempdir()}/tmp".encode(),
            sys.prefix.encode()}
    for path in (*runtime_wheels.values(), compiler_wheel, plugin_wheel):
        for name, content in contents(path).items():
            assert not [place for place in here if place in content], f"{path.name}: {name}"


@pytest.mark.parametrize("processor", MACHINES)
def test_what_the_system_must_have(distributions, runtime_wheels, processor, tmp_path):
    """The right processor, glibc alone, of no newer version than Ubuntu 22.04's, and no path to search."""
    if processor not in runtime_wheels:
        pytest.skip(f"apt-get install gcc-{processor.replace('_', '-')}-linux-gnu")
    for name in NATIVE:
        file = tmp_path / name
        file.write_bytes(contents(runtime_wheels[processor])[f"vlart/native/{name}"])
        assert struct.unpack_from("<H", file.read_bytes(), 18)[0] == MACHINES[processor]
        assert (2, 17) <= distributions.newest_glibc(file) <= (2, 35)
        dynamic = subprocess.run(["readelf", "--dynamic", "--wide", file], check=True, capture_output=True,
                                 text=True).stdout
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
        assert needed <= {"libc.so.6", "libm.so.6", "libdl.so.2", "ld-linux-aarch64.so.1"}, needed
        assert "RPATH" not in dynamic and "RUNPATH" not in dynamic


def test_auditwheel_agrees(runtime_wheels):
    pytest.importorskip("auditwheel", reason="pip install auditwheel")
    for processor, path in runtime_wheels.items():
        said = subprocess.run([sys.executable, "-m", "auditwheel", "show", path], check=True, capture_output=True,
                              text=True).stdout
        assert f'is consistent with the following platform tag: "manylinux_2_34_{processor}"' in " ".join(said.split())


def test_the_runtime_is_written_in_the_oldest_pythons_syntax():
    for name in tracked("vlart", ".py"):
        ast.parse((ROOT / name).read_text(encoding="utf-8"), name, feature_version=OLDEST_PYTHON)
    with pytest.raises(SyntaxError):  # the control: an exception group of 3.11
        ast.parse("try:\n    pass\nexcept* OSError:\n    pass\n", feature_version=OLDEST_PYTHON)


def test_the_oldest_python_imports_the_runtime(runtime_wheels, tmp_path):
    """What needs no NumPy, by that interpreter; where it is installed."""
    found = [shutil.which("python3.10"), *Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")]
    working = [p for p in found if p and not subprocess.run([p, "-c", ""], check=False, capture_output=True).returncode]
    if not working:
        pytest.skip("apt-get install python3.10")
    with zipfile.ZipFile(next(iter(runtime_wheels.values()))) as archive:
        archive.extractall(tmp_path)
    program = ("import sys, types; sys.modules['numpy'] = m = types.ModuleType('numpy'); "
               "m.__getattr__ = lambda n: type(n, (), {'__class_getitem__': classmethod(lambda c, i: c)}); "
               "import vlart.runtime.session, vlart.runtime.async_session, vlart.runtime.routed, "
               "vlart.serve.arguments, vlart.bundle.signature, vlart.files.atomic")
    done = subprocess.run([working[0], "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_runtime_runs_where_nothing_else_is(runtime_wheels, late_fusion_bundle, offline, tmp_path):
    """In an empty environment, with NumPy and ONNX Runtime and no network: Python, and the C program."""
    programs = installed(tmp_path / "env", runtime_wheels[os.uname().machine])
    beside = only(tmp_path / "site", "numpy", "onnxruntime")
    environment = {"PYTHONPATH": str(beside), "PATH": "/usr/bin:/bin"}
    run = lambda *words: subprocess.run([*offline, *map(str, words)], cwd=tmp_path, env=environment, check=False,
                                        capture_output=True, text=True)
    done = run(programs / "python", "-c", QUICKSTART, late_fusion_bundle.path, tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("ran"), done.stderr
    tested = run(programs / "vlart-run", late_fusion_bundle.path, "--self-test", "--threads", "1")
    assert tested.returncode == 0 and "self-test passed" in tested.stdout, tested.stderr
    dumped = run(programs / "vlart-dump", late_fusion_bundle.path)
    assert dumped.stdout == (late_fusion_bundle.path / "plan.txt").read_text()
    served = run(programs / "vlart-serve", late_fusion_bundle.path)
    assert served.returncode == 3 and "vlacompile-runtime[serve]" in served.stderr


def test_the_compiler_builds_where_only_its_requirements_are(runtime_wheels, compiler_wheel, offline, tmp_path):
    """Both wheels in an empty environment, beside the packages of this one; no network, no checkout."""
    programs = installed(tmp_path / "env", runtime_wheels[os.uname().machine], compiler_wheel)
    site = Path(importlib.util.find_spec("torch").origin).parents[1]
    shutil.copy(ROOT / "tests/samples/cli_policies.py", tmp_path / "my_policy.py")
    environment = {"PYTHONPATH": f"{tmp_path}:{site}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    run = lambda *words: subprocess.run([*offline, *map(str, words)], cwd=tmp_path, env=environment, check=False,
                                        capture_output=True, text=True)
    where = run(programs / "python", "-c", "import vlacompile, vlart; print(vlacompile.__file__, vlart.__file__)")
    assert where.stdout.count(str(tmp_path / "env")) == 2, where.stdout
    assert "orin-nano-8gb" in run(programs / "vlacompile", "targets").stdout
    built = run(programs / "vlacompile", "build", "my_policy:tiny", "-o", "tiny.vlab", "--recipe", "default")
    assert built.returncode == 0, built.stderr
    assert run(programs / "vlacompile", "verify", "tiny.vlab").returncode == 0


@pytest.mark.full
@pytest.mark.skipif(bool(emulator.missing()), reason=f"apt-get install {' '.join(emulator.missing())}")
def test_the_other_processors_program_runs_emulated(runtime_wheels, late_fusion_bundle, tmp_path):
    """Of the aarch64 wheel the C program alone: there is no interpreter of that processor here."""
    machine = emulator.emulator(tmp_path)
    with zipfile.ZipFile(runtime_wheels["aarch64"]) as archive:
        archive.extract("vlart/native/vlart-run", tmp_path)
    program = tmp_path / "vlart/native/vlart-run"
    program.chmod(0o755)
    done = machine.run(program, late_fusion_bundle.path, "--self-test", "--ort", emulator.engine_library(),
                       "--threads", "1")
    assert done.returncode == 0 and "self-test passed" in done.stdout, done.stderr


@pytest.mark.full
def test_the_same_commit_gives_the_same_bytes(distributions, runtime_wheels, compiler_wheel, native, tmp_path):
    """Compiled and packed again, elsewhere and under another umask."""
    before = os.umask(0o077)
    try:
        again = distributions.compile_native(tmp_path / "native", os.uname().machine)
        runtime = distributions.wheel("vlart", tmp_path, os.uname().machine, again)
        compiler = distributions.wheel(".", tmp_path)
        packed = [distributions.tarball(tmp_path / str(i), os.uname().machine, folder)
                  for i, folder in enumerate((again, native[os.uname().machine]))]
    finally:
        os.umask(before)
    assert runtime.read_bytes() == runtime_wheels[os.uname().machine].read_bytes()
    assert compiler.read_bytes() == compiler_wheel.read_bytes()
    assert packed[0].read_bytes() == packed[1].read_bytes()
