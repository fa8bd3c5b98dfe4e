"""Isolated environments: which packages become visible in one, and when it is created again."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from vlacompile.frontends.environments import ENVIRONMENTS, Environment
from vlart.errors import SourceError


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """One that does not exist yet; what pip is asked for is kept in its place."""
    monkeypatch.setattr(Environment, "path", property(lambda self: tmp_path / self.name))
    asked: list[list[str]] = []

    def run(command, **how):
        asked.append([str(part) for part in command])
        return SimpleNamespace(returncode=int("no-such-plugin" in command), stderr="ERROR: No matching distribution")

    monkeypatch.setattr(subprocess, "run", run)
    found = Environment("robots", "robots", "1.0", "for robots", ("robots==1.0", "packaging==25.0"))
    found.site_packages().mkdir(parents=True)
    return SimpleNamespace(made=found, asked=asked)


def test_an_installed_package_is_linked_with_what_it_needs(environment):
    environment.made.add(("pytest",))
    linked = {p.name for p in environment.made.site_packages().iterdir()}
    assert {"_pytest", "pluggy"} <= linked and not environment.asked
    assert "packaging" not in linked, "the environment has its own version of it"
    environment.made.add(("pytest",))  # what is there stays


@pytest.mark.parametrize("package", ["lerobot_policy_unheard", "./a_plugin", "lerobot_policy_unheard==1.2"])
def test_any_other_package_is_installed_without_what_it_requires(environment, package):
    """Its requirements would replace the environment's LeRobot, or bring another PyTorch."""
    environment.made.add((package,))
    (command,) = environment.asked
    assert "--no-deps" in command and command[-1] == package


def test_a_package_that_pip_does_not_find_is_refused(environment):
    with pytest.raises(SourceError, match="cannot get no-such-plugin") as caught:
        environment.made.add(("no-such-plugin",))
    assert caught.value.why == "ERROR: No matching distribution"


@pytest.mark.parametrize("also", [(), ("lerobot_policy_unheard",)])
@pytest.mark.parametrize("current", [True, False])
def test_only_an_addition_keeps_an_environment(cli, monkeypatch, also, current):
    done = []
    monkeypatch.setattr(Environment, "is_current", lambda self: current)
    monkeypatch.setattr(Environment, "install", lambda self, progress, also: done.append(f"install {self.name}"))
    monkeypatch.setattr(Environment, "add", lambda self, packages, progress: done.extend(packages))
    name = next(iter(ENVIRONMENTS))
    assert cli("frontends", "--install", name, *(word for a in also for word in ("--also", a)))[0] == 0
    assert done == ([] if also and current else [f"install {name}"]) + [*also]
