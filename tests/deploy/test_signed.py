"""A device with signers takes what they signed and nothing else, whatever the workstation thinks of it; and nothing
older than it had."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy import board as boards
from tests.deploy.stand_ins import VLART_BUILD, VLART_RUN, executable
from tests.samples import ssh_keys
from vlacompile.deploy.enroll import read_signers
from vlacompile.deploy.flash import Options, connect
from vlacompile.deploy.payload import pieces_of
from vlart.bundle.directory import SIGNATURE_FILE, SUMS_FILE, Bundle, read_bundle
from vlart.bundle.signature import NAMESPACE, sign
from vlart.errors import ConfigError, DeployError

GENERAL = "--ssh-config"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """A folder with keys of two people, and the list `signers` that has the first one's."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "foreign"):
        ssh_keys.new_key(folder, name)
    ssh_keys.allow(folder / "signers", folder / "ours", options=f'namespaces="{NAMESPACE}"')
    return folder


@pytest.fixture(scope="module")
def signed(first, second, keys, tmp_path_factory):
    """(bundles of release 1 and 2, of which only the second is newer)."""
    folder = tmp_path_factory.mktemp("signed")
    return (of_release(first, folder / "1.vlab", keys / "ours", 1),
            of_release(second, folder / "2.vlab", keys / "ours", 2))


def of_release(bundle: Bundle, out: Path, key: Path, release: int) -> Bundle:
    shutil.copytree(bundle.path, out)
    made = read_bundle(out)
    sign(made, key, release)
    return made


@pytest.fixture
def enrolled(fresh, keys, capsys):
    assert fresh.enroll(keys / "signers") == 0
    capsys.readouterr()
    return fresh


def refused(device, bundle: Bundle | Path, capsys, what: str, *more: str) -> str:
    """What it says; nothing was switched, and next to nothing was sent."""
    was = device.runs() if (device.policy / "current").exists() else None
    before = sum(f.stat().st_size for f in (device.root / "store").iterdir())
    assert device.flash(bundle, *more) == 12
    said = capsys.readouterr().err
    assert what in said and "fix:" in said, said
    assert (device.runs() if (device.policy / "current").exists() else None) == was
    assert sum(f.stat().st_size for f in (device.root / "store").iterdir()) - before < 20_000
    return said


def test_enrolling(fresh, keys, first, signed, capsys):
    """What runs goes on running; from then on only signed bundles are taken."""
    assert fresh.flash(first) == 0, "without signers all works as it did"
    assert fresh.enroll(keys / "signers") == 0
    out = capsys.readouterr().out
    assert "takes bundles of 1 signer" in out and "late_fusion: its current bundle is not" in out
    assert (fresh.root / "signers").read_bytes() == (keys / "signers").read_bytes()
    assert (fresh.root / "signers").stat().st_mode & 0o777 == 0o444
    assert fresh.runs() == first.hash
    refused(fresh, first, capsys, "is not signed; board takes signed bundles only")
    assert fresh.flash(signed[1]) == 0 and fresh.runs() == signed[1].hash
    assert fresh.enroll(keys / "signers") == 0
    assert "late_fusion: its current bundle is signed by one of them" in capsys.readouterr().out
    assert boards.main(["flash", "--status", "board", GENERAL, str(fresh.sshd.config)]) == 0
    out = capsys.readouterr().out
    assert "takes signed bundles only" in out and "late_fusion, release 2" in out
    assert fresh.roll_back() == 12, "the other slot is from before"
    assert "is not signed" in capsys.readouterr().err and fresh.runs() == signed[1].hash


