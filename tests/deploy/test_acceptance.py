"""`vlacompile flash --acceptance` on doubles of NVIDIA's libraries, over ssh: what is measured, written and refused."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

import vlacompile as vc
from tests.deploy import board as boards
from tests.deploy import rehearsal
from tests.deploy.sshd import AS_IT_IS
from tests.deploy.stand_ins import executable
from tests.runtime_c.running import ort_path
from tests.samples import policies
from vlacompile.cli.main import main
from vlacompile.deploy.acceptance import read_measured
from vlacompile.profile.acceptance import compose
from vlacompile.profile.board_record import KINDS, kind_of
from vlacompile.profile.record_file import read_record
from vlart.bundle.directory import read_bundle
from vlart.errors import ConfigError

PASSES = ("--passes", "3")


@pytest.fixture(scope="module")
def nano(tmp_path_factory, every_stage):
    return vc.build(policies.late_fusion(), target="orin-nano-8gb", recipe=str(every_stage),
                    out=tmp_path_factory.mktemp("nano") / "nano.vlab")


@pytest.fixture
def on_double(fresh, nano, tmp_path):
    """Options of a flash to a device that has the doubles."""
    board = rehearsal.lay_out(fresh.sshd.home / "tensorrt", nano)
    yield ["--tensorrt", str(board.root), "--board", "orin-nano-8gb", "--runtime",
           str(rehearsal.programs(tmp_path / "programs", board.system)), *PASSES]
    shutil.rmtree(board.root)


def test_the_first_day_on_doubles(fresh, nano, on_double, tmp_path, capsys):
    """Engines built, self-test, times of every stage and replan, sensors, the board model beside: and it says what it
    is."""
    out = tmp_path / "record.json"
    assert fresh.flash(nano, *on_double, "--acceptance", str(out)) == 0
    said = capsys.readouterr()
    record = read_record(out)
    assert record.kind == "double" and record.label == KINDS["double"] and record.label in said.out
    assert {s.name for s in record.stages} == {s.name for s in nano.plan.stages}
    for s in record.stages:
        assert s.measured.count > 0 and s.modelled_ms > 0 and s.products and s.engine.bytes > 0
    golden = record.replans // 3
    assert record.same.count + record.new.count == record.replans == 3 * golden and record.new.count >= 3
    every = [s for s in record.stages if s.every]
    assert every and all(s.measured.count == record.replans for s in every), "an observation is new in every frame"
    assert all(s.measured.count < record.replans for s in record.stages if not s.every)
    assert record.sensors.gpu_mhz.median == 1008 and record.sensors.watts["VDD_IN"].median == 21
    assert record.sensors.most_celsius == 52.5 and record.built.golden == "passed"
    assert record.self_test.startswith("self-test passed") and record.modelled.target.startswith("orin-nano-8gb@25w")
    assert record.device.architecture == platform.machine() and "measure on the device" in said.err
    assert all(text not in out.read_text() for text in (str(tmp_path), str(fresh.sshd.home), platform.node()))
    assert all(len(line) <= 80 for line in said.out.splitlines() if not line.startswith("written: "))


def test_again_measures_alone_and_a_folder_has_a_place_for_it(fresh, nano, on_double, tmp_path, capsys):
    assert fresh.flash(nano, *on_double[:-2]) == 0
    (tmp_path / "boards").mkdir()
    capsys.readouterr()
    assert fresh.flash(nano, *on_double, "--acceptance", str(tmp_path / "boards"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["current"] and told["sent"] == 0 and told["acceptance"]["kind"] == "double"
    (path,) = (tmp_path / "boards" / "orin-nano-8gb").iterdir()
    assert told["record"] == str(path) and path.name.startswith(nano.hash[:16])


def test_a_processor_is_no_board(fresh, first, tmp_path, capsys):
    """A bundle for a processor is timed as well; what is known of boards says nothing about its error."""
    assert fresh.flash(first, "--acceptance", str(tmp_path / "r.json"), *PASSES) == 0
    record = read_record(tmp_path / "r.json")
    assert record.kind == "processor" and record.built is None and record.modelled.error_factor is None
    out = capsys.readouterr().out
    assert "no clocks, no rails" in out and "nine of ten" not in out and "not throttled" not in out


def test_a_measurement_that_fails_leaves_the_new_slot(fresh, first, tmp_path, capsys):
    """And no record; the same command repeats only what is missing."""
    broken = tmp_path / "programs"
    broken.mkdir()
    shutil.copy(boards.RUNTIME / "vlart-run", broken / "run")
    executable(broken / "vlart-run", f"""\
#!/bin/sh
case " $* " in *" --profile "*) echo "what:  the clock broke" >&2; exit 1 ;; esac
exec {broken}/run "$@"
""")
    out = tmp_path / "r.json"
    assert fresh.flash(first, "--runtime", str(broken), "--acceptance", str(out)) == 12
    err = capsys.readouterr().err
    assert "was not measured" in err and "the clock broke" in err and not out.exists()
    assert fresh.runs() == first.hash


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_workstation_that_goes_leaves_nothing_behind(fresh, first, tmp_path, how):
    """The measurement ends with it, its folder goes, and the new slot stays."""
    slow = tmp_path / "programs"
    slow.mkdir()
    shutil.copy(boards.RUNTIME / "vlart-run", slow / "run")
    executable(slow / "vlart-run", f"""\
