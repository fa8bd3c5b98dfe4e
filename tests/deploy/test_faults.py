"""Whatever cuts `vlacompile flash`, and wherever: the device still runs a whole slot that passes its self-test, and the
same command again succeeds.

Both sides are killed with SIGKILL: the workstation's process by the ssh that it calls, the device's shell by the tool
that it calls.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.deploy import sshd
from tests.deploy.board import BALLAST, lying
from vlacompile.cli.main import main

# Stands for ssh on the workstation. $1 is never a step; the remote command is the last argument.
WRAPPER = """\
#!/bin/sh
case "$*" in *"' vlacompile STEP "*) ;; *) exec REAL "$@" ;; esac
ACTION
"""
BEFORE = "kill -9 $PPID"
AFTER = 'REAL "$@"; kill -9 $PPID'
# In the midst of a large file; small ones pass.
HALF_WAY = '{ head -c 1000000; [ "$(head -c 1 | wc -c)" -eq 0 ] || kill -9 $PPID; } | REAL "$@"'
CONNECTED = 'REAL "$@" <&0 & sleep 0.3; kill -9 $PPID'
# (step, what the workstation's ssh does)
WORKSTATION = [("hold", BEFORE), ("hold", CONNECTED), ("probe", AFTER), ("missing", AFTER), ("put", HALF_WAY),
               ("put", AFTER), ("link", AFTER), ("self_test", AFTER), ("activate", BEFORE), ("activate", AFTER)]
# (step, tool of the device whose call kills its shell, which call, before or after the tool has worked)
DEVICE = [("missing", "rm", 1, "before"), ("put", "sha256sum", 1, "before"), ("put", "mv", 1, "before"),
          ("put", "mv", 1, "after"), ("link", "rm", 1, "after"), ("link", "rm", 2, "after"), ("link", "cp", 5, "after"),
          ("self_test", "mv", 1, "before"), ("self_test", "mv", 1, "after"), ("activate", "rm", 1, "after"),
          ("activate", "ln", 1, "after"), ("activate", "mv", 1, "before"), ("activate", "mv", 1, "after"),
          ("activate", "cp", 1, "before"), ("activate", "comm", 1, "before")]
# Those that come after the switch.
SWITCHED = {DEVICE[-3], DEVICE[-2], DEVICE[-1]}


@pytest.fixture(scope="module")
def other_than(first, second):
    """The bundle that is not of this hash."""
    return lambda current: second if current == first.hash else first


@pytest.fixture
def victim(device, first):
    """A device that runs `first` or `second`; of the other one's own files the store has none."""
    device.calm()
    device.sshd.commands_go_through(sshd.AS_IT_IS)
    if not device.policy.is_dir():
        assert device.flash(first) == 0
    used = {line.split()[0] for line in (device.policy / "current" / "files").read_text().splitlines()}
    for file in (device.root / "store").iterdir():
        if file.name not in used:
            file.unlink()
    yield device
    device.calm()
    device.sshd.commands_go_through(sshd.AS_IT_IS)


def wrapper(folder: Path, step: str, action: str) -> Path:
    """A folder with an `ssh` that does `action` for one step."""
    real = str(shutil.which("ssh"))
    file = folder / "ssh"
    file.write_text(WRAPPER.replace("STEP", step).replace("ACTION", action).replace("REAL", real))
    file.chmod(0o755)
    return folder


def thinned(rows, names=str) -> list:
    """Every fourth for every day; the rest is for make test-full."""
    return [pytest.param(*x, id=names(x), marks=() if i % 4 == 0 else pytest.mark.full) for i, x in enumerate(rows)]


@pytest.mark.parametrize("step,action", thinned(WORKSTATION, lambda x: f"{x[0]}-{WORKSTATION.index(x)}"))
def test_the_workstation_is_killed(victim, other_than, tmp_path, step, action):
    before = victim.runs()
    new = other_than(before)
    process = victim.flash_apart(new, path=wrapper(tmp_path, step, action))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    assert victim.runs() == (new.hash if (step, action) == ("activate", AFTER) else before)
    assert victim.flash(new) == 0
    assert victim.runs() == new.hash