def test_another_list_needs_to_be_asked_for(enrolled, keys, signed, tmp_path, capsys):
    others = ssh_keys.allow(tmp_path / "others", keys / "foreign")
    assert enrolled.flash(signed[0]) == 0 and enrolled.flash(signed[1]) == 0
    assert enrolled.enroll(others) == 12 and "board has other signers" in capsys.readouterr().err
    assert (enrolled.root / "signers").read_bytes() == (keys / "signers").read_bytes()
    assert enrolled.enroll(others, "--replace") == 0
    assert "goes on running until" in capsys.readouterr().out
    refused(enrolled, signed[1], capsys, "signed by none of the signers of board")
    assert enrolled.roll_back() == 12 and "signed by none of the signers" in capsys.readouterr().err
    assert enrolled.runs() == signed[1].hash
    assert enrolled.flash(of_release(signed[0], tmp_path / "theirs.vlab", keys / "foreign", 3)) == 0


@pytest.mark.parametrize(("text", "why"), [
    ("", "nobody's bundle"), ("# nobody\n", "nobody's bundle"), ("release@robots\n", "no principal and key"),
    ("PUBLIC", "the principal is missing"), ("a@b PUBLIC\nPUBLIC", "the principal is missing"),
    ("release@robots ssh-ed25519 short\n", "no principal and key"), (None, "No such file")])
def test_a_list_by_which_nothing_would_be_taken(fresh, keys, tmp_path, capsys, text, why):
    path = tmp_path / "signers"
    if text is not None:
        path.write_text(text.replace("PUBLIC", (keys / "ours.pub").read_text().strip()))
    assert fresh.enroll(path) == 3
    assert why in capsys.readouterr().err and not (fresh.root / "signers").exists()


def test_a_list_without_end_is_not_read_to_its_end():
    with pytest.raises(ConfigError, match="too long"):
        read_signers(Path("/dev/zero"))


def test_what_is_refused_before_it_is_sent(enrolled, keys, signed, first, tmp_path, capsys):
    """Each with a current bundle that goes on."""
    assert enrolled.flash(signed[0]) == 0
    refused(enrolled, first, capsys, "is not signed")
    said = refused(enrolled, of_release(signed[1], tmp_path / "foreign.vlab", keys / "foreign", 9), capsys,
                   "signed by none of the signers of board")
    assert "No principal matched" in said
    broken = of_release(signed[1], tmp_path / "broken.vlab", keys / "ours", 9)
    sums = (broken.path / SUMS_FILE).read_bytes()
    (broken.path / SUMS_FILE).write_bytes(sums.replace(b"# release 9", b"# release 99"))
    assert "incorrect signature" in refused(enrolled, broken, capsys, "signature does not hold on board")
    (broken.path / SUMS_FILE).write_bytes(sums)
    whole = (broken.path / SIGNATURE_FILE).read_bytes()
    (broken.path / SIGNATURE_FILE).write_bytes(whole[:100])
    refused(enrolled, broken, capsys, "signature does not hold on board")
    for text, namespace, what in ((sums, "git", "namespace does not match"),
                                  (sums.replace(b"# policy late_fusion", b"# policy heavy"), NAMESPACE,
                                   "the signature is of another policy: heavy"),
                                  (sums.replace(b"# release 9", b"# release -9"), NAMESPACE, "is no list of the files"),
                                  (b"approved\n", NAMESPACE, "is no list of the files")):
        (broken.path / SUMS_FILE).write_bytes(text)
        (broken.path / SIGNATURE_FILE).write_bytes(by_hand(text, keys / "ours", namespace))
        refused(enrolled, broken, capsys, what)
    assert enrolled.runs() == signed[0].hash


def by_hand(text: bytes, key: Path, namespace: str = NAMESPACE) -> bytes:
    return subprocess.run(["ssh-keygen", "-Y", "sign", "-f", key, "-n", namespace], input=text, check=True,
                          capture_output=True).stdout


