"""The bundle that the node runs."""

from __future__ import annotations

import pytest

import vlacompile as vc
from tests.samples.robot_policy import telling


@pytest.fixture(scope="session")
def telling_bundle(tmp_path_factory) -> vc.Bundle:
    return vc.build(telling(), out=tmp_path_factory.mktemp("bundles") / "telling.vlab")
