"""The layers of the packages: no import runs upward, no packages import each other in a cycle."""

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
    for name, text in {"../vlart/errors.py": "", "files/__init__.py": "", "policy/__init__.py": "",
                       "files/toml.py": "def f():\n    from vlacompile.policy import join\n",
                       "policy/join.py": "import vlart.errors\nfrom vlacompile.files.toml import f\n"}.items():
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


def listed(project: str) -> set[str]:
    return set(tomllib.loads((ROOT / project).read_text())["tool"]["setuptools"]["packages"])


def test_every_package_is_in_its_wheel():
    there = {"vlart", "vlacompile"}
    for path in modules().values():
        if path.name == "__init__.py":
            there.add(".".join(path.relative_to(ROOT).parent.parts))
    data = {"vlacompile.recipes", "vlacompile.targets", "vlacompile.targets.software"}
    assert listed("vlart/pyproject.toml") == {name for name in there if name.split(".")[0] == "vlart"}
    assert listed("pyproject.toml") == {name for name in there if name.split(".")[0] == "vlacompile"} | data


def test_the_runtime_imports_nothing_of_the_compiler(found):
    assert not [str(i) for i in found if i.importer.startswith("vlart/") and not i.imported.startswith("vlart/")]


def test_users_find_every_error_at_the_compiler():
    import vlacompile.errors
    import vlart.errors

    classes = {name for name, value in vars(vlart.errors).items()
               if isinstance(value, type) and issubclass(value, vlart.errors.VlaError)}
    assert set(vlacompile.errors.__all__) == classes
    assert all(getattr(vlacompile.errors, name) is getattr(vlart.errors, name) for name in classes)
