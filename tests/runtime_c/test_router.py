"""libvlart's router beside the Python one: the same numbers, the same decisions; and tables that are damaged."""

from __future__ import annotations

import ctypes as c
import os
import random
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from sample_bundles import sealed
from sample_routing import sample_table

from tests.routing.test_routing import COSTS, TEXTS, episodes
from tests.runtime_c.running import BUILD, ROOT
from vlacompile.routing.beta import probability_not_worse
from vlacompile.routing.decide import decide, with_outcome
from vlacompile.routing.fit import fit_table
from vlacompile.routing.table import Rule
from vlacompile.routing.table_binary import table_bytes
from vlart.bundle.format import layout
from vlart.errors import RuntimeFailure
from vlart.runtime import library
from vlart.runtime.router import Router

UNLISTED = ("place the bowl on a plate", "turn off the stove now", "open a drawer", "wipe the table", "größer 3 çà")


@pytest.fixture
def under_test(lib, monkeypatch):
    """The library that these tests build, where the Python package looks for its own."""
    built = library.open_libvlart(BUILD / "libvlart.so")
    monkeypatch.setattr("vlart.runtime.router.libvlart", lambda: built)
    monkeypatch.setattr("vlart.runtime.library.libvlart", lambda: built)
    return built


@pytest.fixture(scope="module")
def table():
    rng = random.Random(0)
    rows = {(b, t): [int(rng.random() < p) for _ in range(n)] for b, n, p in (("light", 23, 0.8), ("heavy", 11, 0.9))
            for t in TEXTS}
    draw = np.random.default_rng(0)
    vectors = {t: draw.standard_normal(24).tolist() for t in TEXTS}
    return fit_table(episodes(rows), COSTS, vectors, Rule(0.05, 0.25))


def opened(table, tmp_path, state=None) -> Router:
    path = tmp_path / "table.bin"
    path.write_bytes(table_bytes(table))
    return Router(path, state)


def assert_same(table, python, routed, tolerance=0.0):
    place = python.place
    assert (place.route, place.by, place.similarity) == (routed.route, routed.by, routed.similarity)
    assert python.level == routed.level and table.backbones[python.backbone].name == routed.backbone
    for k, belief in enumerate(python.beliefs):
        got = (routed.alpha[k], routed.beta[k], routed.probability[k], routed.cost_ms[k])
        want = (belief.alpha, belief.beta, belief.probability, belief.cost_ms)
        assert got == pytest.approx(want, rel=tolerance, abs=tolerance)


def test_the_integral_is_pythons(under_test, tmp_path):
    """Over a grid: the two do the same operations, and differ where their libm does."""
    shared = tmp_path / "beta.so"
    subprocess.run(["gcc", "-std=c11", "-O2", "-shared", "-fPIC", f"-I{ROOT}/runtime_c/src", "-o", shared,
                    ROOT / "runtime_c/src/base/beta_distribution.c", "-lm"], check=True)
    function = c.CDLL(str(shared)).vlart_beta_not_worse
    function.restype, function.argtypes = c.c_double, [c.c_double] * 5
    grid = (0.05, 0.6, 1.0, 2.5, 17.0, 400.0, 1e5)
    worst = 0.0
    for a in grid:
        for b in grid:
            for p, q in ((1.0, 1.0), (3.0, 0.7), (30.0, 2.0), (0.05, 9.0), (900.0, 1e5)):
                for delta in (0.0, 0.05, 0.9):
                    worst = max(worst, abs(function(a, b, p, q, delta) - probability_not_worse(a, b, p, q, delta)))
    assert worst <= 1e-12


def test_decisions_are_pythons(under_test, table, tmp_path):
    router, draw = opened(table, tmp_path), np.random.default_rng(1)
    assert router.backbones == ("light", "heavy")
    for text in (*TEXTS, *UNLISTED, " TURN on... the stove "):
        assert_same(table, decide(table, text), router.decide(text))
        vector = [float(x) for x in draw.standard_normal(24).astype(np.float32)]
        assert_same(table, decide(table, text, vector), router.decide(text, vector))
    levels = {r.level for r in router.drain()}
    assert {"task", "cluster", "all"} & levels


def test_thirty_tables(under_test, tmp_path):
    """Of other evidence, thresholds and costs."""
    rng = random.Random(2)
    for _ in range(30):
        rows = {(b, t): [int(rng.random() < rng.choice([0.3, 0.9, 1.0])) for _ in range(rng.randint(1, 40))]
                for b in COSTS for t in TEXTS}
        table = fit_table(episodes(rows), COSTS, None, Rule(rng.choice([0.0, 0.02, 0.1]), rng.choice([0.1, 0.5])))
        router = opened(table, tmp_path)
        for text in (*TEXTS, *UNLISTED):
            assert_same(table, decide(table, text), router.decide(text))


def test_learning_is_pythons(under_test, table, tmp_path):
    router, learnt, rng = opened(table, tmp_path, tmp_path / "state"), table, random.Random(3)
    for _ in range(60):
        text = rng.choice([*TEXTS, *UNLISTED])
        routed, python = router.decide(text), decide(learnt, text)
        assert_same(learnt, python, routed, 1e-12)
        success = rng.random() < 0.6
        router.report_outcome(success)
        learnt = with_outcome(learnt, python.place.route, python.backbone, success)
    again = Router(tmp_path / "table.bin", tmp_path / "state")
    assert again.info().generation == 60 and not again.info().recovered
    for text in (*TEXTS, *UNLISTED):
        assert_same(learnt, decide(learnt, text), again.decide(text), 1e-12)
    log = router.drain()
    assert len(log) == 60 and all(r.success is not None for r in log)


