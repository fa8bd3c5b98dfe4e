"""An emulated aarch64 machine: libvlart cross-compiled, its tools run under qemu's user-mode emulation.

Owns the list of system packages, the folder used as the emulated system's root, the aarch64 library of ONNX Runtime,
and
the command line. The results are those of such a processor; their latency says nothing about any board.
"""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from vlacompile.compiler.emit.tvm.stage import PACKAGES
from vlart.errors import RuntimeFailure

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "aarch64"
CROSS = "aarch64-linux-gnu-"
EMULATOR = "qemu-aarch64-static"
# Dot products and fp16 arithmetic but no i8mm, bf16 or SVE: as in the Cortex-A78AE of Jetson Orin.
CPU = "cortex-a76"
# Where the packages of a cross compiler install the target's libraries.
LIBRARIES = Path("/usr/aarch64-linux-gnu/lib")
# {required program or file: its package in Debian and Ubuntu}.
NEEDED = {
    f"{CROSS}gcc": "gcc-aarch64-linux-gnu",
    EMULATOR: "qemu-user-static",
    str(LIBRARIES / "libc.so.6"): "libc6-arm64-cross",
    str(LIBRARIES / "libstdc++.so.6"): "libstdc++6-arm64-cross",
}
WHEEL_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_24_aarch64")
# ONNX Runtime reads these files while it is loaded, to choose its kernels, and crashes if they disagree on the number
# of
# processors or describe another architecture; qemu 7.2 would show it the host's. Part 0xd42 is a Cortex-A78AE.
PROCESSORS = {"sys/devices/system/cpu/possible": "0\n", "sys/devices/system/cpu/present": "0\n", "proc/cpuinfo": """\
processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

"""}


def missing() -> tuple[str, ...]:
    """The system packages that are not installed."""
    return tuple(package for file, package in NEEDED.items() if not Path(file).is_file() and shutil.which(file) is None)


def require() -> None:
    """Raises RuntimeFailure naming what to install."""
    if absent := missing():
        raise RuntimeFailure("aarch64 cannot be emulated here", where="this machine", status="NO_BACKEND",
                             why=f"{', '.join(absent)} not installed", fix=f"apt-get install {' '.join(absent)}")


def cross_compile(build: Path, *arguments: str) -> None:
    """Run the runtime's Makefile with the cross compiler. arguments: its targets (default: all) and variables."""
    done = subprocess.run(["make", "-s", "-C", str(ROOT / "runtime_c"), f"CROSS={CROSS}", f"BUILD={build}",
                           f"TEST_PYTHON={sys.executable}", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeFailure("the runtime does not build or pass for aarch64", where="make -C runtime_c",
                             why=(done.stderr.strip().splitlines() or ["make failed"])[-1],
                             fix=f"run it manually: {' '.join(map(shlex.quote, done.args))}")


@dataclass(frozen=True)
class Emulator:
    """sysroot: root of the emulated program's absolute paths; a file missing there is the host's."""

    sysroot: Path
    build: Path

    def command(self, program: str | Path, *arguments) -> list[str]:
        return [EMULATOR, "-cpu", CPU, "-L", str(self.sysroot), str(program), *map(str, arguments)]

    def run(self, program: str | Path, *arguments, timeout_s: float = 900) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(program, *arguments), capture_output=True, text=True, timeout=timeout_s,
                              check=False)

    def make(self, *targets: str) -> None:
        """Cross-compile in runtime_c; programs that a target runs are emulated."""
        cross_compile(self.build, f"EMULATOR={' '.join(self.command('')[:-1])}", *targets)

    def replay(self, bundle: Path, library: Path, *arguments) -> dict:
        """The output of `vlart-run --json`. One thread: the emulator gains nothing from two. Raises RuntimeFailure if
        the program ends without output; a failed self-test is in the result."""
        done = self.run(self.build / "vlart-run", bundle, "--ort", library, "--threads", 1, "--json", *arguments)
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise RuntimeFailure("the emulated vlart-run ended early", where=bundle.name,
                                 why=(done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1],
                                 fix=f"run it manually: {' '.join(done.args)}") from error

    def version(self) -> str:
        """Version of qemu."""
        said = subprocess.run([EMULATOR, "--version"], capture_output=True, text=True, check=True).stdout
        return said.split("version")[1].split()[0]


def emulator(folder: Path = BUILD) -> Emulator:
    """An emulator with its system root in `folder`. Raises RuntimeFailure if packages are missing."""
    require()
    sysroot = folder / "sysroot"
    for relative in ("lib", "usr/lib"):
        link = sysroot / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(LIBRARIES)
    for relative, content in PROCESSORS.items():
        (sysroot / relative).parent.mkdir(parents=True, exist_ok=True)
        (sysroot / relative).write_text(content, encoding="utf-8")
    return Emulator(sysroot, folder / "runtime_c")


def engine_library(folder: Path = BUILD) -> Path:
    """libonnxruntime for aarch64, of the version that is installed for this machine. Raises RuntimeFailure."""
    return library("onnxruntime", importlib.metadata.version("onnxruntime"), "libonnxruntime.so", folder)


def tvm_libraries(folder: Path = BUILD) -> tuple[Path, Path]:
    """libtvm_ffi and libtvm_runtime for aarch64, of the versions that the compiler needs. Raises RuntimeFailure."""
    return (library("apache-tvm-ffi", PACKAGES["apache-tvm-ffi"], "libtvm_ffi.so", folder),
            library("apache-tvm", PACKAGES["apache-tvm"], "libtvm_runtime.so", folder))


def library(package: str, version: str, name: str, folder: Path = BUILD) -> Path:
    """The file in a package's aarch64 wheel whose name begins with `name`; downloaded once. Raises RuntimeFailure."""
    place = folder / f"{package}-{version}"
    if not place.is_dir():
        with zipfile.ZipFile(_download(package, version, folder / "wheels")) as archive:
            names = [n for n in archive.namelist() if Path(n).name.startswith(name)]
            assert len(names) == 1, names
            partial = folder / f"{place.name}.partial"
            partial.mkdir(parents=True, exist_ok=True)
            (partial / Path(names[0]).name).write_bytes(archive.read(names[0]))
            partial.rename(place)
    return next(place.iterdir())


def _download(package: str, version: str, folder: Path) -> Path:
    platforms = [f"--platform={p}" for p in WHEEL_PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", *platforms, f"--dest={folder}", f"{package}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob(f"{package.replace('-', '_')}-{version}-*aarch64.whl"))
    if done.returncode or not found:
        raise RuntimeFailure(f"{package} for aarch64 cannot be downloaded", where=f"{package}=={version}",
                             why=(done.stderr.strip().splitlines() or ["pip left no wheel"])[-1], status="NO_BACKEND",
                             fix="check the network and the package index, then run it again")
    return found[0]
