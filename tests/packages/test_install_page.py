"""The commands of docs/install.md, in the order of the page, from an empty folder and without a network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks
from vlacompile.cli.main import main
from vlart.runtime.library import onnxruntime_library

PAGE = DOCS / "install.md"
RUN_HERE = [b for b in blocks(PAGE) if Path(__file__).name in b.marks.get("not run", "")]


def policy_of_the_page(folder: Path) -> None:
    """my_robot/policy.py of docs/own-policy.md."""
    for block in blocks(DOCS / "own-policy.md"):
        if block.marks.get("file", "").startswith("my_robot/"):
            path = folder / block.marks["file"]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.body, encoding="utf-8")


def everything_else(folder: Path) -> Path:
    """Links to what is installed in this environment but for what the wheels bring, and for pip's own."""
    folder.mkdir()
    for entry in Path(importlib.util.find_spec("torch").origin).parents[1].iterdir():
        if not entry.name.startswith(("vlacompile", "__editable__", "pip", "setuptools", "_distutils")):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def clone(distributions, native, runtime_wheels, compiler_wheel, tmp_path_factory) -> Path:
    """$VLACOMPILE: what `make wheels` leaves there, and the C sources."""
    folder = tmp_path_factory.mktemp("clone")
    wheels = folder / "build" / "wheels"
    wheels.mkdir(parents=True)
    machine = os.uname().machine
    for wheel in (runtime_wheels[machine], compiler_wheel):
        shutil.copy(wheel, wheels)
    distributions.tarball(wheels, machine, native[machine])
    (folder / "runtime_c").symlink_to(ROOT / "runtime_c")
    return folder


def test_the_page_has_commands_that_are_run_here():
    assert len(RUN_HERE) > 4


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="apt-get install pkg-config")
def test_a_new_user_types_them(clone, offline, tmp_path, monkeypatch):
    """pip takes no index, and no requirements: those are seen in this environment's folder."""
    policy_of_the_page(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["build", "my_robot.policy:make", "-o", "pick.vlab"]) == 0
    site = everything_else(tmp_path / "site")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VLACOMPILE": str(clone),
                   "ORT": str(onnxruntime_library()), "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1",
                   "PYTHONPATH": f"{tmp_path}:{site}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    bodies = [b.body.replace(" vlacompile\n", " vlacompile vlacompile-runtime\n") for b in RUN_HERE]
    script = "\n".join(["set -eux", *bodies])
    done = subprocess.run([*offline, "bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "self-test passed" in done.stdout and "\npick\n" in done.stdout
    assert "ready:" in done.stdout and "vlacompile-runtime" not in done.stderr.partition("not ready:")[2]
    assert "complete" in (tmp_path / "vlacompile.bash").read_text()
    assert (tmp_path / "again.vlab" / "plan.bin").read_bytes() == (tmp_path / "pick.vlab" / "plan.bin").read_bytes()
