"""Fixtures: bundles of the small policies, built once; golden text files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import vlacompile as vc
from tests.samples import policies
from vlacompile.cli.main import main
from vlacompile.compiler.passes.pass_manager import verified

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/ (refused when CI is set)")


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
