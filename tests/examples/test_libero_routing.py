"""The recorded pair, routed offline: what profiles/host/routing.json says is what the code gives."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from examples.libero_goal import routed
from vlacompile.routing.backbone_costs import read_profile
from vlacompile.routing.decide import decide
from vlacompile.routing.fit import by_table, replayed
from vlacompile.routing.logs import of_states

PROFILE = Path("profiles/host/routing.json")


@pytest.fixture(scope="module")
def vectors():
    return routed.embeddings(sorted({e.instruction for e in routed.recorded()}))


def test_the_recorded_profile_is_reproduced(vectors, monkeypatch, capsys):
    written = {}
    monkeypatch.setattr(routed, "embeddings", lambda texts: {t: vectors[t] for t in texts})
    monkeypatch.setattr(routed, "write_whole", lambda path, data: written.update({str(path): data}))
    routed.offline(argparse.Namespace(parts=2, record=True))
    got, want = json.loads(written[str(PROFILE)]), json.loads(PROFILE.read_text())
    assert got["costs"] == want["costs"] and got["parts"] == want["parts"]
    for name, outcome in want["outcomes"].items():
        assert got["outcomes"][name] == pytest.approx(outcome, rel=1e-9), name
    assert "of heavy" in capsys.readouterr().out


def test_routing_keeps_its_promise_on_recorded_states():
    """Each half of the states routed by a table of the other half; the closed loop is another matter."""
    outcomes = json.loads(PROFILE.read_text())["outcomes"]
    assert outcomes["routed"]["episodes"] >= 100
    assert outcomes["routed"]["success"] >= outcomes["heavy"]["success"] - 0.01
    assert outcomes["routed"]["cost_ms"] <= 0.6 * outcomes["heavy"]["cost_ms"]
    assert outcomes["light"]["success"] < outcomes["routed"]["success"] <= outcomes["oracle"]["success"]


def test_unseen_instructions_find_their_cluster(vectors):
    costs = read_profile(routed.PROFILE, routed.MEMBERS)
    episodes = of_states(routed.recorded(), frozenset(range(20)))
    table = routed.fitted(episodes, costs, vectors)
    taken = {r.text: table.backbones[decide(table, r.text).backbone].name for r in table.routes if r.text}
    assert "heavy" in taken.values() and list(taken.values()).count("light") >= len(taken) / 2
    new = routed.embeddings(["set the bowl onto the plate", "what is the weather"])
    near, far = (decide(table, t, v) for t, v in new.items())
    plate = decide(table, "put the bowl on the plate")
    assert near.place.by == "embedding" and near.level == "cluster"
    assert table.routes[near.place.route].cluster == table.routes[plate.place.route].cluster
    assert far.place.by == "nothing" and far.level == "all"
    heavy = replayed(episodes, costs, lambda *_: "heavy")
    assert replayed(episodes, costs, by_table(table)).cost_ms < 0.6 * heavy.cost_ms
