"""`vlacompile doctor`: what it knows is what the package asks for, and nothing that is broken breaks it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.layers import ROOT
from vlacompile.cli.main import VERBS
from vlacompile.doctor import examine, machine, packages
from vlacompile.doctor.finding import BROKEN, HERE, LOW, MISSING, OTHER, STATES, Finding
from vlacompile.doctor.packages import Package

SHIM = """
import sys
from vlacompile.cli.entry import main
sys.argv = ["vlacompile", *sys.argv[1:]]
sys.exit(main())
"""


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def listed(extra: str) -> set[str]:
    """What vlacompile and its runtime require, with an extra or without."""
    found = set()
    for folder in (ROOT, ROOT / "vlart"):
        of = project(folder)
        found |= set(of["optional-dependencies"].get(extra, ()) if extra else of["dependencies"])
    return {packages.normal(re.match(r"[\w.-]+", entry)[0]) for entry in found} - {packages.RUNTIME}


def narrow(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80, max(text.splitlines(), key=len)


def distribution(folder: Path, name: str, version: str, module: str) -> None:
    """An installed package of one module, on a path."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / f"{name}.py").write_text(module)


def run_as_installed(path: Path, *argv: str) -> subprocess.CompletedProcess:
    """The console script, with `path` before everything else that is importable."""
    where = os.pathsep.join([str(path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, "-c", SHIM, *argv], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": where}, timeout=300)


def test_it_knows_the_verbs_of_the_command_line():
    assert set(examine.VERBS) == set(VERBS)


def test_every_dependency_is_looked_at():
    known = {packages.normal(p.distribution) for p in packages.PACKAGES}
    assert listed("") <= known and listed("serve") <= known


@pytest.mark.parametrize("package", packages.PACKAGES, ids=lambda p: p.distribution)
def test_what_it_advises_installs_it(package):
    assert packages.normal(package.distribution) in listed(package.extra)


def test_uses_name_verbs():
    for package in packages.PACKAGES:
        assert package.uses == packages.EVERY or {use.split()[0] for use in package.uses} <= set(VERBS), package


def test_document_and_text(cli, monkeypatch):
    """The looks at packages are left out: they import PyTorch, once per test."""
    monkeypatch.setattr(examine, "find_packages", lambda: [Finding("torch", HERE, ("build",), "2.13.0")])
    code, out, _ = cli("doctor", "--json")
    document = json.loads(out)
    assert code == 0 and {f["state"] for f in document["findings"]} <= set(STATES)
    assert set(document["verbs"]) == set(VERBS)
    found = {f["what"]: f for f in document["findings"]}
    assert found["libvlart"]["state"] == HERE and found["libvlart"]["found"].startswith("ABI 1.")
    assert found["gcc"]["state"] == HERE and found["memory"]["found"].endswith("available")
    text = examine.text(document)
    narrow(text)
    assert "ready:" in text and str(Path.home()) not in text


def test_a_package_that_is_not_installed():
    found = packages.find(Package("no-such-thing", "no_such_thing", ("serve",), "serve"), {})
    assert (found.state, found.install) == (MISSING, "pip install 'vlacompile[serve]'")


@pytest.mark.parametrize(("module", "why"), [
    ("raise OSError('libfoo.so.3: cannot open shared object file')", "libfoo.so.3"),
    ("import os; os.abort()", "crashes (signal 6)"), ("import sys; sys.exit('no')", "no"), ("x = = 3", "SyntaxError")])
def test_a_package_that_cannot_be_imported(tmp_path, monkeypatch, module, why):
    distribution(tmp_path, "cracked", "1.0", module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    found = packages.find(Package("cracked", "cracked", ("build",)), {"cracked": ">=1"})
    assert (found.state, found.found) == (BROKEN, "1.0") and why in found.why
    assert found.install == "pip install --force-reinstall 'cracked>=1'"


def test_another_version(tmp_path, monkeypatch):
    distribution(tmp_path, "aged", "1.0", "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    aged = Package("aged", "aged", ("build",))
    assert packages.find(aged, {"aged": ">=2"}).state == OTHER
    assert packages.find(aged, {"aged": ">=1"}).state == HERE


def test_a_package_that_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "IMPORT_S", 0.5)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "endless.py").write_text("while True: pass")
    assert "longer than 0.5 s" in packages.why_not_imported("endless")


def test_a_look_that_fails_is_a_finding():
    def fails():
        raise RuntimeError("nobody expected this")

    document = examine.examine(("build", "run"), (("strange", fails), ("Python", fails)))
    assert [f["state"] for f in document["findings"]] == [BROKEN, BROKEN]
    assert "nobody expected this" in document["findings"][0]["why"]
    assert document["verbs"] == {"build": ["Python"], "run": ["Python"]}
    narrow(examine.text(document))


def test_nothing_on_the_path(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = [machine.find_program(p) for p in machine.PROGRAMS]
    assert {f.state for f in found} == {MISSING} and "apt-get install openssh-client" in {f.install for f in found}


@pytest.mark.parametrize(("script", "state"), [
    ("exit 3", BROKEN), ("echo OpenSSH_7.9p1", OTHER), ("echo OpenSSH_9.9p1", HERE), ("kill -9 $$", BROKEN)])
def test_programs_that_answer_strangely(tmp_path, monkeypatch, script, state):
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ssh = next(p for p in machine.PROGRAMS if p.name == "ssh")
    assert machine.find_program(ssh).state == state


def test_a_program_that_cannot_be_run(tmp_path, monkeypatch):
    (tmp_path / "gcc").write_bytes(b"\x7fELF nothing")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.find_program(machine.PROGRAMS[0]).state == BROKEN


def test_little_memory(tmp_path):
    table = tmp_path / "meminfo"
    table.write_text("MemTotal:        2000000 kB\nMemFree:  1 kB\nMemAvailable:     500000 kB\n")
    found = machine.find_memory(table)
    assert found.state == LOW and found.found == "0.5 GiB of 1.9 GiB available"


def test_no_libvlart(monkeypatch):
    from vlart.runtime import library

    def absent():
        raise library.RuntimeFailure("libvlart.so is not built", where="there", why="no such file", fix="make runtime")

    monkeypatch.setattr(library, "libvlart_path", absent)
    found = machine.find_libvlart()
    assert (found.state, found.install) == (MISSING, "make runtime") and "run" in found.uses


def test_an_environment_whose_interpreter_is_gone(monkeypatch):
    from vlacompile.frontends.environments import Environment

    monkeypatch.setattr(Environment, "is_installed", lambda self: True)
    monkeypatch.setattr(Environment, "python", Path("/no/such/python"))
    assert {f.state for f in machine.find_environments()} == {BROKEN}


def test_it_answers_without_what_the_command_line_is_made_of(tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError('rich is broken')")
    done = run_as_installed(tmp_path, "doctor")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "rich" in done.stdout and "BROKEN" in done.stdout and "not ready:  build (rich" in done.stdout
    narrow(done.stdout)
    other = run_as_installed(tmp_path, "run", "x.vlab")
    assert other.returncode == 1 and "Traceback" not in other.stderr
    assert [line.split(":")[0].strip() for line in other.stderr.splitlines()] == ["error", "where", "why", "fix"]
