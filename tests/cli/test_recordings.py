"""`run --record`, `replay`, `export` and `view`, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.samples import recorded_robot as robot
from vlart.recording.log import Log
from vlart.runtime.library import native_file, onnxruntime_library


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return robot.built(folder), robot.built(folder, gain=1.5)


@pytest.fixture(scope="module")
def recording(bundles, tmp_path_factory):
    from vlacompile.cli.main import main

    path = tmp_path_factory.mktemp("recordings") / "run.vlog"
    assert main(["run", str(bundles[0]), "--record", str(path), "--repeat", "2"]) == 0
    return path


def test_run_and_replay(cli, bundles, recording):
    code, out, _ = cli("replay", str(recording), str(bundles[0]))
    assert code == 0 and "equal to the bit" in out
    code, out, _ = cli("replay", str(recording), str(bundles[0]), "--json")
    document = json.loads(out)
    assert document["equal"] and document["steps"] >= document["chunks"] > 5 and document["parted"] is None


def test_another_bundle(cli, bundles, recording):
    code, _, err = cli("replay", str(recording), str(bundles[1]))
    assert code == 8 and "another bundle" in err and "--other-bundle" in err
    code, out, err = cli("replay", str(recording), str(bundles[1]), "--other-bundle", "--against", str(bundles[0]))
    assert code == 10 and 'stage "vision.wrist"' in err and "equal" not in out
    assert "is not what the first bundle has" in err and "--against" not in err
    code, out, _ = cli("replay", str(recording), str(bundles[1]), "--other-bundle", "--json")
    assert code == 10 and json.loads(out)["parted"]["step"] == 0


def test_a_recording_is_never_written_over(cli, bundles, recording):
    before = recording.read_bytes()
    code, _, err = cli("run", str(bundles[0]), "--record", str(recording))
    assert code == 9 and "never written over" in err and recording.read_bytes() == before
    code, _, err = cli("run", str(bundles[0]), "--record", f"{recording}.2", "--record-mib", "99999999")
    assert code == 3 and "to 1048576" in err and not Path(f"{recording}.2").exists()


def test_an_argument_that_is_empty(cli, bundles, recording):
    """As a variable of the shell that is not set."""
    for given in (("replay", "", ""), ("verify", ""), ("run", str(bundles[0]), "--record="),
                  ("export", str(recording), "--mcap", "")):
        code, _, err = cli(*given)
        assert code == 2 and "an argument is empty" in err and err.count("\n") == 4


def test_what_is_no_recording(cli, bundles, recording, tmp_path):
    assert cli("replay", str(bundles[0] / "plan.bin"), str(bundles[0]))[0] == 8
    assert cli("replay", str(tmp_path / "none"), str(bundles[0]))[0] == 8
    assert cli("export", str(recording))[0] == 2
    assert cli("replay", str(recording), str(tmp_path))[0] == 8


def test_export(cli, recording, tmp_path):
    pytest.importorskip("mcap", reason="pip install 'vlacompile[recordings]'")
    pytest.importorskip("PIL", reason="pip install 'vlacompile[recordings]'")
    code, out, _ = cli("export", str(recording), "--mcap", str(tmp_path / "run.mcap"))
    assert code == 0 and (tmp_path / "run.mcap").read_bytes()[:5] == b"\x89MCAP" and "run.mcap" in out


def test_an_export_writes_over_nothing_that_is_not_its_own(cli, recording, tmp_path):
    pytest.importorskip("mcap", reason="pip install 'vlacompile[recordings]'")
    pytest.importorskip("PIL", reason="pip install 'vlacompile[recordings]'")
    before, beside = recording.read_bytes(), f"{recording.parent}/../{recording.parent.name}/{recording.name}"
    for wrong in (["--mcap", str(recording)], ["--rerun", beside], ["--lerobot", str(recording)]):
        code, _, err = cli("export", str(recording), *wrong)
        assert code == 3 and f"{wrong[0]} would write over the recording" in err and recording.read_bytes() == before
    code, _, err = cli("export", str(recording), "--mcap", str(tmp_path / "x"), "--rerun", str(tmp_path / "x"))
    assert code == 3 and "what --mcap writes" in err and not (tmp_path / "x").exists()
    (tmp_path / "device").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    for place, why in (("device", "it is no file"), ("pipe", "it is no file"), (".", "it is a directory")):
        code, _, err = cli("export", str(recording), "--mcap", str(tmp_path / place))
        assert code == 3 and why in err and Path("/dev/null").is_char_device()


def test_what_a_missing_package_says(recording, tmp_path):
    """Without mcap, whether it is here or not."""
    program = ("import sys; sys.modules['mcap'] = None\nfrom vlacompile.cli.main import main\n"
               f"sys.exit(main(['export', {str(recording)!r}, '--mcap', {str(tmp_path / 'x')!r}]))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "vlacompile[recordings]" in done.stderr and not (tmp_path / "x").exists()


def test_view_without_a_display(cli, recording, bundles, monkeypatch, tmp_path):
    code, _, err = cli("view", str(bundles[0]), "--save", str(tmp_path / "run.rrd"))
    assert code == 2 and "vlacompile report" in err
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, _, err = cli("view", str(recording))
    assert code == 3 and ("--save" in err or "vlacompile[rerun]" in err)
    pytest.importorskip("rerun", reason="pip install 'vlacompile[rerun]'")
    code, out, _ = cli("view", str(recording), "--save", str(tmp_path / "run.rrd"))
    assert code == 0 and (tmp_path / "run.rrd").stat().st_size > 1000 and "open it with" in out


def test_vlart_run_records_the_same(bundles, tmp_path, cli):
    path = tmp_path / "c.vlog"
    command = [native_file("vlart-run"), bundles[0], "--ort", onnxruntime_library(), "--record", path, "--record-mib",
               "1"]
    subprocess.run(command, check=True, capture_output=True)
    assert Log(path).info.events > 10
    assert cli("replay", str(path), str(bundles[0]))[0] == 0
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "never written over" in done.stderr
