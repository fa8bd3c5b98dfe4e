"""vlart-run and vlart-build where signers are named or enrolled, under sanitizers too."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from sample_bundles import Flow, Reactive
from vlart_ctypes import Failure, Policy

from tests.runtime_c.running import ort_path, run_tool
from tests.runtime_c.tensorrt import LOCK, for_tensorrt, refused
from tests.runtime_c.test_tools import with_golden
from tests.samples import ssh_keys

pytestmark = pytest.mark.skipif(bool(ssh_keys.MISSING), reason=ssh_keys.MISSING)


def signed(bundle: Path, key: Path, lines: bytes | None = None) -> Path:
    """With a list of its files, or these lines."""
    for name in ("SHA256SUMS", "SHA256SUMS.sig"):
        (bundle / name).unlink(missing_ok=True)
    files = sorted(p for p in bundle.rglob("*") if p.is_file() and p.parent.name != "engines")
    table = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(bundle)}" for p in files]
    text = "\n".join(["# vlacompile-bundle 1", "# policy x", "# release 1", *table, ""]).encode()
    (bundle / "SHA256SUMS").write_bytes(text if lines is None else lines)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "vlacompile-bundle", bundle / "SHA256SUMS"],
                   check=True, stderr=subprocess.DEVNULL)
    return bundle


@pytest.fixture
def key(tmp_path) -> Path:
    return ssh_keys.new_key(tmp_path / "keys")


@pytest.fixture
def signers(tmp_path, key) -> Path:
    return ssh_keys.allow(tmp_path / "signers", key)


def test_vlart_build_takes_signed_bundles_where_signers_are_enrolled(board, key, signers, tmp_path, monkeypatch):
    """By its option, or by the list in the usual place. Without either it builds what it is given."""
    path = for_tensorrt(with_golden(Flow(3))).write(tmp_path / "b")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert board.build(path).returncode == 0
    refused(board.build(path, "--signers", signers), "the bundle is not signed [UNTRUSTED]")
    enrolled = tmp_path / "home" / ".local" / "share" / "vlacompile" / "signers"
    enrolled.parent.mkdir(parents=True)
    shutil.copy(signers, enrolled)
    refused(board.build(path), "the bundle is not signed [UNTRUSTED]")
    signed(path, key)
    assert board.build(path).returncode == 0
    enrolled.write_text("")
    refused(board.build(path), "signed by none of the signers")
    assert board.build(path, "--signers", signers).returncode == 0, "what is named comes first"


def test_engines_that_the_signature_does_not_bind_are_built_anew(board, key, signers, tmp_path):
    """They came with the bundle, as far as vlart-build knows; unless its caller knows better."""
    path = signed(for_tensorrt(with_golden(Flow(3))).write(tmp_path / "b"), key)
    assert board.build(path, "--signers", signers).returncode == 0
    (path / "engines" / "stray.plan").write_bytes(b"x")  # of the board, not of the signature
    board.set()
    (path / "engines" / "timing.cache").write_text("theirs\n")
    done = board.build(path, "--signers", signers)
    assert done.returncode == 0 and "kept" not in done.stdout and (path / LOCK).exists()
    assert (path / "engines" / "timing.cache").read_text().split() == ["prefix", "denoise"], "theirs is not read"
    done = board.build(path, "--signers", signers, "--keep-engines")
    assert done.returncode == 0 and "kept" in done.stdout and "built " not in done.stdout


HEAD = b"# vlacompile-bundle 1\n# policy x\n# release 1\n"
LISTS = (b"approved", b"# vlacompile-bundle 1", b"# vlacompile-bundle 1\n# policy\n", HEAD.replace(b"1", b"2"), HEAD,
         HEAD + b"abc\n", HEAD + b"0" * 64 + b"  " + b"x" * 5000 + b"\n", HEAD + b"0" * 64 + b"  ../../etc/passwd\n",
         HEAD + b"0" * 64 + b"  plan.bin\0x\n", HEAD + b"0" * 64 + b"  plan.bin", HEAD + b"\n\n\n", HEAD[:-1])


def test_under_sanitizers(sanitized, key, signers, tmp_path):
    """Whole, and with every kind of list that somebody may have signed; none is read beyond its end."""
    path = signed(with_golden(Reactive()).write(tmp_path / "b"), key)
    arguments = (path, "--self-test", "--ort", ort_path(), "--signers")

    def run(*more) -> subprocess.CompletedProcess:
        done = run_tool(sanitized / "vlart-run", *arguments, *more)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        return done

    assert run(signers).returncode == 0
    link = tmp_path / "link"
    link.symlink_to(path)
    done = run_tool(sanitized / "vlart-run", f"{link}/", *arguments[1:], signers)
    assert done.returncode == 0, done.stderr
    refused(run(tmp_path / "nothing"), "the list of signers cannot be read")
    for lines in LISTS:
        signed(path, key, lines)
        refused(run(signers), "UNTRUSTED")
    (path / "SHA256SUMS").write_bytes(b"")
    refused(run(signers), "UNTRUSTED")
    signed(path, key)
    for name in ("SHA256SUMS", "SHA256SUMS.sig", "plan.bin", "golden/golden.bin"):
        whole = (path / name).read_bytes()
        around = () if name.endswith(".sig") else (whole[:-1], whole + b"x")  # ssh-keygen reads between two lines
        for data in (*around, whole[:len(whole) // 2], b"", whole[:9] + b"\xff" + whole[10:]):
            (path / name).write_bytes(data)
            refused(run(signers), "UNTRUSTED")
        (path / name).write_bytes(whole)
    deep = path / "/".join("abcdefghijkl")
    deep.mkdir(parents=True)
    assert run(signers).returncode == 0, "directories hold nothing by themselves"
    (deep / "x").write_bytes(b"")
    refused(run(signers), "a file is not in what was signed", "a/b/c/d/e/f/g/h/i/j/k/l/x")
    shutil.rmtree(path / "a")
    os.mkfifo(path / "pipe")
    refused(run(signers), "a file is not in what was signed")
    (path / "pipe").unlink()
    assert run(signers).returncode == 0


def test_native_code_is_vouched_for_or_not(lib, ort, tmp_path):
    path = with_golden(Reactive()).write(tmp_path / "b")
    for number in (0, 1):
        with Policy(lib, path) as policy:
            policy.start(ort, native_code=number)
    with Policy(lib, path) as policy, pytest.raises(Failure, match="native_code is neither 0 nor 1"):
        policy.start(ort, native_code=2)