#!/bin/sh
case " $* " in *" --profile "*) printf '%s %s\\n' $$ "$3" >"$HOME/at_work"; exec sleep 60 ;; esac
exec {slow}/run "$@"
""")
    process = fresh.flash_apart(first, "--runtime", str(slow), "--acceptance", str(tmp_path / "r.json"))
    at_work = fresh.sshd.home / "at_work"
    while not at_work.exists() or not at_work.read_text().endswith("\n"):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    pid, profile = at_work.read_text().split()
    at_work.unlink()
    process.send_signal(how)
    said = process.communicate(timeout=60)[0]
    if how == signal.SIGINT:
        assert process.returncode == 130 and "is current, and was not measured" in said, said
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() and not Path(profile).parent.exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists() and not Path(profile).parent.exists()
    assert not (tmp_path / "r.json").exists() and fresh.runs() == first.hash


@pytest.mark.parametrize("part", ["profile_part", "lock_part"])
def test_what_arrives_altered_is_refused(fresh, nano, on_double, tmp_path, capsys, part):
    through = AS_IT_IS.replace('exec sh -c "$SSH_ORIGINAL_COMMAND"', f"""\
if [ "$STEP" = measure ]; then
  sh -c "$SSH_ORIGINAL_COMMAND" | sed '0,/vlacompile {part} ./s//vlacompile {part} AAAA/'
else
  exec sh -c "$SSH_ORIGINAL_COMMAND"
fi""")
    fresh.sshd.commands_go_through(through)
    try:
        assert fresh.flash(nano, *on_double, "--acceptance", str(tmp_path / "r.json")) == 12
    finally:
        fresh.sshd.commands_go_through(AS_IT_IS)
    err = capsys.readouterr().err
    assert ("in part, or altered" in err or "no base64" in err) and not (tmp_path / "r.json").exists(), err


@pytest.mark.parametrize(("arguments", "what"), [
    (["x.vlab", "board", "--passes", "3"], "--passes without --acceptance"),
    (["x.vlab", "--measured", "a"], "--measured without --acceptance"),
    (["x.vlab", "--fleet", "f.toml", "--acceptance", "r.json"], "one bundle on one board"),
    (["--status", "board", "--acceptance", "r.json"], "one bundle on one board"),
    (["x.vlab", "board", "--acceptance", "r.json", "--measured", "a"], "has measured already")])
def test_what_makes_no_sense(arguments, what, capsys):
    assert main(["flash", *arguments]) == 2
    assert what in capsys.readouterr().err


def answers_of(bundle: Path, out: Path, *more: str) -> subprocess.CompletedProcess:
    """As `make board-acceptance` calls the script."""
    scripts = boards.ROOT / "vlacompile" / "deploy"
    script = "".join((scripts / f"{name}.sh").read_text() for name in ("signed", "acceptance", "device"))
    done = subprocess.run(["sh", "-c", script, "vlacompile", "on_board", "/", "none", str(boards.RUNTIME), str(bundle),
                           "2", "--ort", ort_path(), *more], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=60)
    out.write_text(done.stdout)
    return done


def test_a_board_that_measures_by_itself(first, second, tmp_path, capsys):
    """Without a workstation and without Python; what it wrote becomes the same record elsewhere."""
    done = answers_of(first.path, tmp_path / "answers")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "r.json"
    assert main(["flash", str(first.path), "--acceptance", str(out), "--measured", str(tmp_path / "answers")]) == 0
    assert read_record(out).kind == "processor" and "written: " in capsys.readouterr().out
    other = main(["flash", str(second.path), "--acceptance", str(out), "--measured", str(tmp_path / "answers")])
    assert other == 3 and "the times are of another bundle" in capsys.readouterr().err
    text = (tmp_path / "answers").read_text()
    for cut in (text[:len(text) // 2], text.replace("vlacompile tested", "vlacompile tasted"), "", "vlacompile arch"):
        (tmp_path / "cut").write_text(cut)
        with pytest.raises(ConfigError, match="what a board measured cannot be read"):
            read_measured(tmp_path / "cut")


def test_make_board_acceptance_on_doubles(nano, tmp_path, capsys):
    """As it is typed on a board, which has make, sh and gcc."""
    bundle = shutil.copytree(nano.path, tmp_path / "nano.vlab")
    libraries = rehearsal.lay_out(tmp_path / "tensorrt", nano)
    command = ["make", "board-acceptance", f"BUNDLE={bundle}", f"TENSORRT_LIBS={libraries.root}"]
    done = subprocess.run(command, cwd=boards.ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and "--measured nano-measured.txt" in done.stdout, done.stdout + done.stderr
    assert "vlacompile profile_part" not in done.stdout, "a person sees lines for a person"
    out = tmp_path / "r.json"
    assert main(["flash", str(nano.path), "--acceptance", str(out), "--measured",
                 str(tmp_path / "nano-measured.txt")]) == 0
    record = read_record(out)
    assert record.kind == "double" and record.replans == 50 * 10 and record.built.golden == "passed"
    assert capsys.readouterr().out.count(KINDS["double"]) == 1
    done = subprocess.run(command[:2], cwd=boards.ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and "which bundle?" in done.stderr


def test_a_bundle_that_fails_is_not_measured(first, tmp_path):
    done = answers_of(boards.lying(first, tmp_path / "lying.vlab").path, tmp_path / "answers")
    assert done.returncode == 70 and "vlacompile failed self_test" in done.stdout and "profile" not in done.stdout


def test_programs_of_another_processor_are_an_emulators(first, tmp_path):
    """Programs under user-mode emulation see another processor than the shell."""
    assert answers_of(first.path, tmp_path / "answers").returncode == 0
    measured = read_measured(tmp_path / "answers")
    record = compose(read_bundle(first.path), replace(measured, facts=measured.facts | {"arch": "riscv64"}))
    assert record.kind == "emulator" == kind_of(record)[0]
