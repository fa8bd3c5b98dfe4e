"""What is not a Python package: the interpreter, programs, libvlart and the engines' libraries, environments, disk and
memory.

Modules of vlacompile are imported where they are asked: one that is broken is a finding.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vlacompile.doctor.finding import BROKEN, HERE, LOW, MISSING, OTHER, Finding

OLDEST_PYTHON = (3, 11)
FREE_DISK_BYTES, FREE_MEMORY_BYTES = 2 << 30, 2 << 30  # below, a policy of a few hundred megabytes fails to build
ANSWER_S = 20.0
OPENSSH = re.compile(r"OpenSSH_(\d+)\.(\d+)")
OLDEST_OPENSSH = (8, 2)  # ssh-keygen -Y sign


@dataclass(frozen=True)
class Program:
    """version: the arguments that make it print its version. package: of Debian and Ubuntu."""

    name: str
    version: tuple[str, ...]
    package: str
    uses: tuple[str, ...]


PROGRAMS = (
    Program("gcc", ("--version",), "gcc", ("make runtime",)),
    Program("make", ("--version",), "make", ("make runtime",)),
    Program("g++", ("--version",), "g++", ("build with stages.tvm",)),
    Program("aarch64-linux-gnu-gcc", ("--version",), "gcc-aarch64-linux-gnu", ("flash to aarch64",)),
    Program("qemu-aarch64-static", ("--version",), "qemu-user-static", ("make aarch64",)),
    Program("ssh", ("-V",), "openssh-client", ("flash", "device")),
    Program("ssh-keygen", (), "openssh-client", ("sign",)),
    Program("git", ("--version",), "git", ("make setup",)),
)


def find_interpreter() -> Finding:
    version = platform.python_version()
    why = f"{'.'.join(map(str, OLDEST_PYTHON))} or later is wanted"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("Python", OTHER, ("every verb",), version, why, "make setup PYTHON=python3.12")
    return Finding("Python", HERE, ("every verb",), version)


def find_distributions() -> list[Finding]:
    found = []
    for name in ("vlacompile", "vlacompile-runtime"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(name, MISSING, ("the versions that are wanted",), install=f"pip install {name}",
                                 why="its metadata is not there; its files may be"))
        else:
            found.append(Finding(name, HERE, ("every verb",), version))
    return found


def find_program(program: Program) -> Finding:
    install = f"apt-get install {program.package}"
    path = shutil.which(program.name)
    if path is None:
        return Finding(program.name, MISSING, program.uses, why="not on the path", install=install)
    if not program.version:
        return Finding(program.name, HERE, program.uses, path)
    try:
        done = subprocess.run([path, *program.version], capture_output=True, text=True, errors="replace",
                              timeout=ANSWER_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(program.name, BROKEN, program.uses, path, str(error), install)
    said = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode or not said:
        return Finding(program.name, BROKEN, program.uses, path,
                       f"it ends with {done.returncode}: {said[-1] if said else 'nothing said'}", install)
    number = OPENSSH.search(said[0])
    if number and (int(number[1]), int(number[2])) < OLDEST_OPENSSH:
        return Finding(program.name, OTHER, program.uses, number[0], "8.2 or later is wanted", install)
    return Finding(program.name, HERE, program.uses, _version_in(said[0]))


def _version_in(line: str) -> str:
    """The last number with a dot in it, as "gcc (Debian 12.2.0-14) 12.2.0" ends; of OpenSSH's line, its own."""
    if number := OPENSSH.search(line):
        return number[0].replace("_", " ")
    numbers = re.findall(r"\d+(?:\.\d+)+", line)
    return numbers[-1] if numbers else line[:40]


