"""Lanes in threads of their own, recorded and replayed: what each action was made of is what it was made of then."""

from __future__ import annotations

import random
import time
from collections import Counter

import numpy as np
import pytest

import vlacompile as vc
from tests.runtime.test_lanes import FAST, SLOW, THREE, TWO, drawn, recipe
from tests.samples import policies
from vlart.errors import RuntimeFailure
from vlart.recording.log import Log
from vlart.recording.replayed import replay

DEADLINE_MISSED = 17  # of vlart_status_t
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


def test_random_schedules_to_the_bit(bundle, tmp_path):
    """Whoever steps next is drawn: sets that nobody reads, cut and refused steps, episodes that a lane sees late."""
    compared, statuses = 0, Counter()
    for seed in range(6):
        rng, path = random.Random(seed), tmp_path / f"{seed}.vlog"
        with vc.Lanes(bundle, threads=1, record=path) as lanes:
            fast = [n for n in FAST if n not in (READS["touch"] if "touch" in lanes.lanes else ())]
            movers = [(lane, READS[name]) for name, lane in lanes.lanes.items()] + [(lanes.control, fast)] * 2
            for number in range(80):
                if rng.random() < 0.06:
                    lanes.reset()
                mover, sources = rng.choice(movers)
                given = drawn(seed * 1000 + number)
                for name in sources:
                    if rng.random() < 0.9:
                        mover.write(name, given[name])
                if rng.random() < 0.1:
                    session = lanes.control if mover is lanes.control else mover.session
                    session.stop_before(rng.randrange(len(lanes.plan.stages)), DEADLINE_MISSED)
                try:
                    mover.step()
                    statuses["OK"] += 1
                except RuntimeFailure as failure:
                    statuses[failure.status] += 1
                if mover is lanes.control and lanes.control.queue().remaining:
                    lanes.control.pop()
        found = replay(Log(path), bundle)
        assert found.parted is None and not found.skipped, (seed, found)
        compared += found.chunks
    assert compared > 30 and {"OK", "CANCELLED", "SOURCE_UNSET", "DEADLINE_MISSED"} <= set(statuses)


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
