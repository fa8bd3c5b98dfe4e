"""Python, the C programs and a device's script judge every list of signers and every signature file alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime_c.running import ROOT, ort_path
from tests.samples import ssh_keys
from vlart.bundle.directory import SIGNATURE_FILE, SUMS_FILE, Bundle, read_bundle
from vlart.bundle.signature import NAMESPACE, require_signed, sign
from vlart.errors import SignatureError

pytestmark = pytest.mark.skipif(bool(ssh_keys.MISSING), reason=ssh_keys.MISSING)
VLART_RUN = ROOT / "build" / "runtime_c" / "vlart-run"
SCRIPT = ROOT / "vlacompile" / "deploy" / "signed.sh"
LIMIT_S = 60


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    return ssh_keys.new_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def whole(late_fusion_bundle, key, tmp_path_factory) -> Bundle:
    path = tmp_path_factory.mktemp("signed") / "pick.vlab"
    shutil.copytree(late_fusion_bundle.path, path)
    sign(read_bundle(path), key, 7)
    return read_bundle(path)


@pytest.fixture
def signed(whole, tmp_path) -> Bundle:
    shutil.copytree(whole.path, tmp_path / "pick.vlab")
    return read_bundle(tmp_path / "pick.vlab")


def python_takes(bundle: Bundle, signers: Path, *, keep_engines: bool = False) -> bool:
    try:
        require_signed(bundle.path, signers, keep_engines=keep_engines)
    except SignatureError as error:
        assert error.what and error.why and error.fix
        return False
    return True


def c_takes(bundle: Bundle, signers: Path, *, keep_engines: bool = False) -> bool:
    more = ["--keep-engines"] if keep_engines else []
    done = subprocess.run([VLART_RUN, bundle.path, "--self-test", "--ort", ort_path(), "--signers", signers, *more],
                          capture_output=True, text=True, errors="replace", check=False, timeout=LIMIT_S)
    assert done.returncode == 0 or "[UNTRUSTED]" in done.stderr, done.stdout + done.stderr
    return done.returncode == 0


def script_takes(bundle: Bundle, signers: Path) -> bool:
    sums = bundle.path / SUMS_FILE
    text = ('set -eu; export LC_ALL=C; fail() { echo "fail $*"; exit 70; }; first_of() { echo "$1" | head -n 1; }\n'
            + SCRIPT.read_text() + '\nsigners=$1\nrequire_signature "$2" "$2.sig" "$3" ""\n')
    done = subprocess.run(["sh", "-c", text, "sh", signers, sums, bundle.plan.name], capture_output=True, text=True,
                          errors="replace", check=False, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    assert done.returncode in (0, 70) and not done.stderr, done.stdout + done.stderr
    return done.returncode == 0


OVER = 'valid-before="20200101"'
BUNDLES = f'namespaces="{NAMESPACE}"'
MANY = ",".join(f"p{i}@x" for i in range(400))
# What a list is called: its text, where KEY is the key's type and base64, and whether the signature counts by it.
LISTS = {
    "one line": ("r@x KEY\n", True),
    "no end of line": ("r@x KEY", True),
    "nobody": ("", False),
    "a line for git before it": (f'git@x namespaces="git" KEY\nr@x {BUNDLES} KEY\n', True),
    "a line for git behind it": (f'r@x {BUNDLES} KEY\ngit@x namespaces="git" KEY\n', True),
    "the same principal for two purposes": (f'r@x namespaces="git" KEY\nr@x {BUNDLES} KEY\n', True),
    "for git only": ('r@x namespaces="git" KEY\na@x namespaces="file" KEY\n', False),
    "a long line of principals for git before it": (f'{MANY[:200]} namespaces="git" KEY\nr@x {BUNDLES} KEY\n', True),
    "a line whose period is over before it": (f"old@x {OVER} KEY\nnew@x KEY\n", True),
    "many lines whose period is over before it": (
        "".join(f"x{i}{'.' * 60} {OVER} KEY\n" for i in range(40)) + "r@x KEY\n", True),
    "lines whose period is over": (f"x@x {OVER} KEY\n" * 3, False),
    "many principals": (f"{MANY} KEY\n", True),
    "a principal that is longer than ssh-keygen compares": (f"{'p' * 3000}@x KEY\n", False),
    "a pattern": ("*@x KEY\n", True),
    "only what is negated": ("!a@x KEY\n", False),
    "a negated pattern first": ("!a@x,b@x KEY\n", True),
    "a quoted principal": ('"two words" KEY\n', True),
    "a comment with the key": ("# r@x KEY\n", False),
    "an authority of certificates": ("r@x cert-authority KEY\n", False),
    "an authority before it": ("r@x cert-authority KEY\nr@x KEY\n", True),
    "damaged lines before it": ("garbage\n" + "bad ssh-ed25519 AAAA\n" * 40 + "r@x KEY\n", True),
    "an unknown option": ("r@x nonsense KEY\n", False),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(whole, key, tmp_path, name):
    text, counts = LISTS[name]
    signers = tmp_path / "signers"
    signers.write_text(text.replace("KEY", " ".join(key.with_name("key.pub").read_text().split()[:2])))
    found = {takes.__name__: takes(whole, signers) for takes in (python_takes, c_takes, script_takes)}
    assert found == dict.fromkeys(found, counts)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_keys_of_other_kinds_for_two_purposes(signed, tmp_path, kind):
    other = ssh_keys.new_key(tmp_path, kind, kind)
    sign(signed, other, 8)
    signers = ssh_keys.allow(tmp_path / "signers", other, principal="git@x", options='namespaces="git"')
    assert not any(takes(signed, signers) for takes in (python_takes, c_takes, script_takes))
    ssh_keys.allow(signers, other, options=BUNDLES)
    assert all(takes(signed, signers) for takes in (python_takes, c_takes, script_takes))


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 << 30)


def moved_behind_a_link(path: Path) -> None:
    aside = path.parents[1] / f"{path.name}.aside"
    path.symlink_to(aside)


SPOILED = {"a pipe": os.mkfifo, "a link to a device": link_to("/dev/zero"), "a link to a pipe": link_to("../pipe"),
           "3 GiB": sparse, "a link to what was there": moved_behind_a_link, "a folder": Path.mkdir,
           "empty": Path.touch}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("name", [SUMS_FILE, SIGNATURE_FILE])
def test_what_is_no_small_regular_file_is_not_read(signed, key, tmp_path, name, kind):
    os.mkfifo(tmp_path / "pipe")
    signers = ssh_keys.allow(tmp_path / "signers", key)
    (signed.path / name).rename(tmp_path / f"{name}.aside")
    SPOILED[kind](signed.path / name)
    assert not python_takes(signed, signers) and not c_takes(signed, signers)


LISTS_NOT_READ = {"a pipe": os.mkfifo, "a device": link_to("/dev/zero"), "3 GiB": sparse, "a folder": Path.mkdir,
                  "not there": lambda path: None, "a link to itself": link_to("list")}


@pytest.mark.parametrize("kind", LISTS_NOT_READ)
def test_a_list_that_is_no_small_regular_file_is_not_read(whole, tmp_path, kind):
    LISTS_NOT_READ[kind](tmp_path / "list")
    with pytest.raises(SignatureError, match="the list of signers cannot be read"):
        require_signed(whole.path, tmp_path / "list")
    assert not c_takes(whole, tmp_path / "list")


def test_a_list_may_be_a_link(whole, key, tmp_path):
    (tmp_path / "list").symlink_to(ssh_keys.allow(tmp_path / "signers", key))
    assert python_takes(whole, tmp_path / "list") and c_takes(whole, tmp_path / "list")


def file(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")


# A name below engines/, what is made there, and whether the bundle is taken: as it came, and with --keep-engines.
ENGINES = [("fusion.plan", file, (False, True)), ("lock.bin", file, (False, True)),
           ("more/x.plan", file, (False, True)), ("empty", Path.mkdir, (True, True)),
           (".building", Path.touch, (True, True)), (".building", file, (False, False)),
           (".building", Path.mkdir, (False, False)),
           (".hidden", file, (False, False)), (".hidden/x", file, (False, False)),
           ("more/.building", file, (False, False)), ("x.plan", link_to("/etc/passwd"), (False, False)),
           ("x", link_to("/etc"), (False, False)), ("x.plan", os.mkfifo, (False, False))]


@pytest.mark.parametrize(("name", "make", "taken"), ENGINES)
def test_engines_are_bound_by_no_signature(signed, key, tmp_path, name, make, taken):
    signers = ssh_keys.allow(tmp_path / "signers", key)
    (signed.path / "engines").mkdir()
    make(signed.path / "engines" / name)
    for takes in (python_takes, c_takes):
        assert (takes(signed, signers), takes(signed, signers, keep_engines=True)) == taken


def test_engines_that_are_a_link(signed, key, tmp_path):
    signers = ssh_keys.allow(tmp_path / "signers", key)
    (tmp_path / "elsewhere").mkdir()
    (signed.path / "engines").symlink_to(tmp_path / "elsewhere")
    assert not any(takes(signed, signers, keep_engines=keep) for takes in (python_takes, c_takes)
                   for keep in (False, True))


def test_command_line_keeps_engines(signed, key, tmp_path, cli):
    signers = ssh_keys.allow(tmp_path / "signers", key)
    file(signed.path / "engines" / "fusion.plan")
    code, _, err = cli("verify", signed.path, "--signers", signers)
    assert code == 8 and "engines are bound by no signature" in err and "vlart-build" in err
    assert cli("verify", signed.path, "--signers", signers, "--keep-engines")[0] == 0


@pytest.mark.parametrize("stream", [1, 2])
def test_ssh_keygen_that_prints_without_end(whole, key, tmp_path, monkeypatch, stream):
    """Nothing of it is kept beyond a limit, whatever was asked."""
    program = tmp_path / "bin" / "ssh-keygen"
    program.parent.mkdir()
    signers = ssh_keys.allow(tmp_path / "signers", key)
    program.write_text(f'#!/bin/sh\ncase "$*" in *-s*|*sign*) exec yes >&{stream};; esac\n'
                       'echo missing signature file >&2; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert not python_takes(whole, signers) and not c_takes(whole, signers)
    with pytest.raises(SignatureError, match="ssh-keygen does not end"):
        sign(whole, key)
    command = [sys.executable, "-m", "vlacompile.cli.main", "sign", whole.path, "--key", key]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 8 and "says more than 1 MiB" in done.stderr and len(done.stderr) < 4000