def find_libvlart() -> Finding:
    uses = ("build", "verify", "run", "serve", "route")
    from vlart.errors import VlaError
    from vlart.runtime.library import libvlart, libvlart_path

    try:
        path, library = libvlart_path(), libvlart()
    except VlaError as error:
        return Finding("libvlart", MISSING if "not built" in error.what else BROKEN, uses, why=error.why,
                       install=error.fix)
    except OSError as error:
        return Finding("libvlart", BROKEN, uses, str(libvlart_path()), str(error), "make runtime")
    version = library.vlart_abi_version()
    return Finding("libvlart", HERE, uses, f"ABI {version >> 16}.{version & 0xFFFF}, {shown(path)}")


def find_engine() -> Finding:
    """The library that libvlart loads; whether the package can be imported is another question."""
    uses = ("build", "verify", "run", "serve", "route")
    from vlart.errors import VlaError
    from vlart.runtime.library import onnxruntime_library

    try:
        path = onnxruntime_library()
    except VlaError as error:
        return Finding("libonnxruntime", MISSING, uses, why=error.why, install=error.fix.partition(",")[0])
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return Finding("libonnxruntime", BROKEN, uses, path.name, str(error),
                       "pip install --force-reinstall onnxruntime")
    return Finding("libonnxruntime", HERE, uses, path.name.partition(".so.")[2] or path.name)


def find_environments() -> list[Finding]:
    """The frontends' own environments (LeRobot, transformers), each asked for the version that it holds."""
    from vlacompile.frontends.environments import ENVIRONMENTS

    found = []
    for environment in ENVIRONMENTS.values():
        uses = (f"build of {environment.package} {environment.version} checkpoints",)
        what, install = f"environment {environment.name}", f"vlacompile frontends --install {environment.name}"
        if not environment.is_installed():
            found.append(Finding(what, MISSING, uses, why="not created", install=install))
            continue
        program = f"import importlib.metadata as m; print(m.version({environment.package!r}))"
        try:
            done = subprocess.run([environment.python, "-c", program], capture_output=True, text=True, check=False,
                                  errors="replace", timeout=ANSWER_S)
            version = done.stdout.strip()
            why = (done.stderr.strip().splitlines() or [f"it ends with {done.returncode}"])[-1]
        except (OSError, subprocess.TimeoutExpired) as error:
            version, why = "", str(error)
        if version == environment.version:
            found.append(Finding(what, HERE, uses, f"{environment.package} {version}"))
        elif version:
            found.append(Finding(what, OTHER, uses, version, f"{environment.version} is wanted", install))
        else:
            found.append(Finding(what, BROKEN, uses, "", why, install))
    return found


def find_disk(folder: Path | None = None) -> list[Finding]:
    """Where a bundle is written, and where a build keeps what it works on."""
    found = []
    for what, place in (("disk, here", folder or Path.cwd()), ("disk, temporary", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(place).free
        state = HERE if free >= FREE_DISK_BYTES else LOW
        found.append(Finding(what, state, ("build",), f"{gib(free)} free in {shown(place)}",
                             "" if state == HERE else f"{gib(FREE_DISK_BYTES)} and twice the checkpoint are wanted"))
    return found


def find_memory(table: Path = Path("/proc/meminfo")) -> Finding:
    sizes = {key: int(value) << 10 for key, value in
             re.findall(r"^(\w+):\s+(\d+) kB$", table.read_text(encoding="ascii"), re.MULTILINE)}
    total, available = sizes["MemTotal"], sizes["MemAvailable"]
    state = HERE if available >= FREE_MEMORY_BYTES else LOW
    return Finding("memory", state, ("build",), f"{gib(available)} of {gib(total)} available",
                   "" if state == HERE else "a build needs about three times the checkpoint")


def system() -> dict[str, str]:
    """What a bug report begins with."""
    return {"system": f"{platform.system()} {platform.release()} {platform.machine()}", "libc": _libc(),
            "processors": str(os.cpu_count()), "python": f"{platform.python_version()}, {shown(Path(sys.executable))}"}


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def shown(path: Path) -> str:
    """Without the name of who runs it."""
    home = str(Path.home())
    return f"~{str(path)[len(home):]}" if str(path).startswith(home + os.sep) else str(path)
