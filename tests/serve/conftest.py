"""Bundles that are served, built once, and a key."""

from __future__ import annotations

import pytest

import vlacompile as vc
from tests.samples import policies
from tests.serve.serving import KEY, averaging, sampling
from vlart.serve.access import Access, decide_access


@pytest.fixture(scope="session")
def late_fusion_bundle(tmp_path_factory) -> vc.Bundle:
    """With the default recipe: fewer stages, built sooner."""
    return vc.build(policies.late_fusion(), out=tmp_path_factory.mktemp("serve") / "late_fusion.vlab")


@pytest.fixture(scope="session")
def sampling_bundle(tmp_path_factory) -> vc.Bundle:
    return vc.build(sampling(), out=tmp_path_factory.mktemp("serve") / "sampling.vlab")


@pytest.fixture(scope="session")
def averaged(tmp_path_factory) -> vc.Bundle:
    folder = tmp_path_factory.mktemp("averaged")
    (folder / "r.toml").write_text('name = "r"\ndescription = "r"\n[action]\nconsume = "ensemble"\ndecay = 0.0\n')
    return vc.build(averaging(), recipe=str(folder / "r.toml"), out=folder / "a.vlab")


@pytest.fixture
def key_access(tmp_path) -> Access:
    (tmp_path / "key").write_text(KEY + "\n")
    return decide_access("127.0.0.1", str(tmp_path / "key"), False, None, None)
