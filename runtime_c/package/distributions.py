"""What people install, built from the tracked files alone: `python runtime_c/package/distributions.py [FOLDER]`
(`make wheels`).

Wheels of the runtime per processor, of the compiler and of the LeRobot plugin, and a tarball of libvlart for C and C++
per processor. The same commit gives the same bytes: modes, order and times (SOURCE_DATE_EPOCH, by default the
commit's) are set here. Needs git, pip, setuptools and gcc; for the other processor Debian's cross compiler.
"""

from __future__ import annotations

import gzip
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "wheels"
PROCESSORS = ("x86_64", "aarch64")
# glibc's oldest symbols that gcc on Debian 12 leads to; Ubuntu 22.04 (JetPack 6) has 2.35.
MANYLINUX, NEWEST_GLIBC = "manylinux_2_34", (2, 35)
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "vlacompile", "vlart", "recipes", "targets", "runtime_c",
           "integrations/lerobot")
LIBRARIES, PROGRAMS = ("libvlart.so", "libvlart.a"), ("vlart-run", "vlart-dump", "vlart-build")


def version() -> str:
    return tomllib.loads((ROOT / "vlart" / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def epoch() -> str:
    """Seconds, for everything that notes a time."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return given or subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True,
                                   text=True).stdout.strip()


def stage(folder: Path) -> Path:
    """A copy of the files that git has or would take, in modes of its own: nothing that lies about is built in."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *SOURCES], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    for name in sorted(set(listed)):
        if not (ROOT / name).is_file():
            continue  # deleted, and not committed yet
        there = folder / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, there)
        there.chmod(0o755 if os.access(ROOT / name, os.X_OK) else 0o644)
    for project in ("vlart", "integrations/lerobot"):
        shutil.copyfile(folder / "LICENSE", folder / project / "LICENSE")
    return folder


def wheel(project: str, out: Path, processor: str | None = None, native: Path | None = None) -> Path:
    """processor: None: of any. native: folder of what was compiled for it. Raises SystemExit with what pip said."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as made:
        stage(Path(folder))
        if native is not None:
            shutil.copytree(native, Path(folder) / project / "native")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--no-index", "--no-build-isolation", f"--wheel-dir={made}"]
        if processor:
            command.append(f"--config-settings=--build-option=--plat-name={MANYLINUX}_{processor}")
        done = subprocess.run([*command, str(Path(folder) / project)], capture_output=True, text=True,
                              check=False, umask=0o022,
                              env=os.environ | {"SOURCE_DATE_EPOCH": epoch(), "PYTHONHASHSEED": "0"})
        if done.returncode:
            raise SystemExit(f"{project} cannot be built:\n{done.stdout}{done.stderr}")
        built, = Path(made).glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(built, out / built.name))


def compile_native(folder: Path, processor: str) -> Path:
    """Libraries and programs in a new folder. Raises SystemExit where they ask for a newer glibc than boards have."""
    cross = "" if processor == platform.machine() else f"{processor}-linux-gnu-"
    names = LIBRARIES + PROGRAMS
    with tempfile.TemporaryDirectory() as build:
        subprocess.run(["make", "-s", "-j2", "-C", str(ROOT / "runtime_c"), f"CROSS={cross}", f"BUILD={build}",
                        "OPT=-O2", "LDFLAGS=-s", *(f"{build}/{name}" for name in names)], check=True,
                       stdout=subprocess.DEVNULL)
        folder.mkdir(parents=True)
        for name in names:
            shutil.copy(Path(build) / name, folder)
    for name in (n for n in names if not n.endswith(".a")):
        if (newest := newest_glibc(folder / name)) > NEWEST_GLIBC:
            raise SystemExit(f"{name} for {processor} needs glibc {newest[0]}.{newest[1]}: build it on an older system")
    return folder


def tarball(out: Path, processor: str, native: Path) -> Path:
    """libvlart for C and C++: headers, libraries, programs, pkg-config, CMake."""
    name = f"libvlart-{version()}-linux-{processor}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / name
        for place, names in (("lib", LIBRARIES), ("bin", PROGRAMS)):
            (root / place).mkdir(parents=True)
            for file in names:
                shutil.copy(native / file, root / place)
        shutil.copytree(ROOT / "runtime_c" / "include", root / "include")
        shutil.copy(ROOT / "LICENSE", root)
        for source, there in (("vlart.pc.in", "lib/pkgconfig/vlart.pc"),
                              ("vlartConfig.cmake", "lib/cmake/vlart/vlartConfig.cmake"),
                              ("vlartConfigVersion.cmake.in", "lib/cmake/vlart/vlartConfigVersion.cmake")):
            (root / there).parent.mkdir(parents=True, exist_ok=True)
            text = Path(__file__).with_name(source).read_text(encoding="utf-8")
            (root / there).write_text(text.replace("@VERSION@", version()), encoding="utf-8")
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.tar.gz").write_bytes(_packed(root))
    return out / f"{name}.tar.gz"


def _packed(root: Path) -> bytes:
    when, stream = int(epoch()), io.BytesIO()
    with (gzip.GzipFile("", "wb", fileobj=stream, mtime=when) as packed,
          tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive):
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(path.relative_to(root.parent).as_posix())
            entry.size, entry.mtime = path.stat().st_size, when
            entry.mode = 0o755 if path.parent.name == "bin" or path.suffix == ".so" else 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return stream.getvalue()


def newest_glibc(file: Path) -> tuple[int, int]:
    """The newest version of glibc's symbols that an ELF file asks for."""
    said = subprocess.run(["readelf", "--version-info", "--wide", str(file)], check=True, capture_output=True,
                          text=True).stdout
    return max(((int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", said)), default=(0, 0))


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    made = [wheel(".", out), wheel("integrations/lerobot", out)]
    with tempfile.TemporaryDirectory() as folder:
        for processor in PROCESSORS:
            native = compile_native(Path(folder) / processor, processor)
            made += [wheel("vlart", out, processor, native), tarball(out, processor, native)]
    for path in made:
        print(f"{path.stat().st_size:>10}  {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
