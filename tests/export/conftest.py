"""A recording of a small policy with a camera, for the exports."""

from __future__ import annotations

import pytest

import vlacompile as vc
from tests.samples import recorded_robot as robot
from vlart.recording.log import Log


@pytest.fixture(scope="package")
def bundle(tmp_path_factory):
    return robot.built(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="package")
def log(bundle, tmp_path_factory) -> Log:
    """Three episodes of two replans, with a pause that makes the control rate known."""
    path = tmp_path_factory.mktemp("export") / "run.vlog"
    with vc.Session(bundle, record=path) as session:
        robot.drive(session, episodes=3, replans=2, period=2e-3)
    return Log(path)


@pytest.fixture(scope="package")
def log_async(bundle, tmp_path_factory) -> Log:
    path = tmp_path_factory.mktemp("export") / "async.vlog"
    with vc.AsyncSession(bundle, record=path) as session:
        robot.drive_async(session, period=1e-3)
    return Log(path)
