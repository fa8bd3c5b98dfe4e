"""Power is cut at every step of everything that writes: what is left is the old state or the new one, never a part. The
router's own state is cut in runtime_c/tests/test_router.c."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime_c.running import BUILD, ROOT, make

DRIVER = ROOT / "tests" / "files" / "power_cut_driver.py"


@pytest.fixture(scope="module")
def shim() -> Path:
    make(f"BUILD={BUILD}", str(BUILD / "libcut_disk.so"))
    return BUILD / "libcut_disk.so"


def cut(shim: Path, folder: Path, writer: str) -> dict[str, int]:
    done = subprocess.run([sys.executable, str(DRIVER), str(shim), str(folder), writer], capture_output=True, text=True,
                          env={**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)}, timeout=300,
                          check=False)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


@pytest.mark.parametrize("writer, steps", [("file", 5), ("tree", 10)])
def test_old_or_new_but_never_neither(shim, tmp_path, writer, steps):
    found = cut(shim, tmp_path, writer)
    assert found["cuts"] >= found["finished"] * steps >= 10 * steps
    assert found["neither"] == found["lost"] == 0
    assert found["old"] > 0 and found["new"] > found["finished"]


@pytest.mark.parametrize("writer", ["naive", "renamed"])
def test_what_is_not_synced_is_seen_to_be_lost(shim, tmp_path, writer):
    """The controls: in place, and renamed before it was on the medium."""
    assert cut(shim, tmp_path, writer)["neither"] > 0


def test_everything_that_the_compiler_keeps_is_written_so():
    """By vlart.files.atomic: write_bytes and write_text are for scratch files alone."""
    scratch = {"vlart/files/atomic.py", "vlart/files/ssh_signature.py", "vlart/setup.py",
               "vlacompile/compiler/emit/tvm/stage.py", "vlacompile/compiler/emit/tvm/tuning.py",
               "vlacompile/compiler/emit/tvm/worker.py", "vlacompile/check/worker.py",
               "vlacompile/frontends/lerobot/read.py", "vlacompile/phases/publish.py"}
    found = set()
    for path in (path for package in ("vlart", "vlacompile") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
            of_session = name is not None and ast.unparse(node.func.value).endswith("session")  # an instruction
            if name == "write_bytes" or (name == "write_text" and not path.match("runtime/*") and not of_session):
                found.add(str(path.relative_to(ROOT)))
    assert found <= scratch, f"written without vlart.files.atomic: {sorted(found - scratch)}"


def test_a_file_system_that_cannot_exchange(monkeypatch, tmp_path):
    """Then in three steps, and back where the second fails."""
    from vlart.files import atomic

    class Libc:
        def __init__(self, *_, **__):
            pass

    monkeypatch.setattr(atomic.ctypes, "CDLL", Libc)
    old, new = tmp_path / "it", tmp_path / "new"
    atomic.write_tree(old, {"a": b"old"})
    atomic.write_tree(new, {"a": b"new"})
    atomic.put_tree(new, old)
    assert (old / "a").read_bytes() == b"new" and (new / "a").read_bytes() == b"old"
    with pytest.raises(OSError):
        atomic.put_tree(tmp_path / "none", old)
    assert (old / "a").read_bytes() == b"new"
