"""`vlacompile flash`: what it sends, what it refuses, what it says; rollback, status, fleets, units and builds."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

import vlacompile as vc
from tests.deploy import board as boards
from tests.deploy.sshd import AS_IT_IS
from tests.deploy.stand_ins import aarch64, answering, executable
from tests.samples import policies
from vlacompile.deploy.device import check_board, device_of
from vlacompile.deploy.flash import Options, connect
from vlacompile.deploy.payload import engine_for, pieces_of
from vlart.errors import BundleError, DeployError
from vlart.runtime.library import tvm_libraries


def test_only_what_changed_travels(fresh, first, second, capsys):
    told = []
    for bundle in (first, second, second, first):
        assert fresh.flash(bundle, "--json") == 0
        told.append(json.loads(capsys.readouterr().out))
    assert [t["slot"] for t in told] == ["a", "b", "b",
                                         "a"] and [t["current"] for t in told] == [False, False, True, False]
    assert told[0]["sent"] == told[0]["bytes"]
    changed = sum(f["bytes"] for p, f in second.manifest["files"].items() if f != first.manifest["files"][p])
    assert changed <= told[1]["sent"] < changed + 10_000  # and the manifest
    assert told[2]["sent"] == told[3]["sent"] == 0
    assert told[0]["said"].startswith("self-test passed") and fresh.runs() == first.hash


def test_rollback_and_status(fresh, first, second, capsys):
    general = ["--ssh-config", str(fresh.sshd.config)]
    assert boards.main(["flash", "--status", "board", *general]) == 0
    assert "no policy is installed" in capsys.readouterr().out
    assert not fresh.root.exists(), "a question changes nothing"
    assert fresh.flash(first) == 0
    assert boards.main(["flash", "--rollback", "board", *general]) == 12
    assert "no slot to roll back to" in capsys.readouterr().err
    assert fresh.flash(second) == 0
    assert boards.main(["flash", "--rollback", "board", *general]) == 0
    assert "slot a is current again" in capsys.readouterr().out and fresh.runs() == first.hash
    assert boards.main(["flash", "--rollback", "board", "another", *general]) == 12
    assert "no such policy: another (late_fusion )" in capsys.readouterr().err
    assert boards.main(["flash", "--status", "board", "--json", *general]) == 0
    (policy,) = json.loads(capsys.readouterr().out)["policies"]
    assert policy["name"] == "late_fusion" and [s["current"] for s in policy["slots"]] == [True, False]
    assert [line.split(" ")[1] for line in policy["history"]] == ["flashed", "flashed", "rolled-back"]
    assert boards.main(["flash", "--status", "board", *general]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_slot_that_no_longer_passes_is_not_gone_back_to(fresh, first, second, capsys):
    assert fresh.flash(first) == 0 and fresh.flash(second) == 0
    stage = next((fresh.policy / "slots" / "a" / "bundle.vlab" / "stages").glob("*.onnx"))
    data = bytearray(stage.read_bytes())
    data[40] ^= 0xFF
    stage.unlink()
    stage.write_bytes(data)
    assert boards.main(["flash", "--rollback", "board", "--ssh-config", str(fresh.sshd.config)]) == 12
    assert "still runs slot b" in capsys.readouterr().err and fresh.runs() == second.hash


def test_the_store_keeps_what_slots_and_the_last_bundles_use(fresh, first, second, tmp_path):
    third = boards.variant(first, tmp_path / "third.vlab", 3)
    for bundle in (first, second, third):
        assert fresh.flash(bundle) == 0
    ballast = {p.name for p in (fresh.root / "store").iterdir() if p.stat().st_size == boards.BALLAST}
    assert ballast == {b.manifest["files"]["stages/ballast.bin"]["sha256"] for b in (second, third)}
    assert fresh.flash(first, "--keep", "3") == 0
    ballast = {p.name for p in (fresh.root / "store").iterdir() if p.stat().st_size == boards.BALLAST}
    assert len(ballast) == 3


def test_progress_and_result_fit_80_columns(fresh, first, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert fresh.flash(first) == 0
    out, err = capsys.readouterr()
    assert max(map(len, (out + err).splitlines())) <= 80
    for phase in ("connect to board", "probe the device", "send ", "fill the idle slot", "self-test of slot a",
                  "switch to slot a"):
        assert phase in err
    assert "slot a is now current; the first install" in out


def test_another_host_key(fresh, first, capsys):
    known = fresh.sshd.folder / "known_hosts"
    text = known.read_text()
    try:
        known.write_text(text.split(" ")[0] + " " + (fresh.sshd.folder / "user_key.pub").read_text())
        assert fresh.flash(first) == 12
        assert "the host key of board has changed" in capsys.readouterr().err
        known.write_text("")
        assert fresh.flash(first) == 12
        assert "the host key of board is not known" in capsys.readouterr().err
        assert known.read_text() == "", "no key is accepted on its own"
    finally:
        known.write_text(text)
    assert not fresh.root.exists()


def test_a_key_that_the_device_does_not_take(fresh, first, capsys):
    keys = fresh.sshd.folder / "authorized_keys"
    text = keys.read_text()
    try:
        keys.write_text("")
        assert fresh.flash(first) == 12
    finally:
        keys.write_text(text)
    err = capsys.readouterr().err
    assert "board refuses the log-in" in err and "ssh-copy-id board" in err


def test_a_host_that_is_off_and_one_that_is_none(fresh, first, capsys):
    for host, what in (("board-off", "board-off cannot be reached"),
                       ("no.such.host.invalid", "cannot be resolved"),
                       ("-oProxyCommand=x", None)):
        argv = [*fresh.argv(first)[:2], *(["--"] if what is None else []), host]
        code = boards.main([*argv[:1], "--ssh-config", str(fresh.sshd.config), *argv[1:]])
        err = capsys.readouterr().err
        assert code == (12 if what else 3) and (what or "is not a host") in err, err


def test_a_host_that_runs_something_else(fresh, first, capsys):
    fresh.sshd.commands_go_through("#!/bin/sh\necho welcome\n")
    try:
        assert fresh.flash(first) == 12
    finally:
        fresh.sshd.commands_go_through(AS_IT_IS)
    err = capsys.readouterr().err
    assert "board does not run the command that it is given" in err and "welcome" in err


def test_a_folder_that_cannot_be_written(fresh, first, capsys):
    (fresh.sshd.home / "plain").write_text("a file")
    assert fresh.flash(first, "--root", "~/plain/store") == 12
    assert "cannot be written on board" in capsys.readouterr().err


def test_onnxruntime_that_is_not_there(fresh, first, capsys):
    assert fresh.flash(first, "--ort", "/nowhere/libonnxruntime.so") == 12
    err = capsys.readouterr().err
    assert "ONNX Runtime's library is not on board" in err and "/nowhere/libonnxruntime.so" in err


@pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="pip install 'vlacompile[tvm]'")
def test_stages_of_tvm_find_its_libraries(fresh, tmp_path, capsys):
    recipe, libraries = tmp_path / "tvm.toml", tmp_path / "libraries"
    recipe.write_text(policies.EVERY_STAGE.replace("[stages]\n", '[stages]\ntvm = ["state"]\n'), encoding="utf-8")
    bundle = vc.build(policies.late_fusion(), recipe=str(recipe), out=tmp_path / "b.vlab")
    assert fresh.flash(bundle, "--native-code") == 12
    assert "TVM's runtime cannot be loaded" in capsys.readouterr().err and not (fresh.policy / "current").exists()
    libraries.mkdir()
    for path in tvm_libraries().values():
        (libraries / path.name).symlink_to(path)
    assert fresh.flash(bundle, "--native-code", "--tvm", str(libraries), "--json") == 0
    assert json.loads(capsys.readouterr().out)["said"].startswith("self-test passed")
    arguments = (fresh.policy / "current" / "arguments").read_text().split()
    assert arguments[arguments.index("--tvm") + 1] == f"{libraries}/libtvm_runtime.so" and "--tvm-cuda" not in arguments


def test_the_engine_travels_with_the_programs(fresh, first, second, capsys):
    """The device has none: the library of this machine arrives, by its hash, and the self-test runs on it."""
    library = Path(fresh.ort)
    assert fresh.flash(first, boards.TRAVELS, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sent"] == told["bytes"] > library.stat().st_size
    slot = fresh.policy / "current"
    arrived = slot / "bin" / library.name
    assert arrived.read_bytes() == library.read_bytes() and arrived.stat().st_mode & 0o777 == 0o444
    assert (slot / "arguments").read_text() == f"--ort\n@slot/bin/{library.name}\n"
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    assert f"{digest} 444 bin/{library.name}\n" in (slot / "files").read_text()
    assert fresh.flash(second, boards.TRAVELS, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sent"] < boards.BALLAST + 100_000, "it is not sent twice"
    assert boards.main(["flash", "--rollback", "board", "--ssh-config", str(fresh.sshd.config)]) == 0
    assert fresh.runs() == first.hash


def test_an_engine_that_is_none_is_never_current(fresh, first, tmp_path, capsys):
    """A library of this processor that is not ONNX Runtime: the self-test on the device refuses it."""
    assert fresh.flash(first, boards.TRAVELS) == 0
    fake = shutil.copy(boards.RUNTIME / "libvlart.so", tmp_path / "libonnxruntime.so.9")
    capsys.readouterr()
    assert fresh.flash(first, "--ort-library", str(fake)) == 12
    assert "the self-test failed on board" in capsys.readouterr().err and fresh.runs() == first.hash
    assert fresh.flash(first, "--ort-library", str(tmp_path / "none")) == 12
    err = capsys.readouterr().err
    assert "no ONNX Runtime for board at the given path" in err and "pip download" in err


def test_the_engine_for_another_processor(fresh, first, tmp_path, capsys):
    """Where there is none for it, neither there nor here: what to do. Where build/ has one: that one, and no
    other's."""
    programs = aarch64(tmp_path / "aarch64" / "runtime_c" / "vlart-run").parent
    shim = answering(fresh, "aarch64")
    try:
        assert fresh.flash(first, boards.TRAVELS, "--runtime", str(programs)) == 12
        err = " ".join(capsys.readouterr().err.split())
        assert "is neither on board nor on this machine for aarch64" in err
        assert "--platform manylinux_2_28_aarch64 onnxruntime==" in err
        assert fresh.flash(first, "--ort-library", fresh.ort, "--runtime", str(programs)) == 12
        assert "is for x86_64, board is aarch64" in capsys.readouterr().err
        assert not fresh.policy.exists()
    finally:
        shim.unlink()
    library = aarch64(tmp_path / "aarch64" / "onnxruntime-1.2.3" / "libonnxruntime.so.1.2.3")
    found = engine_for("aarch64", None, programs, "board")
    assert found.source == library and found.path == "bin/libonnxruntime.so.1.2.3" and found.mode == "444"


