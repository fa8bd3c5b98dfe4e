"""Signed bundles, with keys of every kind that OpenSSH has; and that nothing else passes for one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runtime_c.running import ROOT, ort_path
from tests.samples import ssh_keys
from vlart.bundle.directory import SIGNATURE_FILE, SUMS_FILE, Bundle, read_bundle
from vlart.bundle.signature import NAMESPACE, Trust, require_signed, sign, trust
from vlart.errors import SignatureError

pytestmark = pytest.mark.skipif(bool(ssh_keys.MISSING), reason=ssh_keys.MISSING)
VLART_RUN = ROOT / "build" / "runtime_c" / "vlart-run"


@pytest.fixture
def bundle(late_fusion_bundle, tmp_path) -> Bundle:
    shutil.copytree(late_fusion_bundle.path, tmp_path / "pick.vlab")
    return read_bundle(tmp_path / "pick.vlab")


@pytest.fixture
def key(tmp_path) -> Path:
    return ssh_keys.new_key(tmp_path)


@pytest.fixture
def signers(tmp_path, key) -> Path:
    return ssh_keys.allow(tmp_path / "signers", key)


@pytest.fixture
def signed(bundle, key) -> Bundle:
    sign(bundle, key, 7)
    return bundle


def both_refuse(bundle: Bundle, signers: Path) -> SignatureError:
    """Python's error; vlart-run does not open the bundle either."""
    with pytest.raises(SignatureError) as refused:
        require_signed(bundle.path, signers)
    done = in_c(bundle, signers)
    assert done.returncode == 1 and "[UNTRUSTED]" in done.stderr, done.stdout + done.stderr
    for line in ("where: ", "why:   ", "fix:   "):
        assert line in done.stderr
    return refused.value


def in_c(bundle: Bundle, signers: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([VLART_RUN, bundle.path, "--self-test", "--ort", ort_path(), "--signers", signers],
                          capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.mark.parametrize("kind", ssh_keys.KINDS)
def test_keys_of_every_kind(bundle, tmp_path, kind):
    key = ssh_keys.new_key(tmp_path, kind, kind)
    signers = ssh_keys.allow(tmp_path / "signers", key, options=f'namespaces="{NAMESPACE}"')
    before = int(time.time())
    made = sign(bundle, key)
    assert before <= made.release <= time.time(), "what is signed later is newer"
    found = require_signed(bundle.path, signers)
    assert (found.principal, found.key, found.release) == ("release@robots", made.key, made.release)
    assert found.key.startswith(kind.upper())
    assert in_c(bundle, signers).returncode == 0


def test_tools_that_robots_have_say_the_same(signed, signers):
    """Two commands of any system, without vlacompile."""
    verify = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "release@robots", "-n", NAMESPACE,
              "-s", SIGNATURE_FILE]
    sums = signed.path / SUMS_FILE
    done = subprocess.run(verify, input=sums.read_bytes(), capture_output=True, check=False, cwd=signed.path)
    assert done.returncode == 0, done.stderr
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS_FILE], cwd=signed.path, text=True,
                             capture_output=True, check=False)
    assert checked.returncode == 0 and not checked.stderr
    listed = {line.removesuffix(": OK") for line in checked.stdout.splitlines()}
    there = {str(p.relative_to(signed.path)) for p in signed.path.rglob("*") if p.is_file()}
    assert listed == there - {SUMS_FILE, SIGNATURE_FILE}, "every file is bound"


def test_a_key_of_the_agent(bundle, key, signers, monkeypatch, tmp_path):
    """Its .pub file names it; the private half is nowhere else."""
    public = tmp_path / "elsewhere.pub"
    shutil.copy(f"{key}.pub", public)
    with pytest.raises(SignatureError, match="the key does not sign"):
        sign(bundle, public)
    with ssh_keys.agent(key) as environment:
        monkeypatch.setenv("SSH_AUTH_SOCK", environment["SSH_AUTH_SOCK"])
        sign(bundle, public, 3)
    assert require_signed(bundle.path, signers).release == 3


def test_a_security_key(bundle, monkeypatch, tmp_path):
    made = ssh_keys.security_key(tmp_path)
    if made is None:
        pytest.skip("apt-get install openssh-client gcc libssl-dev")
    library, key = made
    monkeypatch.setenv("SSH_SK_PROVIDER", str(library))
    monkeypatch.chdir(tmp_path)
    signers = ssh_keys.allow(tmp_path / "signers", key)
    assert sign(bundle, key, 5).key.startswith("ED25519-SK")
    assert require_signed(bundle.path, signers).release == 5
    assert in_c(bundle, signers, SSH_SK_PROVIDER="/nowhere").returncode == 0, "to verify it takes no security key"
    (tmp_path / "REFUSE").touch()
    with pytest.raises(SignatureError, match="the key does not sign") as refused:
        sign(bundle, key)
    assert "device not found" in refused.value.why
    assert require_signed(bundle.path, signers).release == 5, "a signature that fails leaves the last one"


