"""Every way to be wrong: the exit code of its class and four lines that say what, where, why and the fix."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from pathlib import Path

import pytest

from vlacompile.cli import targets
from vlacompile.cli.main import main
from vlart.bundle.format import layout
from vlart.errors import ParityError

TINY = "tests.samples.cli_policies:tiny"
FOUR_LINES = re.compile(r"error: (?P<what>.+)\n  where: (?P<where>.+)\n  why:   (?P<why>.+)\n  fix:   (?P<fix>.+)\n\Z")


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture
def fails(capsys):
    """fails(code, *argv) -> {what, where, why, fix}; checks both the text and the JSON form."""

    def call(code: int, *argv) -> dict[str, str]:
        words = [str(a) for a in argv]
        assert main(words) == code
        _out, err = capsys.readouterr()
        found = FOUR_LINES.search(err)
        assert found, err
        assert main([*words, "--json"]) == code
        document = json.loads(capsys.readouterr().out)
        assert {k: " ".join(document[k].split()) for k in found.groupdict()} == found.groupdict()
        assert document["error"]
        return found.groupdict()

    return call


@pytest.fixture
def damaged(late_fusion_bundle, tmp_path) -> Path:
    """A copy of a good bundle, to be damaged."""
    return Path(shutil.copytree(late_fusion_bundle.path, tmp_path / "damaged.vlab"))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


# Wrong usage: 2

@pytest.mark.parametrize("argv,what,why", [
    (["biuld", "x"], 'no verb is called "biuld"', 'did you mean "build"?'),
    (["build", TINY, "--taget", "host"], 'unknown argument "--taget"', 'did you mean "--target"?'),
    (["inspect"], "BUNDLE", "usage: vlacompile inspect"),
    (["run", "x.vlab", "--repeat", "0"], '"0" is not a whole number of at least 1', "usage:"),
    (["verify", "x.vlab", "y.vlab"], 'unknown argument "y.vlab"', "one argument too many"),
])
def test_usage(fails, argv, what, why):
    lines = fails(2, *argv)
    assert what in lines["what"] and why in lines["why"] and "--help" in lines["fix"]


# Targets and recipes: 3

def test_unknown_target_suggests_the_nearest(fails):
    lines = fails(3, "build", TINY, "--target", "hots")
    assert lines["what"] == 'no target is called "hots"' and lines["why"] == 'did you mean "host"?'
    assert "vlacompile targets" in lines["fix"]


def test_unknown_recipe_key(fails, tmp_path):
    (tmp_path / "mine.toml").write_text('name = "mine"\ndescription = ""\n[verify]\nframez = 4\n')
    lines = fails(3, "build", TINY, "--recipe", "mine.toml")
    assert lines["what"] == 'unknown key "verify.framez"' and lines["why"] == 'did you mean "frames"?'
    assert lines["where"] == "mine.toml"


def test_recipe_that_is_no_toml(fails, tmp_path):
    (tmp_path / "mine.toml").write_text("name = \n")
    assert "line 1" in fails(3, "recipes", "mine.toml")["why"]


# The policy source: 4

def test_foreign_checkpoint(fails, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"type": "another_family"}')
    lines = fails(4, "build", "model")
    assert '"another_family"' in lines["what"] and lines["where"] == "model/config.json"


def test_directory_without_a_checkpoint(fails, tmp_path):
    (tmp_path / "model").mkdir()
    assert "config.json" in fails(4, "build", "model")["why"]


def test_missing_module(fails):
    assert "no_such_module" in fails(4, "build", "no_such_module:make")["why"]


def test_missing_factory(fails):
    assert "no_such_factory" in fails(4, "build", "tests.samples.cli_policies:no_such_factory")["why"]


def test_factory_that_returns_another_thing(fails):
    lines = fails(4, "build", "tests.samples.cli_policies:module_itself")
    assert "returned a Tiny" in lines["why"] and "vlacompile.Policy" in lines["fix"]


def test_factory_that_fails(fails):
    assert lines_of(fails(4, "build",
                          "tests.samples.cli_policies:failing")) >= {"FileNotFoundError: weights.safetensors"}


def lines_of(found: dict[str, str]) -> set[str]:
    return set(found.values())


# Tracing ends with 5.

def test_data_dependent_control_flow_names_the_line(fails, tmp_path):
    lines = fails(5, "build", "tests.samples.cli_policies:branching", "-o", "out.vlab")
    assert set(lines) == {"what", "where", "why", "fix"}, "and no graph of the exporter's"
    assert re.search(r"cli_policies\.py:\d+: if state\.sum\(\) > 0", lines["where"])
    assert not list(tmp_path.iterdir())


# Bundles: 8, and the runtime: 9

@pytest.mark.parametrize("verb", ["inspect", "verify", "run"])
def test_no_bundle(fails, verb, tmp_path):
    assert fails(8, verb, "no.vlab")["where"].startswith("no.vlab")


@pytest.mark.parametrize("verb", ["inspect", "verify", "run", "serve"])
def test_a_checkpoint_is_to_be_built_first(fails, verb, tmp_path):
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text('{"type": "act"}', encoding="utf-8")
    found = fails(8, verb, folder)
    assert found["what"] == "my model is a checkpoint, not a bundle"
    assert found["fix"] == f"build it first: vlacompile build '{folder}'"


def test_an_error_is_folded_on_a_terminal(capsys, monkeypatch, tmp_path):
    """At 80 columns, with each field's lines under one another; what is longer than a line, as a path, stays whole."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / ("a" * 90)
    folder.mkdir()
    (folder / "config.json").write_text('{"type": "act"}', encoding="utf-8")
    assert main(["inspect", str(folder)]) == 8
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err).splitlines()
    heads = [line[:9] for line in lines if line[:3] != " " * 3]
    assert heads == ["error: aa", "  where: ", "  why:   ", "  fix:   "]
    assert len(lines) > 4 and all(len(line) <= 80 for line in lines if "a" * 90 not in line)
    assert str(folder) in lines[-1] and lines[-1].startswith(" " * 9)


