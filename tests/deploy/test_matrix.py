"""The matrix of faults: every tenth row for every day, the rest for make test-full and `benchmarks.flash_faults`."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.deploy import board as boards
from tests.deploy.matrix import Stage, play
from tests.deploy.matrix_faults import every_fault
from tests.deploy.matrix_signed import signed_faults, signed_stage


@pytest.fixture(scope="module")
def stage(device, first, second, tmp_path_factory) -> Stage:
    assert device.flash(first) == 0 and device.flash(second) == 0
    folder = tmp_path_factory.mktemp("stage")
    shutil.copytree(device.root, folder / "base", symlinks=True)
    third = boards.variant(first, folder / "third.vlab", 3)
    return Stage(device, second, third, first.hash, folder / "base")


@pytest.fixture(scope="module")
def signed(device, late_fusion_bundle, tmp_path_factory) -> Stage:
    return signed_stage(device, late_fusion_bundle, tmp_path_factory.mktemp("signed"))


def thinned(faults) -> list:
    return [pytest.param(f, id=f"{f.kind}: {f.name}", marks=() if i % 10 == 0 else pytest.mark.full)
            for i, f in enumerate(faults)]


@pytest.mark.parametrize("fault", thinned(every_fault()))
def test_it_holds(stage, fault):
    if fault.kind in ("disk full", "read-only") and os.geteuid() != 0:
        pytest.skip("a file system is mounted: run it as root")
    row = play(fault, stage)
    assert not row.wrong, row


@pytest.mark.parametrize("fault", thinned(signed_faults()))
def test_it_holds_where_signers_are_enrolled(signed, fault):
    row = play(fault, signed)
    assert not row.wrong, row


def test_the_matrix_can_fail(stage):
    """A device that forgets its current slot is found."""
    fault = next(f for f in every_fault() if f.name == "step missing")
    strict = type(fault)(fault.kind, fault.name, fault.around, codes=(0,), runs=("new",), told="what it never says")
    assert len(play(strict, stage).wrong) == 3