@pytest.mark.parametrize("step,tool,nth,moment", thinned(DEVICE, lambda x: "-".join(map(str, x))))
def test_the_shell_on_the_device_is_killed(victim, other_than, capsys, step, tool, nth, moment):
    before = victim.runs()
    new = other_than(before)
    victim.strike(step, tool, nth, moment)
    code = victim.flash(new)
    text = capsys.readouterr().err
    assert victim.struck, "the fault was never reached"
    tidying = step == "activate" and tool in ("cp", "comm")  # after the switch, which nothing makes a failure
    assert code == 0 if tidying else code == 12 and "fix:" in text, text
    assert victim.runs() == (new.hash if (step, tool, nth, moment) in SWITCHED else before)
    victim.calm()
    assert victim.flash(new) == 0
    assert victim.runs() == new.hash


@pytest.fixture
def with_systemd(victim):
    tools = [victim.sshd.path / name for name in ("systemctl", "loginctl")]
    for tool in tools:
        tool.write_text("#!/bin/sh\nexit 0\n")
        tool.chmod(0o755)
    yield victim.sshd.home / ".config" / "systemd" / "user" / "vlacompile-late_fusion.service"
    for tool in tools:
        tool.unlink()


@pytest.mark.parametrize("side", ["workstation", "device"])
def test_a_kill_while_the_unit_is_installed(victim, with_systemd, other_than, tmp_path, capsys, side):
    """The new slot is current by then; a unit is there whole or not at all, and the same command completes it."""
    new = other_than(victim.runs())
    if side == "workstation":
        process = victim.flash_apart(new, "--unit", path=wrapper(tmp_path, "unit", BEFORE))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    else:
        victim.strike("unit", "mv", 1, "before")
        assert victim.flash(new, "--unit") == 12 and victim.struck
        victim.calm()
    assert victim.runs() == new.hash and not with_systemd.exists()
    assert victim.flash(new, "--unit") == 0 and "ExecStart=" in with_systemd.read_text()
    with_systemd.unlink()


ROLLBACK = [("self_test", "mv", "before"), ("self_test", "mv", "after"),
            ("activate", "ln", "after"), ("activate", "mv", "before"), ("activate", "mv", "after")]


@pytest.mark.parametrize("step,tool,moment", thinned(ROLLBACK, "-".join))
def test_a_rollback_is_cut(victim, other_than, first, second, step, tool, moment):
    """Whole either way, and the same command goes on."""
    before = victim.runs()
    new = other_than(before)
    assert victim.flash(new) == 0
    victim.strike(step, tool, 1, moment)
    command = ["flash", "--rollback", "board", "--ssh-config", str(victim.sshd.config)]
    assert main(command) == 12 and victim.struck
    victim.calm()
    switched = (step, tool, moment) == ROLLBACK[-1]
    assert victim.runs() == (before if switched else new.hash)
    if not switched:
        assert main(command) == 0
    assert victim.runs() == before


@pytest.mark.parametrize("step", ["hold", "probe", "missing", "put", "link", "self_test", "activate"])
def test_the_connection_is_cut(victim, other_than, capsys, step):
    """The process of sshd that carries this session is killed as the step begins, as when the network goes."""
    before = victim.runs()
    new = other_than(before)
    cut = f'[ "$STEP" != {step} ] || {{ kill -9 $PPID; sleep 0.2; }}\nexec sh'
    victim.sshd.commands_go_through(sshd.AS_IT_IS.replace("exec sh", cut))
    assert victim.flash(new) == 12
    err = capsys.readouterr().err
    assert "fix:" in err and "board" in err, err
    victim.sshd.commands_go_through(sshd.AS_IT_IS)
    assert victim.runs() in (before, new.hash) if step == "activate" else victim.runs() == before
    assert victim.flash(new) == 0 and victim.runs() == new.hash


