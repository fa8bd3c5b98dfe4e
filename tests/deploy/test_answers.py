"""A device is another machine: its shell may block, its slots may rot, its disk may be full, it may say anything."""

from __future__ import annotations

import json
import os
import re
import threading
import time

import pytest

from tests.deploy import board as boards
from tests.deploy.sshd import AS_IT_IS
from vlacompile.deploy import ssh
from vlacompile.deploy.answers import FORMS, MOST_SAID, NEEDED, Unbelievable, check, listen


def heard(*pieces: bytes, silent_s: float = 20.0, held_s: float = 0.0):
    """What listen() makes of these bytes."""
    read, write = os.pipe()

    def say():
        try:
            for piece in pieces:
                os.write(write, piece)
            time.sleep(held_s)
        except BrokenPipeError:
            pass
        finally:
            os.close(write)

    speaker = threading.Thread(target=say)
    speaker.start()
    lines: list[str] = []
    try:
        return listen(read, lines.append, silent_s), lines
    finally:
        os.close(read)
        speaker.join()


def test_answers_and_other_lines():
    found, lines = heard(b"vlacompile held\nhello\nvlacompile need a 3", b"4\r\n", b"no end")
    assert found.answers == [("held", ""), ("need", "a 34")] and lines == ["hello", "no end"] == list(found.said)


def test_silence_ends():
    began = time.monotonic()
    with pytest.raises(Unbelievable, match="said nothing for 1 s"):
        heard(b"vlacompile held\n", silent_s=1.0, held_s=4.0)
    assert time.monotonic() - began < 10


def test_words_now_and_then_end_too(monkeypatch):
    """Each is in time; together they would last for ever. What is sent meanwhile counts."""
    monkeypatch.setattr("vlacompile.deploy.answers.MOST_SILENCES", 2)
    read, write = os.pipe()
    ended = threading.Event()

    def say():
        while not ended.wait(0.3):
            os.write(write, b"still\n")
        os.close(write)

    speaker = threading.Thread(target=say)
    speaker.start()
    try:
        with pytest.raises(Unbelievable, match="did not end within 2 s"):
            listen(read, lambda line: None, 1.0)
        threading.Timer(3.0, ended.set).start()
        assert set(listen(read, lambda line: None, 1.0, moved=time.monotonic).said) == {"still"}
    finally:
        ended.set()
        speaker.join()
        os.close(read)


def test_floods_are_bounded(monkeypatch):
    found, lines = heard(b"x" * 5_000_000 + b"\n", *[b"line\n" * 10_000] * 5)
    assert len(lines[0]) <= 16_384 and len(found.said) == MOST_SAID and len(lines) == 50_001
    with pytest.raises(Unbelievable, match="more than 100000 answers"):
        heard(*[b"vlacompile ort /x\n" * 1000] * 101)
    monkeypatch.setattr("vlacompile.deploy.answers.MOST_BYTES", 1 << 20)
    with pytest.raises(Unbelievable, match="more than 1 MB"):
        heard(*[b"x" * 65536] * 40)


def test_nothing_that_a_terminal_acts_on_comes_through():
    found, lines = heard(b"\x1b]0;title\x07\xff\x9b2J \xc2\x9b\n", b"vlacompile model \x1b[31mred\n")
    assert all(line.isprintable() for line in [*lines, *(v for _, v in found.answers)])
    assert r"\x1b[31mred" in found.answers[0][1]


SHA = "0" * 64
GOOD = {"probe": [("arch", "x86_64"), ("root", "/home/me"), ("free_kib", " 1234"), ("ort", "/usr/lib/ort.so"),
                  ("signers", SHA)],
        "missing": [("current", f"a {SHA}"), ("need", f"{SHA} 12")], "put": [("stored", "")], "link": [("slot", "b")],
        "build": [("built", "")], "self_test": [("passed", "")], "activate": [("active", "a")],
        "other": [("policy", "late_fusion"), ("slot", "a")], "permit": [("permitted", "7")],
        "enroll": [("covered", "pick"), ("uncovered", "new"), ("enrolled", "")],
        "unit": [("unit", "vlacompile-pick.service")],
        "measure": [("arch", "aarch64"), ("kernel", "5.15.148-tegra"), ("date", "2026-01-01"), ("mode_id", "2"),
                    ("mode", "MAXN_SUPER"), ("profile", SHA), ("profile_part", "e30K"), ("measured", "")],
        "status": [("policy", "pick a"), ("policy", "new "), ("slot", f"pick a {SHA} 2026-01-01T00:00:00Z"),
                   ("slot", "pick b  "), ("history", f"pick 2026-01-01T00:00:00Z flashed a {SHA}"),
                   ("unit", "pick active"), ("release", "pick 7"), ("flashing", "me@here:1:ff"),
                   ("damaged", "pick b bin/vlart-run"), ("damaged", "pick current")]}
