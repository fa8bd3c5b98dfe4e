"""The benchmark of runtimes refuses a comparison that shows nothing; its tables say what is missing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.runtimes import check
from docs import figures, runtimes


def worker(*outputs):
    return SimpleNamespace(outputs=np.array(outputs, np.float32))


GOOD = {"libvlart": worker([1, 2], [3, 4]), "bare": worker([0, 0], [0, 0]), "IREE": worker([1, 2], [3, 4.00001])}


@pytest.mark.parametrize(("wrong", "what"), [
    ({"IREE": worker([1, 2], [1, 2])}, "IREE"), ({"IREE": worker([1, 2], [3, np.nan])}, "IREE"),
    ({"IREE": worker([1], [3])}, "IREE"), ({"bare": GOOD["libvlart"]}, "computes nothing"),
    ({"libvlart": worker([1, 2], [1, 2])}, "do not depend on its input")])
def test_a_comparison_that_shows_nothing_is_refused(wrong, what):
    found = check(GOOD, "blocks")
    assert found["libvlart"] == 0 and 0 < found["IREE"] < 1e-4
    with pytest.raises(RuntimeError, match=what):
        check(GOOD | wrong, "blocks")


def test_tables_say_what_is_missing_and_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    assert runtimes.tvm() == runtimes.runtimes() == figures.MISSING
    (tmp_path / "profiles/host").mkdir(parents=True)
    (tmp_path / "profiles/host/tvm.json").write_text(json.dumps({
        "machine": {"cpu": "a processor", "versions": {"apache-tvm": "0.27"}}, "rounds": 9,
        "notes": ["TVM: state: searched schedules for 3 of 7 kernels"],
        "stages": {"state": {"onnxruntime": 0.1, "tvm": 3.0, "tvm searched": 0.2}}}), encoding="utf-8")
    assert "| state | 0.100 | 3.000 | 0.200 | 2.00 |" in runtimes.tvm() and "3 of 7 kernels" in runtimes.tvm()
