"""The text of the counters is one that Prometheus reads, whatever stages are called."""

from __future__ import annotations

import re

from vlart.runtime.stage_times import StageTimes
from vlart.serve.metrics import Metrics

ROW = re.compile(r'vlacompile_\w+(\{(\w+)="((?:[^"\\\n]|\\["\\n])*)"\})? \S+')


def test_names_of_stages_are_labels():
    metrics, times = Metrics(), StageTimes(1, 2.0, 2.0, 2.0, 2.0)
    names = ["fusion", 'a"} 1\nevil{x="', "back\\slash", 'end\\"']
    metrics.stages(0, dict.fromkeys(names, times))
    metrics.stages(1, dict.fromkeys(names, times))
    rows = [line for line in metrics.text().splitlines() if not line.startswith("#")]
    assert all(ROW.fullmatch(row) for row in rows), rows
    found = [m[3] for row in rows if (m := ROW.fullmatch(row)) and "stage_runs" in row]
    assert sorted(re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), f) for f in found) == sorted(names)