def test_a_file_that_the_signature_does_not_have(enrolled, keys, signed, tmp_path, capsys):
    """The list of files that a workstation sends is not what was signed: the device compares."""
    assert enrolled.flash(signed[0]) == 0
    fewer = of_release(signed[1], tmp_path / "fewer.vlab", keys / "ours", 9)
    text = b"".join(line for line in (fewer.path / SUMS_FILE).read_bytes().splitlines(True) if b"weights" not in line)
    (fewer.path / SUMS_FILE).write_bytes(text)
    (fewer.path / SIGNATURE_FILE).write_bytes(by_hand(text, keys / "ours"))
    assert enrolled.flash(fewer) == 12
    assert "stages/weights.bin is not as it was signed" in capsys.readouterr().err
    more = of_release(signed[1], tmp_path / "more.vlab", keys / "ours", 9)
    text = (more.path / SUMS_FILE).read_bytes() + b"0" * 64 + b"  stages/more.onnx\n"
    (more.path / SUMS_FILE).write_bytes(text)
    (more.path / SIGNATURE_FILE).write_bytes(by_hand(text, keys / "ours"))
    assert enrolled.flash(more) == 12
    assert "stages/more.onnx is not as it was signed" in capsys.readouterr().err
    assert enrolled.runs() == signed[0].hash


