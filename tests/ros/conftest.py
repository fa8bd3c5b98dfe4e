"""The bundles that the node runs, and a table of routes."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlacompile as vc
from tests.ros.maps import CUP, PLATE
from tests.samples.robot_policy import pair, telling
from vlacompile.routing.backbone_costs import Cost
from vlacompile.routing.fit import fit_table
from vlacompile.routing.logs import Episode
from vlacompile.routing.table import Rule
from vlacompile.routing.table_binary import table_bytes


@pytest.fixture(scope="session")
def telling_bundle(tmp_path_factory) -> vc.Bundle:
    return vc.build(telling(), out=tmp_path_factory.mktemp("bundles") / "telling.vlab")


@pytest.fixture(scope="session")
def pair_bundle(tmp_path_factory) -> vc.Bundle:
    return vc.build(pair(), out=tmp_path_factory.mktemp("bundles") / "pair.vlab")


@pytest.fixture(scope="session")
def routes(tmp_path_factory) -> Path:
    """A table by which PLATE is light's and CUP is heavy's."""
    rows = {("light", PLATE): 1, ("heavy", PLATE): 1, ("light", CUP): 0, ("heavy", CUP): 1}
    seen = [Episode(b, t, s, bool(ok), 4, "log") for (b, t), ok in rows.items() for s in range(60)]
    costs = {"light": Cost(1.0, 1.0, "test"), "heavy": Cost(9.0, 2.0, "test")}
    path = tmp_path_factory.mktemp("routes") / "t.bin"
    path.write_bytes(table_bytes(fit_table(seen, costs, None, Rule(0.05, 0.25))))
    return path
