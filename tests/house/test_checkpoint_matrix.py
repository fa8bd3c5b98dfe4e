"""Rows of the matrix of checkpoints: of the tests that passed, whoever ran them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.checkpoint_matrix import share_of_spread
from tests.house.layers import ROOT

TESTS = """
import pytest
from types import SimpleNamespace
from tests.checkpoint_matrix import compared

@pytest.mark.parametrize("share", [1e-6, 1.0])
def test_parity(share, record_property):
    loop = SimpleNamespace(form="steps", iterations=3)
    plan = SimpleNamespace(stages=[SimpleNamespace(name="vision", sampling=None),
                                   SimpleNamespace(name="step", sampling=loop)])
    compared(record_property, SimpleNamespace(plan=plan), share, files="F 1.0", policy="p", oracle="F 1.0", seconds=2)
    assert share < 1e-4
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_test_that_fails_gives_no_row(tmp_path, workers):
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_addoption, pytest_configure\n")
    (tmp_path / "test_x.py").write_text(TESTS)
    earlier = {"test_x.py::test_parity[1.0]": {"share": 1e-7}, "test_y.py::test_other": {"share": 1e-7}}
    (tmp_path / "rows.json").write_text(json.dumps({"rows": earlier}))
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, "--record-checkpoints",
                    "rows.json", str(tmp_path)], capture_output=True, cwd=tmp_path, check=False,
                   env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"})
    row, kept = json.loads((tmp_path / "rows.json").read_text())["rows"].items()
    assert kept[0] == "test_y.py::test_other", "of a test that did not run"
    assert row == ("test_x.py::test_parity[1e-06]",
                   {"files": "F 1.0", "policy": "p", "oracle": "F 1.0", "share": 1e-6, "stages": ["vision", "step"],
                    "loop": "steps x3", "build_s": 2})


def test_a_share_is_of_its_own_dimension_s_spread():
    want = np.array([[0.0, 0.0], [2.0, 200.0]])  # spreads of 1 and 100
    assert share_of_spread(want + [0.01, 0.01], want) == pytest.approx(0.01)
    assert share_of_spread(want + [0.0, 10.0], want) == pytest.approx(0.1)
