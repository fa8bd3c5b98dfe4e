"""Routing in Python: the probability against references, the posterior, the rule, logs, clusters, and fitting."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vlacompile.routing.backbone_costs import Cost, parse_cost, read_profile
from vlacompile.routing.beta import LEAST, MOST, probability_exact, probability_monte_carlo, probability_not_worse
from vlacompile.routing.clusters import cluster, spaces
from vlacompile.routing.decide import Place, decide, decide_at, locate, posterior, with_outcome
from vlacompile.routing.fit import by_table, choose_rule, fit_table, paired, replayed
from vlacompile.routing.logs import Episode, of_states, parse_states, read_logs
from vlacompile.routing.table import Prior, Rule, read_table, table_text
from vlacompile.routing.words import BUCKETS, counts, normalised
from vlart.errors import ConfigError

COSTS = {"light": Cost(5.0, 3.0, "test"), "heavy": Cost(40.0, 3.2, "test")}
WHOLE = st.integers(1, 12)


@settings(max_examples=40, deadline=None)
@given(WHOLE, WHOLE, WHOLE, WHOLE, st.integers(0, 90))
def test_the_quadrature_is_the_closed_form(a, b, c, d, percent):
    exact = probability_exact(a, b, c, d, Fraction(percent, 100))
    assert probability_not_worse(a, b, c, d, percent / 100) == pytest.approx(float(exact), abs=1e-12)


def test_the_closed_form_is_the_published_sum():
    """E. Miller's sum for P(B > A), in log beta functions; and a value by hand: two uniforms, P(x >= y - d)."""
    a, b, c, d = 7, 5, 4, 9
    log_b = special.betaln
    total = sum(math.exp(log_b(c + i, d + b) - math.log(b + i) - log_b(1 + i, b) - log_b(c, d)) for i in range(a))
    assert float(probability_exact(a, b, c, d)) == pytest.approx(total, abs=1e-12)
    assert probability_exact(1, 1, 1, 1, Fraction(1, 5)) == 1 - Fraction(4, 5) ** 2 / 2


def reference(a: float, b: float, c: float, d: float, delta: float) -> float:
    """mpmath's adaptive quadrature, in pieces around both centres: over ln(x/(1-x)), or, where F_q may end as steeply
    as a root, over s with x = 1 - delta - s^40."""
    a, b, c, d, delta = map(mp.mpf, (a, b, c, d, delta))
    whole = mp.beta(a, b)
    centres = [(mp.log(p / q), mp.sqrt(1 / p + 1 / q)) for p, q in ((a, b), (c, d))]
    marks = [m + k * w for m, w in centres for k in range(-9, 10, 2)]
    if delta == 0:
        m, w = centres[0]
        ends = m - 60 / a - 12 * w, m + 60 / b + 12 * w
        points = {*ends, *marks, *(m + k * w for k in (-60, -20, 20, 60))}
        return float(mp.quad(lambda t: (1 / (1 + mp.exp(-t)))**a * (1 / (1 + mp.exp(t)))**b / whole * (
            1 - mp.betainc(d, c, 0, 1 / (1 + mp.exp(t)), regularized=True) if t > 0 else
            mp.betainc(c, d, 0, 1 / (1 + mp.exp(-t)), regularized=True)),
            sorted(p for p in points if ends[0] <= p <= ends[1])))

    def integrand(s):
        x = 1 - delta - s**40
        below = 1 - mp.betainc(d, c, 0, s**40, regularized=True)
        return x**(a - 1) * (1 - x)**(b - 1) / whole * below * 40 * s**39 if x > 0 else mp.mpf(0)

    rests = [1 - delta - 1 / (1 + mp.exp(-m)) + shift for m in marks for shift in (0, delta)]
    points = {mp.mpf(0), (1 - delta)**(mp.mpf(1) / 40), *(r**(mp.mpf(1) / 40) for r in rests if 0 < r < 1 - delta)}
    return float(mp.quad(integrand, sorted(points)) + mp.betainc(a, b, 1 - delta, 1, regularized=True))


