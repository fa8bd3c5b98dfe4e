"""One sshd per file of tests; skipped, with what to install, where there is none."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.deploy import board as boards
from tests.deploy import sshd
from tests.runtime_c.running import ort_path


@pytest.fixture(scope="module")
def server():
    if sshd.MISSING:
        pytest.skip(sshd.MISSING)
    # In memory where that is: every step of a flash waits for the disk, and others write to it too.
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None))
    running = sshd.start(folder)
    yield running
    running.end()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def device(server):
    """It runs `first`'s bundle, or nothing; see each file."""
    return boards.Board(server, ort_path())


@pytest.fixture(scope="session")
def first(late_fusion_bundle, tmp_path_factory):
    return boards.variant(late_fusion_bundle, tmp_path_factory.mktemp("first") / "first.vlab", 1)


@pytest.fixture(scope="session")
def second(late_fusion_bundle, tmp_path_factory):
    return boards.variant(late_fusion_bundle, tmp_path_factory.mktemp("second") / "second.vlab", 2)


@pytest.fixture
def fresh(device):
    device.forget()
    yield device
    device.forget()