def test_an_engine_that_the_device_has_is_used_where_none_is_here(fresh, first, tmp_path, monkeypatch, capsys):
    from vlacompile.deploy import payload

    monkeypatch.setattr(payload, "engine_here", lambda arch, folder: None)
    place = fresh.root / "lib" / Path(fresh.ort).name
    place.parent.mkdir(parents=True)
    place.symlink_to(fresh.ort)
    assert fresh.flash(first, boards.TRAVELS) == 0
    assert (fresh.policy / "current" / "arguments").read_text() == f"--ort\n{place}\n"
    assert not list((fresh.policy / "current" / "bin").glob("libonnxruntime*"))


def test_a_program_that_misses_a_library(fresh, first, tmp_path, capsys):
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    executable(runtime / "vlart-run",
               "#!/bin/sh\necho 'error while loading shared libraries: libodd.so.3' >&2\nexit 127\n")
    assert fresh.flash(first, "--runtime", str(runtime)) == 12
    err = capsys.readouterr().err
    assert "vlart-run does not start on board" in err and "libodd.so.3" in err
    assert not (fresh.policy / "current").exists()


def test_a_runtime_for_another_processor(fresh, first, tmp_path, capsys):
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    elf = bytearray((boards.RUNTIME / "vlart-run").read_bytes()[:64])
    elf[18:20] = (243).to_bytes(2, "little")  # RISC-V
    (runtime / "vlart-run").write_bytes(elf)
    assert fresh.flash(first, "--runtime", str(runtime)) == 12
    assert "vlart-run is for machine 243, board is" in capsys.readouterr().err