@pytest.mark.parametrize("values", [(31.4, 0.6, 12.0, 0.05, 0.01), (0.05, 19.7, 0.06, 4.2, 0.0),
                                    (59.1, 0.33, 76.3, 0.62, 0.0), (49.5, 376.9, 0.055, 22.4, 0.01),
                                    (2.0, 2.0, 90.0, 30.0, 0.3), (700.0, 3.0, 0.9, 0.4, 0.9),
                                    (7.9, 4.1, 9.7, 2.3, 0.05)])
def test_the_quadrature_is_mpmaths(values):
    """A library that knows nothing of our rule, also for parameters that are not whole."""
    with mp.workdps(20):
        within = 1e-10 if min(values[:4]) < 1 else 1e-12
        assert probability_not_worse(*values) == pytest.approx(reference(*values), abs=within)


PARAMETERS = st.floats(math.log(LEAST), math.log(1000.0)).map(math.exp).map(lambda x: min(max(x, LEAST), 1000.0))


@settings(max_examples=100, deadline=None)
@given(PARAMETERS, PARAMETERS, PARAMETERS, PARAMETERS)
def test_either_is_not_worse(a, b, c, d):
    assert probability_not_worse(a, b, c, d) + probability_not_worse(c, d, a, b) == pytest.approx(
        1, abs=1e-9 if min(a, b, c, d) < 1 else 2e-12)


@pytest.mark.parametrize("values", [(0.05, 1e5, 1e5, 0.05), (1e5, 1e5, 1e5, 1e5), (0.05, 0.05, 1e5, 1e5),
                                    (1e5, 3, 3, 1e5)])
def test_the_ends_of_the_range(values):
    a, b, c, d = values
    for delta in (0.0, 0.05, 0.99):
        assert 0 <= probability_not_worse(a, b, c, d, delta) <= 1
    assert probability_not_worse(a, b, c, d) + probability_not_worse(c, d, a, b) == pytest.approx(1, abs=1e-9)
    for bad in ((0.04, 1, 1, 1, 0), (1, 1, MOST + 1, 1, 0), (1, 1, 1, 1, 1.0), (1, math.nan, 1, 1, 0)):
        with pytest.raises(ValueError):
            probability_not_worse(*bad)


def test_draws_agree_and_are_repeatable():
    for values in ((21.0, 1.3, 40.2, 2.4, 0.05), (9, 5, 18, 3, 0.0)):
        got, error = probability_monte_carlo(*values, draws=200_000, seed=3)
        assert abs(got - probability_not_worse(*values)) < 5 * error
        assert probability_monte_carlo(*values, draws=200_000, seed=3) == (got, error)
        assert probability_monte_carlo(*values, draws=200_000, seed=4)[0] != got


# ---- tables --------------------------------------------------------------------------------------------------------

TEXTS = ("put the bowl on the plate", "put the bowl on the stove", "turn on the stove", "open the middle drawer")


def episodes(success: dict[tuple[str, str], list[int]]) -> list[Episode]:
    """{(backbone, instruction): outcomes by state}"""
    return [Episode(b, t, s, bool(x), 10 if x else 30, "test") for (b, t), outcomes in success.items()
            for s, x in enumerate(outcomes)]


@pytest.fixture(scope="module")
def played() -> list[Episode]:
    rows = {(b, t): [1] * 10 for b in COSTS for t in TEXTS}
    rows["light", TEXTS[2]] = [1, 0, 0, 1, 0, 0, 1, 0, 0, 0]
    return episodes(rows)


@pytest.fixture(scope="module")
def table(played):
    return fit_table(played, COSTS, None, Rule(0.05, 0.25))


