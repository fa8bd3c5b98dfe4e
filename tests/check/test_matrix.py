"""The matrix of NVIDIA's compiler (benchmarks/rtx.py): a part of it anew, and what is recorded."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks import rtx
from vlacompile.check.tensorrt import LABEL, BundleCheck, Count, StageCheck
from vlacompile.frontends.environments import ENVIRONMENTS
from vlart.bundle.plan.plan import Build

RECORDS = sorted((Path(__file__).parents[2] / rtx.PROFILES).glob("*.json"))
BUILD = Build(("strongly_typed",), 3, 0, 1 << 29, 100, 95, 200, 1 << 20)


def _stage(name: str, found: int, faults: tuple[str, ...] = ()) -> StageCheck:
    counts = (Count("INT8 products", 2, found, ("mm",) if found < 2 else ()), Count("fused INT4", 0, 0),
              Count("fused attentions", 0, 0))
    return StageCheck(name, "tensorrt-rtx 1", BUILD, 150, 100, 1 << 19, 3, counts, None, faults)


def test_a_record_keeps_what_is_short():
    found = BundleCheck("/somewhere/b.vlab", "p", "orin-nano-8gb", "int8",
                        (_stage("a", 2), _stage("b", 1, ("1 of 2 INT8 products: not mm",))))
    kept = rtx.record(rtx.Case("act", "int8"), found, {"torch": "2"})
    assert (kept["passed"],
            [s["passed"] for s in kept["stages"]]) == (False, [True, False]) and "somewhere" not in json.dumps(kept)
    assert kept["stages"][1]["counts"]["INT8 products"] == {"found": 1, "planned": 2, "missing": ["mm"]}
    assert "1/2 stages" in rtx.line(kept) and "INT8 products 3/4" in rtx.line(kept)


def test_cases_are_every_policy_in_every_mode():
    sizes = 9 * len(rtx.MODES) + len(rtx.SIZED) * len(rtx.SIZED_MODES)
    assert len({c.name for c in rtx.CASES}) == len(rtx.CASES) == sizes
    assert {rtx.Case(*c) for c in rtx.QUICK} <= set(rtx.CASES)


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_records_say_what_they_are(path):
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem == f"{kept['policy']}-{kept['mode']}" and kept["label"] == LABEL
    assert kept["target"].startswith(rtx.TARGET)
    assert kept["passed"] == all(s["passed"] for s in kept["stages"])
    for s in kept["stages"]:
        short = [c for c in s["counts"].values() if c["found"] < c["planned"]]
        assert s["passed"] == (s["refusal"] is None and not s["faults"]) and (not short or s["faults"])


@pytest.mark.full
@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                    reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")
@pytest.mark.parametrize("policy, mode", rtx.QUICK)
def test_the_compiler_takes_every_stage_as_planned(policy, mode, tmp_path):
    if not ENVIRONMENTS["lerobot"].path.is_dir():
        pytest.skip(f"needs the environment lerobot: {ENVIRONMENTS['lerobot'].advice()}")
    kept = rtx.measure(rtx.Case(policy, mode), tmp_path)
    assert kept["passed"], [(s["stage"], s["refusal"] or s["faults"]) for s in kept["stages"] if not s["passed"]]