def identity_of(slot: Path) -> str:
    """As of its list of files."""
    lines = [*sorted((slot / "files").read_text().splitlines()), *(slot / "arguments").read_text().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_steps_refuse_for_themselves(enrolled, signed, second):
    """A workstation that leaves the question out gets no further: each step of the device asks."""
    assert enrolled.flash(signed[0]) == 0
    pieces = pieces_of(second)
    with connect("board", Options(config=enrolled.sshd.config)) as connection:
        for piece in pieces:
            if not (enrolled.root / "store" / piece.sha256).exists():
                connection.run("put", piece.sha256, str(piece.bytes), "0", send=piece.from_offset(0))
        table = "".join(f"{p.sha256} {p.mode} {p.path}\n" for p in pieces)
        theirs = [p for p in pieces_of(signed[0]) if p.path.endswith((SUMS_FILE, SIGNATURE_FILE))]
        borrowed = table + "".join(f"{p.sha256} {p.mode} {p.path}\n" for p in theirs)
        own = "".join(f"{p.sha256} {p.mode} {p.path}\n" for p in pieces_of(signed[0]))
        twice = own + 2 * f"{pieces[0].sha256} 444 bundle.vlab/more\n"
        for text, why in ((table, "is not signed"), (borrowed, "is not as it was signed"),
                          (twice, "listed twice is not as it was signed")):
            with pytest.raises(DeployError, match=why):
                connection.run("link", "late_fusion", "f" * 64, send=[text.encode()])
        assert not (enrolled.policy / "slots" / "b").exists(), "nothing is touched"
        slot = enrolled.policy / "slots" / "b"  # as nobody can fill it
        shutil.copytree(enrolled.policy / "slots" / "a", slot)
        shutil.copy(slot / "bundle.vlab" / "plan.txt", slot / "bundle.vlab" / "more")
        text = next(p for p in pieces_of(signed[0]) if p.path.endswith("plan.txt"))
        with (slot / "files").open("a") as file:
            file.write(f"{text.sha256} 444 bundle.vlab/more\n")
        (slot / "identity").write_text(f"{identity_of(slot)}\n")
        for step in (("self_test", "late_fusion", "b"), ("activate", "late_fusion", "b", "flashed", "2"),
                     ("activate", "late_fusion", "b", "rolled-back", "2")):
            with pytest.raises(DeployError, match="more is not as it was signed"):
                connection.run(*step)
    assert enrolled.runs() == signed[0].hash


def test_nothing_older_but_the_other_slot(enrolled, keys, signed, tmp_path, capsys):
    """Going back to the other slot takes no key; any other older bundle takes a signature, which gives it a number."""
    old, new = signed
    third = of_release(old, tmp_path / "third.vlab", keys / "ours", 3)
    assert enrolled.flash(old) == 0 and enrolled.flash(new) == 0
    assert enrolled.roll_back() == 0 and enrolled.runs() == old.hash, "the key is not asked for"
    assert enrolled.flash(old) == 0, "it is current already"
    assert enrolled.roll_back() == 0 and enrolled.runs() == new.hash
    assert "older than board had: 1, after 2" in refused(enrolled, old, capsys, "release")
    assert enrolled.flash(third) == 0 and (enrolled.policy / "release").read_text() == "3\n"
    refused(enrolled, new, capsys, "older than board had: 2, after 3")
    assert enrolled.roll_back() == 0 and enrolled.runs() == new.hash, "what is refused leaves the other slot alone"
    assert (enrolled.policy / "release").read_text() == "3\n", "the counter never falls"
    refused(enrolled, of_release(old, tmp_path / "other.vlab", keys / "ours", 2), capsys, "older than board had")
    sign(old, keys / "ours", 4)
    try:
        assert enrolled.flash(old) == 0 and (enrolled.policy / "release").read_text() == "4\n"
    finally:
        sign(old, keys / "ours", 1)


@pytest.mark.parametrize("text", ["", "many\n", "-1\n"])
def test_a_counter_that_is_damaged(enrolled, signed, capsys, text):
    assert enrolled.flash(signed[0]) == 0
    (enrolled.policy / "release").write_text(text)
    refused(enrolled, signed[1], capsys, "the release counter of board is damaged")


IN_2099 = """\
#!/bin/sh
case "$*" in
  *verify-time*) ;;
  "-Y find-principals -s"* | "-Y verify"*) set -- "$@" -O verify-time=20990101 ;;
esac
exec /usr/bin/ssh-keygen "$@"
"""


def test_a_period_that_ends(fresh, keys, signed, third_signed, tmp_path, capsys):
    """New bundles of the key are refused; the slots that were accepted while it held stay, and rolling back works."""
    signers = ssh_keys.allow(tmp_path / "signers", keys / "ours", options='valid-before="20980101"')
    assert fresh.enroll(signers) == 0
    assert fresh.flash(signed[0]) == 0 and fresh.flash(signed[1]) == 0
    late = executable(fresh.sshd.path / "ssh-keygen", IN_2099)
    try:
        assert "has expired" in refused(fresh, third_signed, capsys, "the key's period is over on board")
        assert fresh.roll_back() == 0 and fresh.runs() == signed[0].hash
        (fresh.policy / "slots" / "b" / "signed").unlink()
        assert fresh.roll_back() == 12, "when that was is not known"
    finally:
        late.unlink()


@pytest.fixture
def third_signed(first, keys, tmp_path):
    return of_release(boards.variant(first, tmp_path / "v3.vlab", 3), tmp_path / "signed3.vlab", keys / "ours", 3)


@pytest.mark.parametrize("said", ["ssh-keygen: not found", "unknown option -- Y"])
def test_a_device_whose_ssh_keygen_cannot(enrolled, keys, signed, capsys, said):
    """It refuses: no signature is not an answer. Enrolling such a device is refused too."""
    assert enrolled.flash(signed[0]) == 0
    old = executable(enrolled.sshd.path / "ssh-keygen", f"#!/bin/sh\necho '{said}' >&2\nexit 127\n")
    try:
        refused(enrolled, signed[1], capsys, "ssh-keygen is missing or too old on board")
        assert enrolled.enroll(keys / "signers") == 12
        assert "missing or too old on board" in capsys.readouterr().err
    finally:
        old.unlink()
    assert enrolled.flash(signed[1]) == 0


# What happens to the other slot, or to the list, and why going back to it is refused then.
ROT = [("bundle.vlab/stages/weights.bin", "is damaged"), ("bundle.vlab/SHA256SUMS.sig", "is damaged"),
       ("bundle.vlab/SHA256SUMS", "is damaged"), ("bundle.vlab/plan.bin", "is damaged"),
       ("bin/vlart-run", "is damaged")]


@pytest.mark.parametrize(("name", "why"), ROT)
def test_an_old_slot_that_is_damaged(enrolled, signed, capsys, name, why):
    """It is not gone back to; flashing its bundle again would repair it, were it not older."""
    assert enrolled.flash(signed[0]) == 0 and enrolled.flash(signed[1]) == 0
    path = enrolled.policy / "slots" / "a" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o755)
    assert enrolled.roll_back() == 12
    assert why in capsys.readouterr().err and enrolled.runs() == signed[1].hash
    assert (enrolled.policy / "slots" / "a" / "signed").unlink() is None
    assert enrolled.roll_back() == 12 and enrolled.flash(signed[1]) == 0


