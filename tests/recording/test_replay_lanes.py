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
from vlart.bundle.plan.binary import read_plan
from vlart.errors import BundleError, RuntimeFailure
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


@pytest.fixture(scope="module")
def altered(bundle, tmp_path_factory):
    """{what is weighed by a ten-thousandth more: such a bundle}, with the recipe of the first."""
    folder = tmp_path_factory.mktemp("altered")
    lanes = THREE if len(read_plan(bundle / "plan.bin").lanes) == 2 else TWO
    found = {}
    for part in ("camera", "state"):
        policy = policies.dual_rate()
        getattr(policy.observe, part).weight.data.mul_(1.0001)
        found[part] = vc.build(policy, recipe=recipe(folder, lanes), out=folder / f"{part}.vlab").path
    return found


def stepped(bundle, path, ticks: int = 12) -> Log:
    """Each lane at every third tick."""
    with vc.Lanes(bundle, threads=1, record=path) as lanes:
        fast = [n for n in FAST if n not in (READS["touch"] if "touch" in lanes.lanes else ())]
        for tick in range(ticks):
            given = drawn(tick)
            for name, lane in lanes.lanes.items():
                if tick % 3 == 0:
                    for source in READS[name]:
                        lane.write(source, given[source])
                    lane.step()
            for source in fast:
                lanes.control.write(source, given[source])
            lanes.control.step()
            lanes.control.pop()
    return Log(path)


@pytest.mark.parametrize("part, lane", [("camera", "slow"), ("state", None)])
def test_another_bundle_parts_where_its_weight_is(bundle, altered, tmp_path, part, lane):
    """--against names the first value that differs, which is a slower lane's where its weight was changed, and not what
    the control loop made of it."""
    log = stepped(bundle, tmp_path / "a.vlog")
    plan, other = log.plan, altered[part]
    with pytest.raises(BundleError, match="another bundle"):
        replay(log, other)
    assert replay(log, other, other_bundle=True).parted.what == "the chunk"
    found = replay(log, other, other_bundle=True, against=bundle).parted
    assert found.of_values and found.step == 0
    name, stage = found.what.split('"')[1], next(s for s in plan.stages if f'stage "{s.name}"' in found.what)
    assert plan.lane_of(stage) == (0 if lane else len(plan.lanes)), found
    assert any(plan.values[b.value].name == name for b in stage.outputs)
    sources = {"camera": "wide", "state": "state"}
    assert sources[part] in {plan.values[s].name for s in stage.depends}
    back = replay(log, bundle, against=other).parted
    assert back.what == found.what and (back.want, back.got) == (found.got, found.want)


def test_against_the_same_bundle_is_equal(bundle, tmp_path):
    log = stepped(bundle, tmp_path / "a.vlog")
    found = replay(log, bundle, against=bundle)
    assert found.equal and found.chunks == 12 and found.parted is None
    seen = []
    content = log.content

    def second(event):  # negative control: the slow lane's second picture
        array = content(event)
        seen.extend([event] if array.dtype == np.uint8 else [])
        return array ^ 1 if len(seen) == 2 and array.dtype == np.uint8 else array

    log.content = second
    assert replay(log, bundle, against=bundle).parted.what == "the chunk"  # of both bundles alike


def test_a_bundle_with_other_lanes_is_refused(bundle, tmp_path):
    log = stepped(bundle, tmp_path / "a.vlog", 3)
    for number, lanes in enumerate(("", TWO.replace('"slow"', '"slower"'), THREE.replace('"touch"\n', '"hand"\n', 1))):
        other = vc.build(policies.dual_rate(), recipe=recipe(tmp_path, lanes), out=tmp_path / f"{number}.vlab").path
        for call in ({"other_bundle": True}, {"against": other}):
            with pytest.raises(BundleError, match="other lanes") as refused:
                replay(log, other if "other_bundle" in call else bundle, **call)
            assert 'recorded: "slow" of tokens and wide' in refused.value.why and refused.value.fix
