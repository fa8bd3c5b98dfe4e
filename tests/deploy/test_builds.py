"""Engines that are built on the device: cut, killed, failing."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.deploy import board as boards
from tests.deploy.sshd import AS_IT_IS
from tests.deploy.stand_ins import VLART_BUILD, VLART_RUN, executable


@pytest.fixture
def stand_ins(tmp_path):
    folder = tmp_path / "runtime"
    folder.mkdir()
    executable(folder / "vlart-run", VLART_RUN)
    executable(folder / "vlart-build", VLART_BUILD)
    return folder


@pytest.fixture
def nano(late_fusion_bundle, tmp_path):
    return boards.for_target(late_fusion_bundle, tmp_path / "nano.vlab", "orin-nano-8gb@25w+jetpack-6.2", "tensorrt")


def test_engines_are_built_on_the_device_and_a_cut_build_goes_on(fresh, nano, stand_ins, capsys):
    options = ["--runtime", str(stand_ins), "--board", "orin-nano-8gb"]
    (fresh.sshd.home / "slow").touch()
    process = fresh.flash_apart(nano, *options)
    while not (fresh.sshd.home / "pid").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    builder = int((fresh.sshd.home / "pid").read_text())
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for _ in range(100):  # it ends with the workstation
        if not Path(f"/proc/{builder}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{builder}").exists()
    assert not (fresh.policy / "current").exists()
    (fresh.sshd.home / "slow").unlink()
    assert fresh.flash(nano, *options) == 0
    err = capsys.readouterr().err
    assert "build fusion kept" in err and "build vision building" in err
    assert (fresh.policy / "current" / "bundle.vlab" / "engines" / "vision.plan").read_text() == "vision\n"


@pytest.mark.parametrize("fault", ["the connection", "vlart-build"])
def test_a_kill_on_the_device_while_engines_are_built(fresh, nano, stand_ins, capsys, fault):
    """Nothing becomes current, no builder stays behind, and the same command goes on with the engines that were
    done."""
    options = ["--runtime", str(stand_ins), "--board", "orin-nano-8gb"]
    if fault == "the connection":
        (fresh.sshd.home / "slow").touch()
        cut = '[ "$STEP" != build ] || { (sleep 1; kill -9 $PPID) & }\nexec sh'
        fresh.sshd.commands_go_through(AS_IT_IS.replace("exec sh", cut))
    else:
        executable(stand_ins / "vlart-build", VLART_BUILD.replace("; exec sleep 60", "; kill -9 $$"))
        (fresh.sshd.home / "slow").touch()
    try:
        assert fresh.flash(nano, *options) == 12
    finally:
        fresh.sshd.commands_go_through(AS_IT_IS)
    err = capsys.readouterr().err
    assert ("was lost" if fault == "the connection" else "the engines were not built") in err and "fix:" in err, err
    builder = int((fresh.sshd.home / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{builder}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{builder}").exists() and not (fresh.policy / "current").exists()
    (fresh.sshd.home / "slow").unlink()
    assert fresh.flash(nano, *options) == 0
    assert "build fusion kept" in capsys.readouterr().err
    assert (fresh.policy / "current" / "bundle.vlab" / "engines" / "vision.plan").read_text() == "vision\n"


def test_engines_cannot_be_built_without_vlart_build(fresh, nano, stand_ins, capsys):
    (stand_ins / "vlart-build").unlink()
    assert fresh.flash(nano, "--runtime", str(stand_ins), "--board", "orin-nano-8gb") == 12
    assert "there is no vlart-build for board" in capsys.readouterr().err and not fresh.policy.exists()


def test_a_build_that_fails(fresh, nano, stand_ins, capsys):
    executable(stand_ins / "vlart-build", "#!/bin/sh\necho 'what:  node 7 is not supported' >&2\nexit 1\n")
    assert fresh.flash(nano, "--runtime", str(stand_ins), "--board", "orin-nano-8gb") == 12
    err = capsys.readouterr().err
    assert "the engines were not built on board" in err and "node 7 is not supported" in err
    assert not (fresh.policy / "current").exists()
