"""Lanes in threads of their own, recorded and replayed: what each action was made of is what it was made of then."""

from __future__ import annotations

import time

import numpy as np
import pytest

import vlacompile as vc
from tests.runtime.test_lanes import FAST, SLOW, THREE, TWO, drawn, recipe
from tests.samples import policies
from vlart.errors import RuntimeFailure
from vlart.recording.log import Log
from vlart.recording.replayed import replay

READS = {"slow": SLOW, "touch": ("touch",)}


@pytest.fixture(scope="module", params=[TWO, THREE], ids=["two clocks", "three clocks"])
def bundle(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lanes")
    return vc.build(policies.dual_rate(), recipe=recipe(folder, request.param), out=folder / "laned.vlab").path


def observer(name: str):
    seeds = iter(range(10**6))

    def observe(lane) -> None:
        given = drawn(next(seeds))
        for source in READS[name]:
            lane.write(source, given[source])
        time.sleep(3e-3 if name == "slow" else 1e-3)

    return observe


def test_threads_to_the_bit(bundle, tmp_path):
    with vc.Lanes(bundle, threads=1, record=tmp_path / "a.vlog") as lanes:
        for name, lane in lanes.lanes.items():
            lane.start(observer(name))
        fast, statuses = [n for n in FAST if n not in (READS["touch"] if "touch" in lanes.lanes else ())], []
        for tick in range(150):
            if tick == 80:
                lanes.reset()
            given = drawn(1000 + tick)
            for name in fast:
                lanes.control.write(name, given[name])
            try:
                lanes.control.step()
                statuses.append("OK")
                lanes.control.pop()
            except RuntimeFailure as failure:
                statuses.append(failure.status)
            time.sleep(1e-3)
    log = Log(tmp_path / "a.vlog")
    steps = [e for e in log if e.kind == "step" and e.lane == 0xFFFFFFFF]
    read = {tuple(e.fields["lanes"])[: len(log.plan.lanes)] for e in steps}
    assert statuses.count("OK") > 50 and len(read) > 10
    found = replay(log, bundle)
    assert found.parted is None and not found.skipped, found
    assert found.chunks == statuses.count("OK") == found.actions


def test_another_input_is_found(bundle, tmp_path):
    """Negative control: the slow lane is given other tokens than it was."""
    with vc.Lanes(bundle, threads=1, record=tmp_path / "a.vlog") as lanes:
        given = drawn(0)
        for name, lane in lanes.lanes.items():
            for source in READS[name]:
                lane.write(source, given[source])
            lane.step()
        for source in [s for s in FAST if s not in (READS["touch"] if "touch" in lanes.lanes else ())]:
            lanes.control.write(source, given[source])
        lanes.control.step()
    log = Log(tmp_path / "a.vlog")
    assert replay(log, bundle).equal
    content = log.content
    log.content = lambda event: (content(event) + 1) % 50 if event.rest and content(event).dtype == np.int64 \
        else content(event)
    assert replay(log, bundle).parted is not None
