"""The layers of the package: no import runs upward, no packages import each other in a cycle."""

from __future__ import annotations

import tomllib

import pytest

from tests.house.layers import LAYERS, ROOT, Import, cycles, folder_of, imports, layer_of, modules, upward


@pytest.fixture(scope="module")
def found() -> list[Import]:
    return imports()


def test_no_import_runs_upward(found):
    assert not (wrong := upward(found)), "imports that run upward:\n" + "\n".join(map(str, wrong))


def test_no_cycle_of_packages(found):
    assert not (circles := cycles(found, layer_of)), f"these import each other: {circles}"


def test_every_module_has_a_layer():
    assert {layer_of(m) for m in modules()} == set(LAYERS)


def test_an_import_upward_and_a_cycle_are_found(tmp_path):
    """The control: a tree with both."""
    for name, text in {"errors.py": "", "files/__init__.py": "", "policy/__init__.py": "",
                       "files/toml.py": "def f():\n    from vlacompile.policy import join\n",
                       "policy/join.py": "import vlacompile.errors\nfrom vlacompile.files.toml import f\n"}.items():
        path = tmp_path / "vlacompile" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = imports(tmp_path)
    assert [str(i) for i in upward(found)] == ["vlacompile/files/toml.py:2: files/toml imports policy/join"]
    known = modules(tmp_path)
    assert cycles(found, lambda module: folder_of(module, known)) == [{"files", "policy"}]


@pytest.mark.parametrize(("text", "imported"), [
    ("from vlacompile.policy.join import f", "policy/join"), ("import vlacompile.policy.join as j", "policy/join"),
    ("from ..policy.join import f", "policy/join"), ("from .. import policy", "policy"),
    ("import importlib; importlib.import_module('vlacompile.policy.join')", "policy/join"),
    ("def f(kind): importlib.import_module(f'vlacompile.policy.{kind}')", "policy"),
    ("if TYPE_CHECKING: from vlacompile.policy import join", "policy/join"),
    ("from vlacompile import build", "__init__"), ("import vlacompile", "__init__"),
    ("from .. import build", "__init__"),
])
def test_each_way_to_import_upward_is_found(tmp_path, text, imported):
    for name in ("files/__init__.py", "files/toml.py", "policy/__init__.py", "policy/join.py"):
        path = tmp_path / "vlacompile" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if name == "files/toml.py" else "")
    wrong = [str(i) for i in upward(imports(tmp_path))]
    assert wrong == [f"vlacompile/files/toml.py:1: files/toml imports {imported}"]


def test_every_package_is_in_the_wheel():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {"vlacompile"} | {"vlacompile." + m.replace("/", ".") for m, path in modules().items()
                              if path.name == "__init__.py"}
    assert listed == there | {"vlacompile.recipes", "vlacompile.targets", "vlacompile.targets.software"}
