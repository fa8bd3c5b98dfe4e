"""Skips in continuous integration: listed with their reason, or they fail the run."""

from __future__ import annotations

import subprocess
import sys

from tests.house.layers import ROOT
from tests.skips import Known, known, unlisted


def test_a_skip_is_listed_or_told():
    skipped = {"tests/a/test_x.py::test_one[1]": "no board", "tests/a/test_y.py": "no package"}
    assert unlisted(skipped,
                    (Known("tests/a/test_x.py::test_one*", "there is none"),)) == ["tests/a/test_y.py: no package"]


def test_a_package_that_cannot_be_installed_excuses_what_asks_for_it_alone():
    skipped = {"a": "apt-get install clang", "b": "apt-get install clang qemu-user-static", "c": "no reason"}
    assert unlisted(skipped, (), ["clang"]) == ["b: apt-get install clang qemu-user-static", "c: no reason"]


def test_every_listed_skip_has_its_reason_and_its_file():
    for entry in known():
        assert len(entry.why) > 10 and entry.tests.startswith("tests/")
        assert list(ROOT.glob(entry.tests.partition("::")[0])), f"{entry.tests} is of no file that is there"


def test_a_run_fails_on_a_skip_that_is_not_listed(tmp_path):
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_addoption, pytest_configure\n")
    (tmp_path / "test_x.py").write_text("import pytest\ndef test_x():\n    pytest.skip('because')\n")
    done = [subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(tmp_path)],
                           capture_output=True, text=True, cwd=tmp_path,
                           env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
                           check=False) for options in ((), ("--skips-listed",))]
    assert [d.returncode for d in done] == [0, 1]
    assert "test_x.py::test_x: because" in done[1].stdout
