"""Fixtures: bundles of the small policies, built once; golden text files."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

import vlacompile as vc
from tests.checkpoint_matrix import MatrixRecorded
from tests.samples import policies
from tests.skips import SkipsListed
from vlacompile.cli.main import main
from vlacompile.compiler.passes.pass_manager import verified

GOLDEN = Path(__file__).parent / "golden"


# What takes more than seconds: not in `make test-core`. Paths below tests/, of folders or files.
BUILDS = (
    "benchmarks", "check", "cli/test_main.py", "cli/test_recordings.py", "compiler/assemble", "compiler/emit/tvm",
    "compiler/passes/test_legalise_types.py", "compiler/precision", "compiler/staging/test_choose_solver.py",
    "compiler/staging/test_roll_loop.py", "compiler/test_random_policies.py", "deploy", "examples", "files",
    "export", "frontends/onnx/test_read.py", "packages", "pipeline/test_build.py", "pipeline/test_scalar_outputs.py",
    "policy/test_action_decoding.py", "policy/test_join_backbones.py", "policy/test_text.py", "profile", "report",
    "recording", "ros/test_controller.py", "ros/test_node.py", "ros/test_rehearse.py", "ros/test_wire.py", "runtime",
    "runtime_c", "serve",
)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/ (refused when CI is set)")
    parser.addoption("--skips-listed", action="store_true",
                     help="a skip that tests/known_skips.toml does not list fails")
    parser.addoption("--record-checkpoints", type=Path, metavar="FILE",
                     help="write the rows of docs/checkpoints.md that the tests of this run give")
    parser.addoption("--skips-without", action="append", default=[], metavar="PACKAGE",
                     help="with it: a system package that cannot be installed here; what asks for it may be skipped")


# What stands in a file some of whose tests have a mark.
MARKED_BY = {"build": ("mark.build",), "zoo": ("mark.zoo",), "full": ("mark.full", "variants("),
             "variant": ("variants(",)}


def marks_of(path: Path) -> set[str]:
    """What all tests of a file are marked with."""
    below = Path(__file__).parent
    name = path.relative_to(below).as_posix() if path.is_relative_to(below) else ""
    return {mark for mark, folders in {"build": BUILDS, "zoo": ("zoo/",)}.items() if name.startswith(folders)}


def pytest_ignore_collect(collection_path, config):
    """A file none of whose tests -m can choose is not imported: in each of several processes that takes as long as a
    good part of the tests."""
    if collection_path.suffix != ".py" or not config.option.markexpr:
        return None
    chosen, given = Expression.compile(config.option.markexpr), marks_of(collection_path)
    text = collection_path.read_text(encoding="utf-8")
    single = [mark for mark, words in MARKED_BY.items() if mark not in given and any(w in text for w in words)]
    for some in itertools.product((False, True), repeat=len(single)):
        here = given | {mark for mark, is_set in zip(single, some, strict=True) if is_set}
        if chosen.evaluate(lambda name, /, **_: name in here):
            return None
    return True


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    below = Path(__file__).parent
    assert not (gone := [name for name in BUILDS if not (below / name).exists()]), f"BUILDS names {gone}"
    for item in items:
        for mark in marks_of(item.path):
            item.add_marker(mark)


def pytest_configure(config):
    if hasattr(config, "workerinput"):
        return
    if config.getoption("--record-checkpoints"):
        config.pluginmanager.register(MatrixRecorded(config.getoption("--record-checkpoints")))
    if config.getoption("--skips-listed"):
        config.pluginmanager.register(SkipsListed(config.getoption("--skips-without")))


@pytest.fixture(scope="session", autouse=True)
def passes_are_verified_fully():
    """After every pass all types are computed again; a build has no time for that."""
    with verified("full"):
        yield


@pytest.fixture
def golden(request):
    """golden(name, text): compare with tests/golden/<name>."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            assert not os.environ.get("CI"), "golden files are not rewritten in CI"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: run pytest --update-golden and read it before you commit it"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(scope="session")
def every_stage(tmp_path_factory) -> Path:
    """A recipe that merges no stages."""
    path = tmp_path_factory.mktemp("recipe") / "every-stage.toml"
    path.write_text(policies.EVERY_STAGE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def late_fusion_bundle(tmp_path_factory, every_stage) -> vc.Bundle:
    out = tmp_path_factory.mktemp("bundles") / "late_fusion.vlab"
    return vc.build(policies.late_fusion(), recipe=str(every_stage), out=out)


@pytest.fixture(scope="session")
def flow_bundle(tmp_path_factory, every_stage) -> vc.Bundle:
    out = tmp_path_factory.mktemp("bundles") / "flow.vlab"
    return vc.build(policies.flow(), recipe=str(every_stage), out=out)


@pytest.fixture
def cli(capsys, monkeypatch):
    """cli(*argv) -> (exit code, stdout, stderr), in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*argv) -> tuple[int, str, str]:
        code = main([str(a) for a in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call
