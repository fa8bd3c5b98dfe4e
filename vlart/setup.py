"""Puts libvlart and its programs into the wheel, compiled for the processor of its platform tag. Everything else is in
pyproject.toml. `--plat-name` names another platform than this machine's: Debian's cross compiler is used then.

A checkout installed with `pip install --editable` uses build/runtime_c instead.
"""

import atexit
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parents[1]
COMPILED = Path(__file__).with_name("native")  # runtime_c/package/distributions.py puts them there
NATIVE = ("libvlart.so", "vlart-run", "vlart-dump", "vlart-build")
PROCESSORS = ("x86_64", "aarch64")


class BuildRuntime(build_py):
    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        return [m for m in super().find_package_modules(package, package_dir) if m[1] != "setup"]

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return None
        tag = self.get_finalized_command("bdist_wheel").get_tag()[2]
        processor = next((p for p in PROCESSORS if tag.endswith(p)), platform.machine())
        native = Path(self.build_lib) / "vlart" / "native"
        native.mkdir(parents=True, exist_ok=True)
        if COMPILED.is_dir():
            return _put(COMPILED, native)
        with tempfile.TemporaryDirectory() as folder:
            cross = "" if processor == platform.machine() else f"{processor}-linux-gnu-"
            command = ["make", "-s", "-C", str(ROOT / "runtime_c"), f"CROSS={cross}", f"BUILD={folder}", "OPT=-O2",
                       "LDFLAGS=-s", *(f"{folder}/{name}" for name in NATIVE)]
            try:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            except (OSError, subprocess.CalledProcessError) as error:
                raise SystemExit(f"libvlart cannot be built: {error}. It needs make and a C compiler: on Debian and "
                                 "Ubuntu, apt-get install make gcc") from error
            return _put(Path(folder), native)


def _put(compiled: Path, native: Path) -> None:
    for name in NATIVE:
        shutil.copy(compiled / name, native)
        (native / name).chmod(0o755)


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class PlatformWheel(bdist_wheel):
    """For any Python 3, but one operating system and processor."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


# Not in build/ beside this file: that is the package, and what was built before would be built in again.
BUILD = tempfile.mkdtemp(prefix="vlart-build-")
atexit.register(shutil.rmtree, BUILD, ignore_errors=True)
setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildRuntime, "bdist_wheel": PlatformWheel},
      options={"build": {"build_base": BUILD}})