def test_light_by_default_and_heavy_where_light_fails(table):
    names = [b.name for b in table.backbones]
    taken = {t: names[decide(table, t).backbone] for t in TEXTS}
    assert taken == {TEXTS[0]: "light", TEXTS[1]: "light", TEXTS[2]: "heavy", TEXTS[3]: "light"}
    failing = decide(table, TEXTS[2])
    assert failing.level == "task" and failing.beliefs[0].probability < 0.01 and failing.beliefs[1].probability == 1


def test_the_posterior_is_the_stated_one(table):
    """By hand, of a table with its evidence at all three levels."""
    place = locate(table, TEXTS[2])
    route = table.routes[place.route]
    near = [r for i, r in enumerate(table.routes) if i != place.route and r.cluster == route.cluster]
    far = [r for r in table.routes if r.cluster != route.cluster]
    good, bad = (p + sum(getattr(r.evidence[0], k) for r in far)
                 for p, k in ((1.0, "successes"), (1.0, "failures")))
    mean = good / (good + bad)
    mean = (2 * mean + sum(r.evidence[0].successes for r in near)) / (2 + sum(r.evidence[0].episodes for r in near))
    alpha, beta, level = posterior(table, place.route, 0)
    assert (alpha, beta, level) == (pytest.approx(2 * mean + 3), pytest.approx(2 * (1 - mean) + 7), "task")


def test_evidence_is_counted_at_one_level_only(table):
    """What an instruction was seen to do is not in the mean that its own posterior leans on."""
    place = locate(table, TEXTS[2])
    before = posterior(table, place.route, 0)
    after = posterior(with_outcome(table, place.route, 0, True), place.route, 0)
    assert after[0] == pytest.approx(before[0] + 1) and after[1] == before[1]


def test_nothing_known_is_light(table):
    bare = replace(table, routes=tuple(replace(r, evidence=tuple(replace(e, successes=0.0, failures=0.0)
                                                                 for e in r.evidence)) for r in table.routes))
    decision = decide(bare, TEXTS[2])
    assert decision.level == "prior" and table.backbones[decision.backbone].name == "light"
    assert decision.beliefs[0].alpha == decision.beliefs[0].beta == 1.0


def test_outcomes_escalate_and_come_back(table):
    place = locate(table, TEXTS[0])
    learnt, failures = table, 0
    while decide_at(learnt, place).backbone == 0:
        learnt, failures = with_outcome(learnt, place.route, 0, False), failures + 1
        assert failures < 10
    assert failures >= 1
    for _ in range(8 * failures):
        learnt = with_outcome(learnt, place.route, 1, False)
    assert decide_at(learnt, place).backbone == 0


def test_a_light_one_that_costs_more_is_not_taken(table):
    """It fails often, episodes that fail are long, and delta would allow it."""
    light, heavy = table.backbones
    slow = replace(table, rule=Rule(0.9, 0.25), backbones=(replace(light, replan_ms=6.0), heavy))
    place = locate(slow, TEXTS[2])
    decision = decide_at(slow, place)
    assert decision.beliefs[0].probability > 0.9 and decision.backbone == 1
    assert decision.beliefs[0].cost_ms > decision.beliefs[1].cost_ms
    assert decide_at(replace(table, rule=Rule(0.9, 0.25)), place).backbone == (
        0 if decide_at(table, place).beliefs[0].cost_ms <= decide_at(table, place).beliefs[1].cost_ms else 1)


def test_unlisted_instructions_go_to_the_nearest_cluster(table):
    listed = locate(table, " PUT the bowl, on the PLATE ")
    assert listed.by == "text" and table.routes[listed.route].text == TEXTS[0]
    near = decide(table, "place the bowl on a plate")
    assert near.place.by == "words" and near.level == "cluster"
    assert table.routes[near.place.route].cluster == table.routes[listed.route].cluster
    far = decide(table, "xyzzy quux")
    assert far.place.by == "nothing" and far.place.route == len(table.routes) - 1 and far.level == "all"
    for bad in ("", " ?! ", "a" * 513):
        with pytest.raises(ConfigError):
            locate(table, bad)


