"""Puts libvlart, built for this machine, into the wheel. Everything else is in pyproject.toml.

A checkout installed with `pip install --editable` uses build/runtime_c instead.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildRuntime(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            with tempfile.TemporaryDirectory() as folder:
                command = ["make", "-s", "-C", str(ROOT / "runtime_c"), f"BUILD={folder}", "OPT=-O2",
                           f"{folder}/libvlart.so"]
                try:
                    subprocess.run(command, check=True)
                except (OSError, subprocess.CalledProcessError) as error:
                    raise SystemExit(f"libvlart cannot be built: {error}. It needs make and a C compiler: "
                                     "on Debian and Ubuntu, apt-get install make gcc") from error
                shutil.copy(f"{folder}/libvlart.so", Path(self.build_lib) / "vlacompile" / "runtime")


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class PlatformWheel(bdist_wheel):
    """For any Python 3, but this operating system and processor."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildRuntime, "bdist_wheel": PlatformWheel})
