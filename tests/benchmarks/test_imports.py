"""Every benchmark can start: what it takes from the project is there under that name."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks

OURS = ("benchmarks", "docs", "examples", "tests", "vlacompile", "vlart")
MODULES = sorted(m.name for m in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
                 if not m.name.endswith("__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_it_imports(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as absent:  # a package of a peer's, which its extra installs
        assert absent.name.partition(".")[0] not in OURS, name


def test_there_are_benchmarks():
    assert len(MODULES) > 20
