"""Everything that people install, built once for the tests of a run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from docs.installed_wheels import distributions_script


@pytest.fixture(scope="session")
def distributions() -> ModuleType:
    """runtime_c/package/distributions.py."""
    return distributions_script()


@pytest.fixture(scope="session")
def native(distributions, tmp_path_factory) -> dict[str, Path]:
    """{processor: folder of its libraries and programs}; the other processor where its compiler is here."""
    folder = tmp_path_factory.mktemp("native")
    return {p: distributions.compile_native(folder / p, p) for p in distributions.PROCESSORS
            if p == distributions.platform.machine() or distributions.shutil.which(f"{p}-linux-gnu-gcc")}


@pytest.fixture(scope="session")
def runtime_wheels(distributions, native, tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("wheels")
    return {p: distributions.wheel("vlart", out, p, folder) for p, folder in native.items()}


@pytest.fixture(scope="session")
def compiler_wheel(distributions, tmp_path_factory) -> Path:
    return distributions.wheel(".", tmp_path_factory.mktemp("compiler"))


@pytest.fixture(scope="session")
def plugin_wheel(distributions, tmp_path_factory) -> Path:
    return distributions.wheel("integrations/lerobot", tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def offline() -> list[str]:
    """What a command is prefixed with to run without a network; [] where the kernel does not allow that."""
    words = ["unshare", "--map-root-user", "--net"]
    try:
        return words if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0 else []
    except OSError:
        return []


def installed(folder: Path, *wheels: Path) -> Path:
    """The bin/ of a new environment with these wheels alone, installed without index or network."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet",
                    "--disable-pip-version-check", "--no-index", "--no-deps", *map(str, wheels)], check=True)
    return folder / "bin"


def only(folder: Path, *packages: str) -> Path:
    """A folder with links to installed packages of this environment, and nothing else, for PYTHONPATH."""
    folder.mkdir()
    for package in packages:
        home = Path(importlib.util.find_spec(package).origin).parent
        for part in (home, home.parent / f"{package}.libs"):
            if part.is_dir():
                (folder / part.name).symlink_to(part)
    return folder