@pytest.mark.parametrize("verb", ["inspect", "verify", "run"])
def test_truncated_plan(fails, damaged, verb):
    plan = damaged / "plan.bin"
    plan.write_bytes(plan.read_bytes()[:-100])
    assert "bytes" in fails(8, verb, damaged)["why"]


def test_truncated_weights(fails, damaged):
    weights = damaged / "stages" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert fails(8, "verify", damaged)["what"] == "stages/weights.bin was altered"
    assert "weights.bin" in "".join(fails(9, "run", damaged).values())


def test_altered_plan(fails, damaged):
    overwrite(damaged / "plan.bin", 300, b"\xff")
    assert "CRC-32" in fails(8, "inspect", damaged)["why"]


def test_altered_stage(fails, damaged):
    stage = next((damaged / "stages").glob("*.onnx"))
    overwrite(stage, 40, b"\xff")
    assert stage.name in fails(8, "verify", damaged)["what"]


def test_missing_file(fails, damaged):
    (damaged / "golden" / "golden.bin").unlink()
    assert fails(8, "verify", damaged)["what"] == "golden/golden.bin is missing"


@pytest.mark.parametrize("path", ["../../../../../../etc/shadow", "/etc/passwd", "stages/../../x", "stages//a", "./a"])
def test_a_manifest_names_files_of_the_bundle(fails, damaged, path):
    """Nothing outside is read, and nothing of it is shown."""
    manifest = json.loads((damaged / "manifest.json").read_text())
    manifest["files"][path] = {"bytes": 0, "sha256": "0" * 64}
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    lines = fails(8, "verify", damaged)
    assert lines["why"] == "the path leaves the folder" and "sha256" not in "".join(lines.values())


@pytest.mark.parametrize("manifest", [
    b"[]", b"{}", b'{"name": "a", "files": [], "provenance": {}}', b"[" * 100_000, b"\xff",
    b'{"name": "a", "files": {"plan.bin": 3}, "provenance": {}}',
    b'{"name": "a", "files": {"plan.bin": {"bytes": true, "sha256": "0"}}, "provenance": {}}',
    b'{"name": "a\\u001b[2J", "files": {}, "provenance": {}}',
    b'{"name": "a", "files": {}, "provenance": {"outputs": [3]}}'])
def test_a_manifest_that_is_none(fails, damaged, manifest):
    (damaged / "manifest.json").write_bytes(manifest)
    assert "manifest.json" in fails(8, "inspect", damaged)["what"]


