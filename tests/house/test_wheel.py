"""The wheel brings libvlart: installed elsewhere, without the source tree, a bundle runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, vlacompile as vc
from vlacompile.runtime.library import libvlart
assert vc.__file__.startswith(sys.argv[2]), vc.__file__
assert libvlart()._name.startswith(sys.argv[2]), libvlart()._name
report = vc.verify(sys.argv[1], threads=1)
assert report.passed and len(report.values) > 3
"""


@pytest.mark.full
def test_installed_from_the_wheel(late_fusion_bundle, tmp_path):
    run = lambda *words, **more: subprocess.run([sys.executable, "-m", "pip", *words], check=True,
                                                capture_output=True, **more)
    run("wheel", "--no-deps", "-w", str(tmp_path / "wheels"), str(ROOT))
    wheel, = (tmp_path / "wheels").glob("vlacompile-*.whl")
    assert "-py3-none-linux_" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert "vlacompile/runtime/libvlart.so" in names and "vlacompile/report/page.html" in names
    assert any(n.endswith("recipes/int8.toml") for n in names) and not any(n.startswith("tests/") for n in names)
    target = tmp_path / "site"
    run("install", "--no-deps", "--target", str(target), str(wheel))
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(late_fusion_bundle.path), str(target)], cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": str(target)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