BAD = [("probe", "free_kib", "many"), ("probe", "free_kib", "-1"), ("probe", "root", "home"), ("probe", "arch", "x;y"),
       ("missing", "need", f"{SHA} 9999999999999999999"), ("missing", "need", "../x 1"), ("missing", "current", "c d"),
       ("put", "bad", "x"), ("link", "slot", "../b"), ("activate", "active", "b; reboot"), ("other", "slot", "c"),
       ("status", "history", "pick torn"), ("status", "slot", "pick a x"), ("self_test", "passed", "yes"),
       ("permit", "permitted", "-1"), ("enroll", "covered", "a/b"), ("status", "release", "pick x"),
       ("measure", "profile_part", "e30K; reboot"), ("measure", "date", "today"), ("measure", "mode", "a b"),
       ("status", "damaged", "pick c x"), ("build", "nonsense", ""), ("unit", "unit", "a.service")]


def test_every_form_is_taken():
    assert GOOD.keys() == FORMS.keys()
    for step, answers in GOOD.items():
        check(step, answers)
        for key in NEEDED.get(step, ()):
            with pytest.raises(Unbelievable, match=f'does not answer "{key}"'):
                check(step, [a for a in answers if a[0] != key])


@pytest.mark.parametrize(("step", "key", "value"), BAD)
def test_another_form_is_not(step, key, value):
    with pytest.raises(Unbelievable, match="it answers"):
        check(step, [*GOOD[step], (key, value)])


@pytest.mark.parametrize(("shell", "why"), [
    ("sleep 30", "said nothing for 2 s"), ("exec yes 'vlacompile ort /x'", "answers|MB"),
    ("exec yes >&2", "standard error"), ("while :; do printf xxxxxxxxxxxxxxxx; done", "MB|nothing")])
def test_a_shell_that_blocks_or_babbles_is_left(fresh, first, capsys, monkeypatch, shell, why):
    monkeypatch.setattr(ssh, "SILENT_S", 2.0)
    monkeypatch.setattr(ssh, "MOST_ERRORS", 1 << 20)
    monkeypatch.setattr("vlacompile.deploy.answers.MOST_BYTES", 1 << 20)
    fresh.sshd.commands_go_through(f"#!/bin/sh\n{shell}\n")
    began = time.monotonic()
    try:
        assert fresh.flash(first) == 12
    finally:
        fresh.sshd.commands_go_through(AS_IT_IS)
    err = capsys.readouterr().err
    assert "does not answer as a device does" in err and time.monotonic() - began < 60
    assert re.search(why, err), err


def test_what_is_believed_current_is_read_again(fresh, first, capsys):
    """A program that was cut short passes no self-test of its own: flashing again finds it, and repairs the slot."""
    assert fresh.flash(first) == 0
    slot = fresh.policy.joinpath("current").readlink().name
    library = fresh.policy / "current" / "bin" / "libvlart.so"
    whole = library.read_bytes()
    library.chmod(0o644)
    library.write_bytes(whole[:1000])
    store = {p.name: p.read_bytes() for p in (fresh.root / "store").iterdir()}
    assert whole in store.values()  # what damages a slot leaves the store whole
    capsys.readouterr()
    assert fresh.flash(first, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert not said["current"] and said["slot"] != slot and said["sent"] == 0
    assert (fresh.policy / "current" / "bin" / "libvlart.so").read_bytes() == whole
    assert boards.main(["flash", "--rollback", "board", "--ssh-config", str(fresh.sshd.config)]) == 12
    assert "is damaged" in capsys.readouterr().err and fresh.runs() == first.hash


def test_no_two_places_share_a_file(fresh, first, second):
    assert fresh.flash(first) == 0 and fresh.flash(second) == 0
    files = [p for p in fresh.root.rglob("*") if p.is_file() and not p.is_symlink()]
    assert len({p.stat().st_ino for p in files}) == len(files) > 20


def test_a_full_disk_at_the_switch_switches_nothing(fresh, first, second, capsys):
    """Or it is no failure: what takes space is done before."""
    assert fresh.flash(first) == 0
    for tool in ("ln", "tail", "cp", "comm"):  # before the switch, and after it
        shim = fresh.sshd.path / tool
        shim.write_text(f'#!/bin/sh\n[ "$STEP" != activate ] || {{ echo "No space left on device" >&2; exit 1; }}\n'
                        f'exec /usr/bin/{tool} "$@"\n')
        shim.chmod(0o755)
        try:
            before, code = fresh.runs(), fresh.flash(second if fresh.runs() == first.hash else first)
        finally:
            shim.unlink()
        assert (code == 0) == (fresh.runs() != before), tool
        assert code == 0 or "nothing was switched" in capsys.readouterr().err


def test_a_torn_history_is_read_as_far_as_it_is_whole(fresh, first, second, capsys):
    assert fresh.flash(first) == 0
    history = fresh.policy / "history"
    history.write_bytes(history.read_bytes() + b"\0" * 50 + b"2026-01-01T00:00:00Z flas")
    status = ["flash", "--status", "board", "--ssh-config", str(fresh.sshd.config), "--json"]
    capsys.readouterr()
    assert boards.main(status) == 0
    assert len(json.loads(capsys.readouterr().out)["policies"][0]["history"]) == 1
    assert fresh.flash(second) == 0
    capsys.readouterr()
    assert boards.main(status) == 0
    assert len(json.loads(capsys.readouterr().out)["policies"][0]["history"]) == 2