def test_a_key_with_a_passphrase_that_nobody_can_be_asked_for(bundle, key):
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True)
    command = [sys.executable, "-m", "vlacompile.cli.main", "sign", bundle.path, "--key", key]
    done = subprocess.run(["setsid", "-w", *command], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, env=os.environ | {"SSH_ASKPASS": "", "DISPLAY": ""})
    assert done.returncode == 8 and "the key does not sign" in done.stderr, done.stderr
    assert not (bundle.path / SUMS_FILE).exists()


def test_no_signature(bundle, signers):
    assert "is not signed" in both_refuse(bundle, signers).what


@pytest.mark.parametrize("name", [SUMS_FILE, SIGNATURE_FILE])
def test_half_a_signature(signed, signers, name):
    (signed.path / name).unlink()
    both_refuse(signed, signers)


def test_a_foreign_key(bundle, signers, tmp_path):
    stranger = ssh_keys.new_key(tmp_path, "stranger")
    made = sign(bundle, stranger)
    refused = both_refuse(bundle, signers)
    assert refused.what == "the bundle is signed by a foreign key" and made.key in refused.why
    sign(bundle, ssh_keys.new_key(tmp_path, "other"))
    both_refuse(bundle, ssh_keys.allow(tmp_path / "more", stranger))


def test_another_namespace(signed, key, signers, tmp_path):
    """A key that signs commits or files for another purpose signs no bundle by that; nor does one that may not."""
    sums = signed.path / SUMS_FILE
    for other in ("git", "file"):
        (signed.path / SIGNATURE_FILE).write_bytes(subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-f", key, "-n", other], input=sums.read_bytes(), check=True,
            capture_output=True).stdout)
        assert both_refuse(signed, signers).what == "the signature is not of a bundle"
    sign(signed, key)
    limited = ssh_keys.allow(tmp_path / "limited", key, options='namespaces="git"')
    refused = both_refuse(signed, limited)
    assert refused.what == "the bundle is signed by a foreign key" and "not permitted" in refused.why


@pytest.mark.parametrize("options", ['valid-before="20200101"', 'valid-after="20990101"'])
def test_a_key_whose_period_is_another(signed, key, tmp_path, options):
    signers = ssh_keys.allow(tmp_path / "late", key, options=options)
    assert both_refuse(signed, signers).what == "the key's period is over, or has not begun"
    ssh_keys.allow(signers, key, options='valid-after="20200101",valid-before="20990101"')
    assert require_signed(signed.path, signers).release == 7, "the same key again, with a period that holds"


@pytest.mark.parametrize("text", ["", "# nobody\n", "KEY\n", "no list\n", "release@robots ssh-ed25519 AAAA\n"])
def test_lists_that_name_nobody(signed, key, tmp_path, text):
    bad = tmp_path / "bad"
    bad.write_text(text.replace("KEY", key.with_name("key.pub").read_text()))
    both_refuse(signed, bad)


def test_a_list_that_is_not_there(signed, tmp_path):
    with pytest.raises(SignatureError, match="the list of signers cannot be read"):
        require_signed(signed.path, tmp_path / "nothing")
    assert in_c(signed, tmp_path / "nothing").returncode == 1