def test_a_bundle_for_another_board(fresh, late_fusion_bundle, tmp_path, capsys):
    bundle = boards.for_target(late_fusion_bundle, tmp_path / "nano.vlab", "orin-nano-8gb@25w+jetpack-6.2")
    assert fresh.flash(bundle) == 12
    assert "the bundle is for orin-nano-8gb, board is a machine with" in capsys.readouterr().err
    assert fresh.flash(bundle, "--board", "orin-nx-16gb") == 12
    assert "the bundle is for orin-nano-8gb, board is orin-nx-16gb" in capsys.readouterr().err
    assert not fresh.policy.exists()
    assert fresh.flash(bundle, "--board", "orin-nano-8gb") == 0


def test_a_bundle_for_a_computer_is_flashed_like_one_for_its_processor(fresh, late_fusion_bundle, tmp_path):
    """Over ssh, tested there and made current: the same path as a Jetson's, without TensorRT."""
    name = {"x86_64": "nuc", "aarch64": "raspberry-pi-5"}[platform.machine()]
    assert fresh.flash(boards.for_target(late_fusion_bundle, tmp_path / "computer.vlab", name)) == 0
    assert (fresh.policy / "current" / "bundle.vlab" / "plan.bin").is_file()


def probed(compatible: str = "", l4t: str = "", board: str | None = None):
    return device_of("arm", [("arch", "aarch64"), ("root", "/r"), ("free_kib", "  1000"), ("compatible", compatible),
                             ("l4t", l4t)], board)