def test_what_arrived_is_not_sent_again(victim, other_than, tmp_path, capsys):
    new = other_than(victim.runs())
    process = victim.flash_apart(new, path=wrapper(tmp_path, "put", HALF_WAY))
    process.communicate(timeout=60)
    arrived = victim.arrived_in_part()
    assert arrived > 0
    capsys.readouterr()
    assert victim.flash(new, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert BALLAST - arrived <= told["sent"] < BALLAST + 100_000 - arrived
    assert not list((victim.root / "store").glob("*.part"))


def test_a_damaged_arrival_is_sent_again_and_at_last_refused(victim, other_than, tmp_path, capsys):
    before = victim.runs()
    new = other_than(before)
    flip = '{ printf x; tail -c +2; } | REAL "$@"'
    process = victim.flash_apart(new, path=wrapper(tmp_path, "put", flip))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 12 and "arrived damaged" in output and "sha256 is" in output
    assert victim.runs() == before and not list((victim.root / "store").glob("*.part"))
    once = f'if mkdir {tmp_path}/flipped 2>/dev/null; then {flip}; else exec REAL "$@"; fi'
    process = victim.flash_apart(new, path=wrapper(tmp_path, "put", once))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert (tmp_path / "flipped").is_dir() and victim.runs() == new.hash


def test_a_file_that_rots_in_the_store_is_sent_again(victim, other_than):
    new = other_than(victim.runs())
    victim.strike("link", "cp", 1, "before")  # everything has arrived, nothing is in the slot
    assert victim.flash(new) == 12 and victim.struck
    victim.calm()
    ballast = victim.root / "store" / new.manifest["files"]["stages/ballast.bin"]["sha256"]
    ballast.chmod(0o644)
    data = bytearray(ballast.read_bytes())
    data[1000] ^= 1
    ballast.write_bytes(data)
    assert victim.flash(new) == 0
    assert victim.runs() == new.hash


def test_a_disk_that_takes_no_more(victim, other_than, capsys):
    """The device's limit of a file's size stands for a full disk: cat is cut in the midst of a file."""
    before = victim.runs()
    new = other_than(before)
    victim.sshd.commands_go_through(sshd.AS_IT_IS.replace("exec sh", "ulimit -f 2000; exec sh"))
    assert victim.flash(new) == 12
    assert "cannot store what is sent" in capsys.readouterr().err
    assert victim.runs() == before
    victim.sshd.commands_go_through(sshd.AS_IT_IS)
    assert victim.flash(new) == 0 and victim.runs() == new.hash


def test_too_little_space_is_seen_before_anything_is_sent(victim, other_than, capsys):
    before = victim.runs()
    df = victim.sshd.path / "df"
    df.write_text("#!/bin/sh\necho Avail\necho 2000\n")
    df.chmod(0o755)
    try:
        assert victim.flash(other_than(before)) == 12
    finally:
        df.unlink()
    assert "too little space" in capsys.readouterr().err
    assert victim.runs() == before


def test_a_bundle_that_fails_its_self_test_is_never_current(victim, late_fusion_bundle, other_than, tmp_path, capsys):
    before = victim.runs()
    slot = victim.policy.joinpath("current").readlink().name
    assert victim.flash(lying(late_fusion_bundle, tmp_path / "lying.vlab")) == 12
    text = capsys.readouterr().err
    assert "the self-test failed" in text and f"it still runs slot {slot}" in text and "SELF_TEST_FAILED" in text
    assert victim.runs() == before
    assert victim.flash(other_than(before)) == 0


def test_two_at_once(victim, other_than, capsys, tmp_path):
    """The second is refused and told who flashes; the first is not disturbed."""
    before = victim.runs()
    new = other_than(before)
    held = tmp_path / "held"
    wait = f'touch {held}; while [ -e {held} ]; do sleep 0.05; done; exec REAL "$@"'
    one = victim.flash_apart(new, path=wrapper(tmp_path, "link", wait))
    with contextlib.ExitStack() as stack:
        stack.callback(held.unlink, missing_ok=True)
        while not held.exists():
            assert one.poll() is None, one.communicate()[0]
        assert victim.flash(new) == 12
    text = capsys.readouterr().err
    assert "is being flashed already" in text and f":{one.pid}:" in text
    output, _ = one.communicate(timeout=60)
    assert one.returncode == 0, output
    assert victim.runs() == new.hash


@pytest.mark.parametrize("number,code,fleet", [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, False),
                                               (signal.SIGINT, 130, True)])
def test_an_interrupt(victim, other_than, tmp_path, number, code, fleet):
    """Ctrl-C and `kill` end at once, also with several hosts, and say what the device has."""
    file = tmp_path / "fleet.toml"
    file.write_text('[[host]]\nname = "board"\n[[host]]\nname = "board-off"\n')
    before = victim.runs()
    new = other_than(before)
    begun = tmp_path / "begun"
    more = ("--fleet", str(file)) if fleet else ()
    process = victim.flash_apart(new, *more, path=wrapper(tmp_path, "put", f"touch {begun}; exec sleep 60"))
    while not begun.exists():
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == code, output
    assert number != signal.SIGINT or "interrupted; the current slot is unchanged" in output
    assert victim.runs() == before
    assert victim.flash(new) == 0 and victim.runs() == new.hash