def damaged(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_every_byte_of_the_list_and_of_the_signature(signed, signers):
    """Of the list every byte counts. Of the signature all but what is around it: the bytes of its lines' ends."""
    for name, step in ((SUMS_FILE, 37), (SIGNATURE_FILE, 7)):
        path = signed.path / name
        whole = path.read_bytes()
        for at in range(0, len(whole), step):
            if name == SIGNATURE_FILE and whole[at:at + 1] == b"\n":
                continue
            damaged(path, at)
            with pytest.raises(SignatureError):
                require_signed(signed.path, signers)
            path.write_bytes(whole)
        damaged(path, len(whole) // 2)
        both_refuse(signed, signers)
        path.write_bytes(whole)
        path.write_bytes(whole[:-30])
        both_refuse(signed, signers)
        path.write_bytes(whole)
    assert require_signed(signed.path, signers).release == 7


def test_every_file(signed, signers):
    """Damaged, emptied, missing, exchanged for a link: each kind in each file that the list has."""
    for line in (signed.path / SUMS_FILE).read_text().splitlines()[3:]:
        path = signed.path / line.split("  ")[1]
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            damaged(path, at)
            with pytest.raises(SignatureError, match="not as it was signed"):
                require_signed(signed.path, signers)
            path.write_bytes(whole)
        damaged(path, len(whole) // 3)
        assert path.name in both_refuse(signed, signers).what
        for spoil in (lambda p: p.write_bytes(b""), Path.unlink, as_link):
            spoil(path)
            both_refuse(signed, signers)
            path.unlink(missing_ok=True)
            path.write_bytes(whole)
    assert require_signed(signed.path, signers).release == 7


def as_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    aside = path.parents[2] / f"{path.name}.aside"
    path.with_suffix(".moved").rename(aside)
    path.symlink_to(aside)


@pytest.mark.parametrize("where", ["added.txt", "stages/added.onnx", "new/added.so", "engines.txt"])
def test_a_file_that_nothing_binds(signed, signers, where):
    path = signed.path / where
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert where in both_refuse(signed, signers).what
    path.unlink()
    os.mkfifo(path)
    both_refuse(signed, signers)
    path.unlink()
    path.symlink_to("/etc")
    both_refuse(signed, signers)


def test_a_signed_text_that_is_no_list(signed, key, signers):
    for text in (b"", b"approved\n", (signed.path / SUMS_FILE).read_bytes().replace(b"bundle 1", b"bundle 2"),
                 (signed.path / SUMS_FILE).read_bytes()[:-1], b"# vlacompile-bundle 1\n# policy x\n# release -1\n"):
        (signed.path / SUMS_FILE).write_bytes(text)
        (signed.path / SIGNATURE_FILE).write_bytes(subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-f", key, "-n", NAMESPACE], input=text, check=True,
            capture_output=True).stdout)
        both_refuse(signed, signers)


def test_a_list_of_fewer_files(signed, key, signers):
    """Signed, but not by `sign`: what the manifest has and the list does not is bound by nothing."""
    sums = signed.path / SUMS_FILE
    text = b"".join(line for line in sums.read_bytes().splitlines(True) if b"golden" not in line)
    sums.write_bytes(text)
    (signed.path / SIGNATURE_FILE).write_bytes(subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", key, "-n", NAMESPACE], input=text, check=True, capture_output=True).stdout)
    assert "golden.bin is not in what was signed" in both_refuse(signed, signers).what.replace("'", "")


def test_what_was_altered_is_not_signed(bundle, key):
    damaged(bundle.path / "stages" / "weights.bin", 5)
    with pytest.raises(Exception, match="was altered"):
        sign(bundle, key)
    assert not (bundle.path / SUMS_FILE).exists()


OLD = {"none": None, "8.0": "unknown option -- Y", "8.1": 'Unsupported operation for -Y: "find-principals"'}


@pytest.mark.parametrize("version", OLD)
def test_ssh_keygen_that_cannot(signed, key, signers, tmp_path, monkeypatch, version):
    (tmp_path / "bin").mkdir()
    if OLD[version] is not None:
        program = tmp_path / "bin" / "ssh-keygen"
        program.write_text(f"#!/bin/sh\necho '{OLD[version]}' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    refused = both_refuse(signed, signers)
    assert refused.what == "ssh-keygen is missing or too old" and "8.2" in refused.fix
    with pytest.raises(SignatureError, match="missing or too old"):
        sign(signed, key)


def test_command_line(cli, bundle, key, signers, tmp_path):
    assert cli("verify", bundle.path, "--signers", signers)[0] == 8
    code, out, err = cli("sign", bundle.path, "--key", key, "--release", 42)
    assert code == 0 and "release 42" in out and max(map(len, (out + err).splitlines())) <= 100
    code, out, _ = cli("verify", bundle.path, "--signers", signers)
    assert code == 0 and "signed   by release@robots, ED25519 key SHA256:" in out
    code, out, _ = cli("verify", bundle.path, "--signers", signers, "--json")
    assert json.loads(out)["signature"]["release"] == 42
    assert cli("run", bundle.path, "--signers", signers)[0] == 0
    damaged(bundle.path / "golden" / "golden.bin", 100)
    code, _, err = cli("run", bundle.path, "--signers", signers)
    assert code == 8 and [line.split(":")[0].strip() for line in err.splitlines()[-4:]] == ["error", "where", "why",
                                                                                             "fix"]
    code, _, err = cli("sign", bundle.path, "--key", tmp_path / "nothing")
    assert code == 8 and "there is no such key" in err
    assert cli("sign", bundle.path, "--key", key, "--release", 10**15)[0] == 8


def test_what_every_program_may_do_with_a_bundle(signed, signers, tmp_path):
    """One rule: of the command line, the server and LeRobot's plugin."""
    vouched = Trust(require_signed(signed.path, signers), True)
    assert trust(signed.path, signers) == trust(signed.path, str(signers), native_code=False) == vouched
    assert trust(signed.path, None) == Trust(None, False)
    assert trust(signed.path, None, native_code=True) == Trust(None, True)
    for none in ("", tmp_path / "absent"):  # empty, as of a variable that is not set: no permission
        with pytest.raises(SignatureError, match="cannot be read"):
            trust(signed.path, none, native_code=True)
    (signed.path / "engines").mkdir()
    (signed.path / "engines/a.plan").write_bytes(b"made by nobody knows whom")
    with pytest.raises(SignatureError, match="bound by no signature"):
        trust(signed.path, signers, native_code=True)
    assert trust(signed.path, signers, keep_engines=True) == vouched