@pytest.fixture
def victim(enrolled, signed):
    """It runs release 1, and is to get release 2."""
    assert enrolled.flash(signed[0]) == 0
    return enrolled


# As test_faults.DEVICE: (step, tool, which call, before or after it has worked), where signatures come in.
DEVICE = [
    ("permit", "ssh-keygen", 1, "before"), ("permit", "ssh-keygen", 2, "before"), ("permit", "ssh-keygen", 4, "before"),
    ("permit", "ssh-keygen", 4, "after"), ("link", "ssh-keygen", 1, "before"), ("link", "ssh-keygen", 4, "after"),
    ("link", "mv", 1, "after"), ("link", "date", 1, "before"), ("link", "date", 1, "after"),
    ("self_test", "ssh-keygen", 1, "before"), ("self_test", "ssh-keygen", 4, "after"),
    ("activate", "ssh-keygen", 1, "before"), ("activate", "ssh-keygen", 4, "after"), ("activate", "mv", 1, "before"),
    ("activate", "mv", 1, "after"), ("activate", "mv", 2, "before"), ("activate", "mv", 2, "after"),
    ("activate", "mv", 3, "before"), ("activate", "sync", 1, "before"), ("activate", "sync", 2, "before")]
SWITCHED = {("activate", "mv", 2, "after"), ("activate", "mv", 3, "before")}


def thinned(rows) -> list:
    """Every fifth for every day; the rest is for make test-full."""
    return [pytest.param(x, id="-".join(map(str, x)), marks=() if i % 5 == 0 else pytest.mark.full)
            for i, x in enumerate(rows)]


@pytest.mark.parametrize("fault", thinned(DEVICE))
def test_a_flash_that_is_cut(victim, signed, capsys, fault):
    """A whole signed slot runs at any moment; the counter is never behind what was active; the same command goes on."""
    old, new = signed
    victim.strike(*fault)
    assert victim.flash(new) == 12 and victim.struck, "the fault was never reached"
    assert "fix:" in capsys.readouterr().err
    assert victim.runs() == (new.hash if fault in SWITCHED else old.hash)
    assert int((victim.policy / "release").read_text()) >= (2 if fault in SWITCHED else 1)
    victim.calm()
    assert victim.flash(new) == 0 and victim.runs() == new.hash
    assert (victim.policy / "release").read_text() == "2\n"
    assert victim.roll_back() == 0 and victim.runs() == old.hash


ENROLL = [("ssh-keygen", 1, "before"), ("sha256sum", 1, "after"), ("rm", 1, "before"), ("rm", 1, "after"),
          ("chmod", 1, "after"), ("mv", 1, "before"), ("mv", 1, "after"), ("sync", 2, "before")]


@pytest.mark.parametrize("fault", ENROLL, ids=lambda f: "-".join(map(str, f)))
def test_enrolling_that_is_cut(victim, keys, signed, tmp_path, capsys, fault):
    """The old list or the new one, whole; and no slot counts as signed by a list that it was not compared with."""
    both = ssh_keys.allow(tmp_path / "both", keys / "ours", keys / "foreign")
    texts = (keys / "signers").read_bytes(), both.read_bytes()
    victim.strike("enroll", *fault)
    assert victim.enroll(both, "--replace") == 12 and victim.struck
    victim.calm()
    held = (victim.root / "signers").read_bytes()
    assert held in texts and (held == texts[0] or not list(victim.policy.glob("slots/*/signed")))
    assert victim.runs() == signed[0].hash
    assert victim.enroll(both, "--replace") == 0 and (victim.root / "signers").read_bytes() == texts[1]
    assert not (victim.root / "signers.new").exists()
    assert victim.flash(signed[1]) == 0