def test_boards_and_jetpacks_are_told_apart():
    line = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ..."
    nano = probed("nvidia,p3768-0000+p3767-0005-super nvidia,p3767-0005 nvidia,tegra234 ", line)
    assert (nano.board, nano.l4t, nano.jetpack) == ("orin-nano-8gb", "36.4.3", "jetpack-6.2")
    for target in ("host", "host-aarch64", "orin-nano-8gb@15w+jetpack-6.2", "orin-nano-8gb@25w+jetpack-6.2"):
        check_board(nano, target)
    with pytest.raises(DeployError, match="is for orin-nx-8gb, arm is orin-nano-8gb, L4T 36.4.3"):
        check_board(nano, "orin-nx-8gb@15w+jetpack-6.2")
    with pytest.raises(DeployError, match=r"is for jetpack-7.2, arm has L4T 36.4.3 \(jetpack-6.2\)"):
        check_board(nano, "orin-nano-8gb@25w+jetpack-7.2")
    with pytest.raises(DeployError, match="is for host-x86_64"):
        check_board(nano, "host-x86_64")
    assert probed("nvidia,p3767-0003").board == "orin-nano-8gb" and probed().board is None
    assert probed("nvidia,p3971-0089+p3834-0008 nvidia,p3834-0008 nvidia,tegra264").board == "jetson-thor"
    assert probed(board="my-board").board == "my-board"


def test_a_bundle_for_a_processor_goes_to_any_computer_with_it():
    """A Raspberry Pi's goes where an aarch64 bundle goes, a Jetson too; a NUC's does not, and says what does."""
    pi = probed("raspberrypi,5-model-b brcm,bcm2712")
    for target in ("raspberry-pi-5", "host-aarch64", "host"):
        check_board(pi, target)
    with pytest.raises(DeployError, match="is for nuc, arm is aarch64") as caught:
        check_board(pi, "nuc")
    assert caught.value.fix == "build it with --target host-aarch64"
    with pytest.raises(DeployError, match="is for rtx-4090, arm is a machine with aarch64"):
        check_board(pi, "rtx-4090@boost+tensorrt-10.16")


def test_every_module_is_a_target():
    from vlacompile.deploy.device import JETPACKS, MODULES
    from vlacompile.files.toml import shipped

    assert set(MODULES.values()) <= set(shipped("targets"))
    assert set(JETPACKS.values()) <= set(shipped("targets/software"))


def test_names_that_would_leave_the_slot(late_fusion_bundle):
    from dataclasses import replace

    for name in ("../stages/x.onnx", "stages/a b.onnx", "/etc/passwd"):
        manifest = late_fusion_bundle.manifest | {"files": {name: {"bytes": 1, "sha256": "0" * 64}}}
        with pytest.raises(BundleError, match="is refused"):
            pieces_of(replace(late_fusion_bundle, manifest=manifest))
    with pytest.raises(BundleError, match="cannot be a folder"):
        pieces_of(replace(late_fusion_bundle, plan=replace(late_fusion_bundle.plan, name="../x")))


def test_a_damaged_bundle_does_not_leave(fresh, first, tmp_path, capsys):
    damaged = Path(shutil.copytree(first.path, tmp_path / "damaged.vlab"))
    (damaged / "stages" / "ballast.bin").write_bytes(b"x")
    assert fresh.flash(damaged) == 8
    assert "stages/ballast.bin was altered" in capsys.readouterr().err and not fresh.root.exists()


@pytest.mark.parametrize("argv", [[], ["b.vlab"], ["b.vlab", "h", "--fleet", "f.toml"], ["b.vlab", "--status", "h"],
                                  ["--status", "h", "--rollback", "h"], ["--rollback", "h", "p", "q"]])
def test_usage(argv, capsys):
    assert boards.main(["flash", *argv]) == 2
    assert "vlacompile flash --help" in capsys.readouterr().err