def test_embeddings_are_used_where_they_are_given(played):
    vectors = {t: [float(i == j) for j in range(5)] for i, t in enumerate(TEXTS)}
    table = fit_table(played, COSTS, vectors, Rule(0.05, 0.25))
    assert table.clusters == 4
    place = locate(table, "hit the stove switch", [0.1, 0.0, 0.9, 0.0, 0.0])
    assert place.by == "embedding" and table.routes[place.route].cluster == 2
    assert decide_at(table, place).level == "cluster"
    assert locate(table, "hit the stove switch", [0.0, 0.0, 0.0, 0.0, 1.0]).by == "nothing"
    with pytest.raises(ConfigError, match="wrong size"):
        locate(table, "hit the stove switch", [1.0, 0.0])
    with pytest.raises(ConfigError, match="no embedding"):
        fit_table(played, COSTS, {t: vectors[t] for t in TEXTS[:2]}, Rule(0.05, 0.25))


def test_clusters_are_the_same_in_another_order():
    rng = np.random.default_rng(0)
    centres = np.eye(3).repeat(4, 0) + 0.1 * rng.standard_normal((12, 3))
    order = rng.permutation(12)
    straight, shuffled = cluster(centres.tolist(), 0.6), cluster(centres[order].tolist(), 0.6)
    assert straight == [0] * 4 + [1] * 4 + [2] * 4
    assert [[straight[i] == straight[j] for j in order] for i in order] == [
        [a == b for b in shuffled] for a in shuffled]
    assert cluster([[1.0, 0.0]], 0.6) == [0]
    of, texts, none = spaces(TEXTS, None)
    assert len(texts.centroids) == max(of) + 1 and len(texts.weights) == BUCKETS and none is None


def test_words():
    assert normalised("  Put the BOWL -- on\tit! ") == b"put the bowl on it"
    assert normalised("Größe 3") == "größe 3".encode()
    assert sum(counts("abcd")) == 4 + 3 + 2  # of " abcd ", runs of three, four and five
    assert counts("abc") != counts("acb")


def test_a_state_counts_once(played):
    twice = fit_table(played + [replace(e, log="again") for e in played], COSTS, None, Rule(0.05, 0.25))
    once = fit_table(played, COSTS, None, Rule(0.05, 0.25))
    assert twice.routes == once.routes
    other = [replace(e, success=False, replans=30) if e.instruction == TEXTS[0] else e for e in played]
    half = fit_table(played + other, COSTS, None, Rule(0.05, 0.25))
    assert half.routes[0].evidence[0].successes == 5 == half.routes[0].evidence[0].failures


