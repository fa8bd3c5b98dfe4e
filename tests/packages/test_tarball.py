"""The tarball of libvlart: a C and a C++ project outside the tree build against it and run a bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.house.layers import ROOT
from vlart.runtime.library import onnxruntime_library

CMAKE = """
cmake_minimum_required(VERSION 3.16)
project(robot C CXX)
find_package(vlart {version} CONFIG REQUIRED)
add_executable(robot control_loop.c)
target_link_libraries(robot PRIVATE vlart::vlart)
add_executable(robot_static control_loop.c)
target_link_libraries(robot_static PRIVATE vlart::static)
add_executable(robot_cc control_loop.cc)
set_target_properties(robot_cc PROPERTIES CXX_STANDARD 17)
target_link_libraries(robot_cc PRIVATE vlart::vlart)
"""
needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="apt-get install cmake")
needs_pkg_config = pytest.mark.skipif(shutil.which("pkg-config") is None, reason="apt-get install pkg-config")


@pytest.fixture
def unpacked(distributions, native, tmp_path) -> Path:
    """Where a user put it."""
    machine = os.uname().machine
    tarball = distributions.tarball(tmp_path / "made", machine, native[machine])
    with tarfile.open(tarball) as archive:
        archive.extractall(tmp_path / "opt", filter="data")
    root, = (tmp_path / "opt").iterdir()
    assert root.name == f"libvlart-{distributions.version()}-linux-{machine}"
    return root


@pytest.fixture
def project(tmp_path) -> Path:
    """A robot's program, with nothing of this tree but its sources."""
    folder = tmp_path / "robot"
    folder.mkdir()
    for name in ("control_loop.c", "control_loop.cc"):
        shutil.copy(ROOT / "runtime_c/examples" / name, folder)
    return folder


def runs(program: Path, bundle, library: Path | None = None) -> None:
    environment = os.environ | ({"LD_LIBRARY_PATH": str(library)} if library else {})
    done = subprocess.run([program, bundle.path, onnxruntime_library(), "20"], env=environment, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_pkg_config
def test_with_pkg_config(unpacked, project, late_fusion_bundle):
    environment = os.environ | {"PKG_CONFIG_PATH": str(unpacked / "lib/pkgconfig")}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "vlart"], env=environment, check=True,
                           capture_output=True, text=True).stdout.split()
    subprocess.run(["gcc", "control_loop.c", *flags, "-o", "robot"], cwd=project, check=True)
    runs(project / "robot", late_fusion_bundle, unpacked / "lib")


@needs_cmake
def test_with_cmake(distributions, unpacked, project, late_fusion_bundle):
    (project / "CMakeLists.txt").write_text(CMAKE.format(version=distributions.version()))
    configure = ["cmake", "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={unpacked}"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", project / "build"], check=True, capture_output=True)
    for name in ("robot", "robot_static", "robot_cc"):
        runs(project / "build" / name, late_fusion_bundle)
    shutil.rmtree(project / "build")
    (project / "CMakeLists.txt").write_text(CMAKE.format(version="99.0"))
    refused = subprocess.run(configure, check=False, capture_output=True, text=True)
    assert refused.returncode and "99.0" in refused.stderr


def test_its_programs_run(unpacked, late_fusion_bundle):
    done = subprocess.run([unpacked / "bin/vlart-run", late_fusion_bundle.path, "--self-test", "--ort",
                           onnxruntime_library(), "--threads", "1"], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "self-test passed" in done.stdout, done.stderr