def test_engines_of_unsigned_bundles_are_not_taken_over(fresh, keys, late_fusion_bundle, tmp_path, capsys):
    """They are code for the GPU, and no signature binds them: only what was built of a signed slot is kept."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    executable(runtime / "vlart-run", VLART_RUN)
    executable(runtime / "vlart-build", VLART_BUILD + 'echo "$*" >"$HOME/given"\n')
    nano = boards.for_target(late_fusion_bundle, tmp_path / "nano.vlab", "orin-nano-8gb@25w+jetpack-6.2", "tensorrt")
    options = ["--runtime", str(runtime), "--board", "orin-nano-8gb"]
    assert fresh.flash(nano, *options) == 0 and fresh.enroll(keys / "signers") == 0
    sign(nano, keys / "ours", 1)
    capsys.readouterr()
    assert fresh.flash(nano, *options) == 0
    given = (fresh.sshd.home / "given").read_text()
    assert "kept" not in capsys.readouterr().err and f"--signers {fresh.root}/signers --keep-engines" in given
    sign(nano, keys / "ours", 2)
    assert fresh.flash(nano, *options) == 0 and "build fusion kept" in capsys.readouterr().err


def test_machine_code(fresh, keys, late_fusion_bundle, tmp_path, capsys):
    """By name where nobody is enrolled; elsewhere because it is signed. With a stand-in for vlart-run."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    executable(runtime / "vlart-run", VLART_RUN)
    compiled = boards.machine_code(late_fusion_bundle, tmp_path / "tvm.vlab")
    assert fresh.flash(compiled, "--runtime", str(runtime)) == 12
    assert "stages of machine code, and no signer vouches for them" in capsys.readouterr().err
    assert not fresh.policy.exists()
    assert fresh.flash(compiled, "--runtime", str(runtime), "--native-code") == 0
    assert "--native-code" in (fresh.policy / "current" / "arguments").read_text().split()
    assert fresh.enroll(keys / "signers") == 0
    assert fresh.flash(compiled, "--runtime", str(runtime), "--native-code") == 12
    assert "is not signed" in capsys.readouterr().err
    sign(compiled, keys / "ours")
    assert fresh.flash(compiled, "--runtime", str(runtime)) == 0
    assert "--native-code" in (fresh.policy / "current" / "arguments").read_text().split()


def test_a_security_key_and_an_agent(enrolled, keys, signed, tmp_path, monkeypatch, capsys):
    """To verify, the device needs neither."""
    with ssh_keys.agent(keys / "ours") as environment:
        monkeypatch.setenv("SSH_AUTH_SOCK", environment["SSH_AUTH_SOCK"])
        public = shutil.copy(keys / "ours.pub", tmp_path / "ours.pub")
        assert boards.main(["sign", str(signed[1].path), "--key", str(public), "--release", "2"]) == 0
    assert enrolled.flash(signed[1]) == 0
    made = ssh_keys.security_key(tmp_path)
    if made is None:
        pytest.skip("apt-get install openssh-client gcc libssl-dev")
    monkeypatch.setenv("SSH_SK_PROVIDER", str(made[0]))
    hardware = of_release(signed[1], tmp_path / "hardware.vlab", made[1], 5)
    monkeypatch.delenv("SSH_SK_PROVIDER")
    signers = ssh_keys.allow(shutil.copy(keys / "signers", tmp_path / "signers"), made[1])
    refused(enrolled, hardware, capsys, "signed by none of the signers")
    assert enrolled.enroll(signers, "--replace") == 0 and enrolled.flash(hardware) == 0