def test_tables_round_trip_and_are_validated(table, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(table_text(table))
    assert read_table(path) == table
    document = json.loads(table_text(table))
    for change, what in ((lambda d: d.update(schema=2), "schema"), (lambda d: d["rule"].update(tau=1.5), "tau"),
                         (lambda d: d["routes"].pop(), "unlisted"),
                         (lambda d: d["routes"][0].update(cluster=99), "cluster"),
                         (lambda d: d["routes"][0]["evidence"].pop(), "evidence"),
                         (lambda d: d["texts"]["centroids"][0].pop(), "vectors"),
                         (lambda d: d["backbones"][1].update(name="light"), "backbones"),
                         (lambda d: d["routes"][0]["evidence"][0].update(successes=-1), "number"),
                         (lambda d: d.update(extra=1), "unknown key"), (lambda d: d.pop("rule"), "missing")):
        bad = json.loads(json.dumps(document))
        change(bad)
        path.write_text(json.dumps(bad))
        with pytest.raises(ConfigError, match=what):
            read_table(path)
    path.write_text("[]")
    with pytest.raises(ConfigError, match="no routing table|not a JSON object"):
        read_table(path)


def test_the_rule_is_chosen_by_cross_validation(played):
    choice = choose_rule(played, COSTS, None)
    assert choice.kept and choice.routed.success == choice.heavy.success == 1.0
    assert choice.routed.cost_ms < choice.heavy.cost_ms and 0 < choice.routed.heavy < 1
    table = fit_table(played, COSTS, None, choice.rule)
    assert replayed(played, COSTS, by_table(table)).success == 1.0
    with pytest.raises(ConfigError, match="too few"):
        choose_rule([e for e in played if e.state == 0], COSTS, None)


def test_replay_is_over_states_that_all_have_played(played):
    some = [e for e in played if e.backbone == "light" or e.state < 3]
    assert len(paired(some, ("light", "heavy"))) == 3 * len(TEXTS)
    light = replayed(some, COSTS, lambda text, state, of: "light")
    assert light.episodes == 12 and light.success == 10 / 12 and light.heavy == 0
    assert light.cost_ms == pytest.approx(5 + 3 * (10 * 10 + 2 * 30) / 12)


# ---- logs and costs ------------------------------------------------------------------------------------------------


def line(**changes) -> str:
    return json.dumps({"instruction": "turn on the stove", "state": 0, "success": True, "replans": 9} | changes)


def test_logs_are_read_strictly(tmp_path):
    log = tmp_path / "a.jsonl"
    log.write_text(line() + "\n" + line(state=1, success=False) + "\n")
    assert [e.success for e in read_logs([f"light={log}"])] == [True, False]
    with pytest.raises(ConfigError, match="backbone of the log is not known"):
        read_logs([str(log)])
    beside = tmp_path / "a.settings.json"
    beside.write_text('{"member": "heavy", "wrong_instruction": false, "disturb": 0.0}')
    assert {e.backbone for e in read_logs([str(log)])} == {"heavy"}
    beside.write_text('{"member": "heavy", "wrong_instruction": true}')
    with pytest.raises(ConfigError, match="control"):
        read_logs([str(log)])
    beside.unlink()
    for text, what in ((line(success=1), "success"), (line(state=-1), "state"), ("{", "JSON"), ("[]", "instruction"),
                       ("", "empty")):
        log.write_text(text)
        with pytest.raises(ConfigError, match=what):
            read_logs([f"light={log}"])
    with pytest.raises(ConfigError, match="cannot read"):
        read_logs(["light=/no/such.jsonl"])


def test_states_and_costs(tmp_path, played):
    assert parse_states("0-2,7") == {0, 1, 2, 7} and len(of_states(played, parse_states("0-1"))) == len(played) / 5
    assert parse_cost("heavy=38.8+3.1") == ("heavy", Cost(38.8, 3.1, "given"))
    for bad in ("x", "3-1", "", "1-"):
        if bad != "1-":
            with pytest.raises(ConfigError):
                parse_states(bad)
    for bad in ("heavy", "heavy=1", "heavy=-1+2", "heavy=nan+1"):
        with pytest.raises(ConfigError):
            parse_cost(bad)
    profile = tmp_path / "p.json"
    profile.write_text(json.dumps({"light": {"episodes": 2, "observations": 10, "stages": [
        {"runs": 2, "median_ms": 4.0}, {"runs": 10, "median_ms": 1.5}, {"runs": 5, "median_ms": 1.0}]}}))
    assert read_profile(profile, ("light",))["light"] == Cost(4.0, 2.0, "p.json, ? thread(s)")
    with pytest.raises(ConfigError, match="does not contain"):
        read_profile(profile, ("heavy",))


def test_a_prior_of_another_strength_leans_more(played):
    weak, strong = (fit_table(played, COSTS, None, Rule(0.05, 0.25), Prior(1.0, 1.0, s)) for s in (0.5, 20.0))
    place = locate(weak, TEXTS[2])
    means = [a / (a + b) for a, b, _ in (posterior(t, place.route, 0) for t in (weak, strong))]
    assert 0.3 <= means[0] < means[1] < 1.0
    assert Place(0, "text", 1.0) == locate(weak, TEXTS[0])