def test_a_fleet_of_which_one_is_off(fresh, first, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[host]]\nname = "board"\n[[host]]\nname = "board-off"\n[[host]]\nname = "board-two"\n'
                     f'root = "{fresh.sshd.folder}/two"\n')
    assert fresh.flash(first, "--fleet", str(fleet)) == 12
    out, err = capsys.readouterr()
    assert out.count("FAILED") == 1
    assert "1 of 3 hosts were not flashed" in err and out.count("now current") == 2
    assert max(map(len, out.splitlines())) <= 80
    assert fresh.runs() == first.hash
    assert (fresh.sshd.folder / "two" / "policies" / "late_fusion" / "current" / "passed").is_file()
    assert fresh.flash(first, "--fleet", str(fleet), "--json") == 12
    document = json.loads(capsys.readouterr().out)
    assert document["hosts"]["board"]["current"] and document["hosts"]["board-off"]["error"] == "DeployError"
    assert document["error"] == "DeployError" and document["step"] == "fleet"


@pytest.mark.parametrize("text,what", [("", "names no host"), ("[[host]]\nname = 1\n", "wrong type"),
                                       ('[[host]]\nname = "a"\nrot = "/x"\n', 'unknown key "host.rot"'),
                                       ("[[host]", "cannot be read"),
                                       ('[[host]]\nname = "a"\n[[host]]\nname = "a"\n', "names a host twice")])
def test_a_fleet_file_that_is_wrong(first, tmp_path, capsys, text, what):
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(text)
    assert boards.main(["flash", str(first.path), "--fleet", str(fleet)]) == 3
    assert what in capsys.readouterr().err


def test_a_unit(fresh, first, capsys):
    """With stand-ins for systemctl and loginctl: what is written, and what is said of when it starts."""
    loginctl = executable(fresh.sshd.path / "loginctl", "#!/bin/sh\nexit 1\n")
    systemctl = executable(fresh.sshd.path / "systemctl", '#!/bin/sh\necho "$@" >>"$HOME/systemctl.log"\n')
    try:
        assert fresh.flash(first, "--unit") == 0
        unit = fresh.sshd.home / ".config" / "systemd" / "user" / "vlacompile-late_fusion.service"
        text = unit.read_text()
        current = fresh.policy / "current"
        assert (f'ExecStart="{current}/bin/vlart-run" "{current}/bundle.vlab" --self-test "--ort" "{fresh.ort}"\n'
                in text)
        assert "it starts at the first log-in" in capsys.readouterr().out
        if shutil.which("systemd-analyze"):  # systemd's own reading of it
            (fresh.sshd.home / "run").mkdir()
            read = subprocess.run(["systemd-analyze", "--user", "verify", unit], capture_output=True,
                                  text=True, timeout=60,
                                  env={**os.environ, "XDG_RUNTIME_DIR": str(fresh.sshd.home / "run")}, check=False)
            assert read.returncode == 0 and unit.name not in read.stderr, read.stderr
        executable(loginctl, '#!/bin/sh\necho "$@" >>"$HOME/loginctl.log"\n')
        assert fresh.flash(first, boards.TRAVELS, "--unit") == 0
        assert "log-in" not in capsys.readouterr().out
        assert (fresh.sshd.home / "loginctl.log").read_text() == "--no-ask-password enable-linger\n"
        text = unit.read_text()
        assert f'--self-test "--ort" "{current}/bin/{Path(fresh.ort).name}"\n' in text and "@slot" not in text
        assert "restart vlacompile-late_fusion.service" in (fresh.sshd.home / "systemctl.log").read_text()
        executable(systemctl, "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
        capsys.readouterr()
        assert fresh.flash(first, "--unit") == 12
        err = capsys.readouterr().err
        assert "refuses the unit" in err and "Failed to connect to bus" in err
        assert "the new slot is current" in err
    finally:
        systemctl.unlink()
        loginctl.unlink()
    assert fresh.runs() == first.hash


@pytest.mark.parametrize("given, written", [("/a b", '"/a b"'), ('/50%h "$x" \\n', '"/50%%h \\"$$x\\" \\\\n"')])
def test_words_of_a_unit_mean_themselves(given, written):
    """To systemd, % and $ and quotes in a path would be something else."""
    functions = re.search(r"^word\(\).*?(?=^\n)", files("vlacompile.deploy").joinpath("device.sh").read_text(),
                          re.MULTILINE | re.DOTALL)
    done = subprocess.run(["sh", "-c", functions[0] + 'argument "$1"', "sh", given], capture_output=True, text=True,
                          timeout=20, check=False)
    assert done.stdout == written


def test_a_connection_leaves_nothing_here(fresh):
    with connect("board", Options(config=fresh.sshd.config)) as connection:
        folder = Path(connection.folder)
        assert (folder / "s").exists()
        assert connection.run("probe", "")
    assert not folder.exists()
    with pytest.raises(DeployError, match="was lost"):
        connection.run("probe", "")