@pytest.mark.parametrize("relative", ["manifest.json", "golden/golden.bin", "stages/weights.bin"])
def test_what_is_no_file(fails, damaged, relative):
    """A pipe is not waited for, a device is not read to its end."""
    (damaged / relative).unlink()
    os.mkfifo(damaged / relative)
    assert "regular file" in fails(8, "verify", damaged)["why"]
    (damaged / relative).unlink()
    (damaged / relative).symlink_to("/dev/zero")
    assert "symbolic link" in fails(8, "verify", damaged)["why"]


def test_what_a_terminal_would_act_on_is_spelled_out(capsys):
    assert main(["inspect", "no\x1b[2J\x9b\udcffsuch"]) == 8
    err = capsys.readouterr().err
    assert r"no\x1b[2J\x9b\udcffsuch" in err and all(c.isprintable() or c == "\n" for c in err)


def test_a_file_that_no_checksum_covers(fails, damaged):
    manifest = json.loads((damaged / "manifest.json").read_text())
    del manifest["files"]["stages/weights.bin"]
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    assert "not in the manifest" in fails(8, "verify", damaged)["what"]


def test_wrong_version(fails, damaged):
    plan = damaged / "plan.bin"
    header = layout.HEADER.unpack(plan.read_bytes())
    packed = layout.HEADER.pack(**header | {"version_major": layout.FORMAT_MAJOR + 1})[:-4]
    overwrite(plan, 0, packed + zlib.crc32(packed).to_bytes(4, "little"))
    lines = fails(8, "verify", damaged)
    assert "another format version" in lines["what"]
    assert f"version {layout.FORMAT_MAJOR + 1}." in lines["why"] and f"reads {layout.FORMAT_MAJOR}." in lines["why"]


@pytest.mark.parametrize("verb", ["build", "run"])
def test_missing_onnxruntime(fails, verb, late_fusion_bundle, monkeypatch):
    monkeypatch.setattr("vlart.runtime.library.importlib.util.find_spec", lambda name: None)
    lines = fails(9, verb, TINY if verb == "build" else late_fusion_bundle.path)
    assert lines["what"] == "libonnxruntime is missing" and "pip install onnxruntime" in lines["fix"]


def test_onnxruntime_that_is_no_library(fails, late_fusion_bundle, monkeypatch, tmp_path):
    (tmp_path / "lib.so").write_text("not a library")
    monkeypatch.setattr("vlart.runtime.session.onnxruntime_library", lambda: tmp_path / "lib.so")
    assert "lib.so" in "".join(fails(9, "run", late_fusion_bundle.path).values())


def test_frames_of_another_policy(fails, late_fusion_bundle, flow_bundle):
    lines = fails(9, "run", late_fusion_bundle.path, "--frames", flow_bundle.path / "golden" / "golden.bin")
    assert "no source is called" in lines["what"]


# What a build leaves behind

def test_output_that_is_no_bundle_is_left_alone(fails, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    lines = fails(8, "build", TINY, "-o", "notes")
    assert lines["what"] == "notes exists and is not a bundle"
    assert (tmp_path / "notes" / "todo.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def parity_failure(*_, **__):
    raise ParityError("values differ", where="here", why="a test says so", fix="none")


def test_failed_parity_leaves_nothing(fails, tmp_path, monkeypatch):
    monkeypatch.setattr("vlacompile.phases.publish.replay", parity_failure)
    fails(10, "build", TINY, "-o", "out.vlab")
    assert not list(tmp_path.iterdir())


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_interrupted_build_leaves_the_old_bundle(capsys, tmp_path, monkeypatch, late_fusion_bundle):
    old = Path(shutil.copytree(late_fusion_bundle.path, tmp_path / "out.vlab"))
    before = {p: p.read_bytes() for p in old.rglob("*") if p.is_file()}
    monkeypatch.setattr("vlacompile.phases.publish.replay", interrupt)
    assert main(["build", TINY, "-o", "out.vlab"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in old.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.vlab"]


def test_failed_verification_shows_the_report_too(capsys, damaged, monkeypatch):
    from vlart.verify import replay

    monkeypatch.setattr(replay.Metrics, "within", lambda self, limit: False)
    assert main(["verify", str(damaged), "--json"]) == 10
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == "ParityError" and not document["passed"] and document["values"]


# What nobody expected

def test_unexpected_error_is_one_line_and_a_way_to_the_traceback(fails, capsys, monkeypatch):
    def broken(args, terminal):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(targets, "run", broken)
    lines = fails(1, "targets")
    assert lines["what"] == "ZeroDivisionError: division by zero" and "--traceback" in lines["fix"]
    assert main(["targets", "--traceback"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