def test_a_state_belongs_to_its_table(under_test, table, tmp_path):
    router = opened(table, tmp_path, tmp_path / "state")
    router.decide(TEXTS[0])
    router.report_outcome(True)
    with pytest.raises(RuntimeFailure) as failure:
        opened(replace(table, rule=Rule(0.1, 0.2)), tmp_path, tmp_path / "state")
    assert failure.value.status == "VERSION" and "another routing table" in failure.value.why


def test_what_is_no_regular_file_is_not_waited_for(under_test, table, tmp_path):
    """Nobody writes into the pipe."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RuntimeFailure, match="the routing table cannot be read"):
        Router(tmp_path / "pipe")
    os.mkfifo(tmp_path / "state.0")
    with pytest.raises(RuntimeFailure, match="the router's state cannot be used"):
        opened(table, tmp_path, tmp_path / "state")


def test_where_it_cannot_save_it_says_so(under_test, table, tmp_path):
    router = opened(table, tmp_path, tmp_path / "no" / "such" / "state")
    router.decide(TEXTS[0])
    with pytest.raises(RuntimeFailure) as failure:
        router.report_outcome(True)
    assert failure.value.status == "IO" and "state.tmp" in failure.value.where
    (tmp_path / "no" / "such").mkdir(parents=True)
    router.decide(TEXTS[0])
    router.report_outcome(True)
    again = Router(tmp_path / "table.bin", tmp_path / "no" / "such" / "state")
    assert again.decide(TEXTS[0]).alpha[0] == pytest.approx(decide(table, TEXTS[0]).beliefs[0].alpha + 2)


# Each rule with one record that breaks it: section, index, field, value, and what the refusal says.
RULES = {
    "prior": ("router", 0, "prior_success", 0.0, "prior"),
    "strength is a number": ("router", 0, "strength", float("nan"), "prior"),
    "tau": ("router", 0, "tau", 1.0, "threshold"),
    "delta": ("router", 0, "delta", -0.1, "threshold"),
    "nearest": ("router", 0, "nearest_text", 1.5, "threshold"),
    "clusters": ("router", 0, "cluster_count", 0, "do not make a table"),
    "clusters and routes": ("router", 0, "cluster_count", 1, "range of floats|do not come last|of no cluster"),
    "text weights": ("router", 0, "text_weight_count", 7, "range of floats"),
    "centroids": ("router", 0, "text_centroid_begin", 1000, "leaves the floats section"),
    "embeddings": ("router", 0, "embedding_dim", 4, "range of floats"),
    "name": ("backbones", 0, "name", 10_000, "string"),
    "names differ": ("backbones", 1, "name", None, "one name"),
    "cost": ("backbones", 0, "replan_ms", float("inf"), "cost"),
    "text": ("routes", 0, "text", 10_000, "string"),
    "texts differ": ("routes", 1, "text", None, "twice"),
    "cluster of an instruction": ("routes", 0, "cluster", 2, "of no cluster"),
    "rest": ("routes", 3, "text", None, "come last"),
    "rest of no cluster": ("routes", 5, "cluster", 0, "come last"),
    "evidence": ("evidence", 0, "successes", -1.0, "evidence"),
    "too much evidence": ("evidence", 1, "failures", 60_000.0, "evidence"),
}


@pytest.mark.parametrize("rule", RULES)
def test_tables_are_checked(under_test, tmp_path, rule):
    section, index, field, value, why = RULES[rule]
    data = bytearray(table_bytes(sample_table()))
    record = layout.SECTIONS[layout.SECTION_ID[section]][1]
    for i in range(layout.HEADER.unpack(data)["section_count"]):
        row = layout.SECTION.unpack(data, layout.HEADER.size + i * layout.SECTION.size)
        if row["id"] == layout.SECTION_ID[section]:
            at = row["offset"] + index * row["stride"]
            fields = record.unpack(data, at)
            first = record.unpack(data, row["offset"])
            fields[field] = first[field] if value is None else value
            data[at: at + record.size] = record.pack(**fields)
    path = tmp_path / "table.bin"
    path.write_bytes(sealed(bytes(data)))
    with pytest.raises(RuntimeFailure, match=".") as failure:
        Router(path)
    assert failure.value.status == "CORRUPT"
    assert re.search(why, failure.value.why), failure.value


def test_larger_than_the_library_takes(under_test, table, tmp_path):
    vectors = replace(table.texts, centroids=tuple((0.0,) * 5000 for _ in table.texts.centroids), weights=(1.0,) * 5000)
    with pytest.raises(RuntimeFailure) as failure:
        opened(replace(table, texts=vectors), tmp_path)
    assert failure.value.status == "UNSUPPORTED"
    (tmp_path / "table.bin").write_bytes(b"something else entirely" * 10)
    with pytest.raises(RuntimeFailure) as failure:
        Router(tmp_path / "table.bin")
    assert failure.value.status == "NOT_A_BUNDLE"
