"""The content of a slot: the bundle's files, the runtime's programs and the engine's library, each by the
hash of its content."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlart.bundle.directory import MANIFEST_FILE, SIGNATURE_FILE, SUMS_FILE, Bundle
from vlart.errors import BundleError, DeployError, RuntimeFailure
from vlart.runtime.library import native_folder, onnxruntime_library

BUNDLE, PROGRAMS = "bundle.vlab", "bin"  # folders of a slot
ENGINE = "libonnxruntime.so"
SIGNATURE = (SUMS_FILE, SIGNATURE_FILE)
PIECE = 1 << 18  # bytes per read
# {`uname -m`: ELF's e_machine}.
MACHINES = {"x86_64": 62, "aarch64": 183}
_SAFE_PATH = re.compile(r"[\w.+@-]+(/[\w.+@-]+)*", re.ASCII)
_SAFE_NAME = re.compile(r"\w[\w.+-]*", re.ASCII)


@dataclass(frozen=True)
class Piece:
    """One file: path in the slot, octal mode, and its path on this machine."""

    path: str
    mode: str
    sha256: str
    bytes: int
    source: Path

    def from_offset(self, offset: int) -> Iterator[bytes]:
        with self.source.open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE):
                yield piece


def pieces_of(bundle: Bundle) -> tuple[Piece, ...]:
    """The pieces of a bundle whose files were checked against its manifest. Raises BundleError for an unsafe file
    name."""
    if not _SAFE_NAME.fullmatch(bundle.plan.name):
        raise BundleError(f'the policy\'s name "{bundle.plan.name}" cannot be a folder', where=str(bundle.path),
                          why="letters, digits and _ . + - are allowed", fix="build it with another name")
    found = []
    for relative, entry in bundle.manifest["files"].items():
        if not _SAFE_PATH.fullmatch(relative) or ".." in relative.split("/"):
            raise BundleError(f'the file name "{relative}" is refused', where=str(bundle.path),
                              why="letters, digits and _ . + @ - are allowed", fix="build the bundle again")
        found.append(Piece(f"{BUNDLE}/{relative}", "444", entry["sha256"], entry["bytes"], bundle.path / relative))
    beside = [MANIFEST_FILE, *(name for name in SIGNATURE if (bundle.path / name).is_file())]
    return (*found, *(_piece(bundle.path / name, f"{BUNDLE}/{name}", "444") for name in beside))


def programs_for(arch: str, folder: Path | None, build: bool, host: str) -> tuple[Piece, ...]:
    """vlart-run, libvlart.so if it was built, and vlart-build (required if `build`).

    folder: where they were built; None: the output folder of `make` in a source tree. Raises DeployError.
    """
    folder = folder or _built_for(arch)
    names = {"vlart-run": True, "libvlart.so": False, "vlart-build": build}
    for name, needed in names.items():
        if needed and not (folder / name).is_file():
            raise DeployError(f"there is no {name} for {host}, which is {arch}", where=str(folder / name),
                              step="payload",
                              why="its stages must be built into TensorRT engines on the board" if name == "vlart-build"
                              else "it was not built for that processor", fix=_how_to_build(arch))
    files = [folder / name for name in names if (folder / name).is_file()]
    for file in files:
        _check_machine(file, arch, host)
    return tuple(_piece(file, f"{PROGRAMS}/{file.name}", "555") for file in files)


def engine_for(arch: str, given: Path | None, folder: Path | None, host: str) -> Piece | None:
    """ONNX Runtime's library for a processor, to be sent with the programs.

    given: the file; None: the one installed on this machine for this processor, or the one beside the device's programs
    or where `benchmarks.emulator.engine_library` stores it. None: there is none. Raises DeployError.
    """
    if given is not None and not given.is_file():
        raise DeployError(f"there is no ONNX Runtime for {host} at the given path", where=str(given),
                          why="no such file", fix=how_to_get_engine(arch), step="payload")
    found = given or engine_here(arch, folder or _built_for(arch))
    if found is None:
        return None
    _check_machine(found, arch, host)
    if not _SAFE_PATH.fullmatch(found.name):
        raise DeployError(f'the file name "{found.name}" is refused', where=str(found), step="payload",
                          why="letters, digits and _ . + @ - are allowed", fix="restore its original name")
    return _piece(found, f"{PROGRAMS}/{found.name}", "444")


def engine_here(arch: str, folder: Path) -> Path | None:
    if arch == platform.machine():
        try:
            return onnxruntime_library()
        except RuntimeFailure:
            pass  # the package is not installed; the folder may have it
    places = [*folder.glob(f"{ENGINE}*"), *folder.parent.glob(f"onnxruntime-*/{ENGINE}*")]
    return max((p for p in places if p.is_file()), default=None)


def how_to_get_engine(arch: str) -> str:
    version = _version("onnxruntime") or "VERSION"
    return (f"pip download --no-deps --only-binary=:all: --platform manylinux_2_28_{arch} "
            f"onnxruntime=={version}, unzip "
            f"it, and name its {ENGINE}.{version} with --ort-library; or `pip install onnxruntime` on the device")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_stages(bundle: Bundle, arch: str, host: str) -> None:
    """Raises DeployError if a stage was compiled for another processor."""
    for path in sorted((bundle.path / "stages").glob("*.so")):
        _check_machine(path, arch, host)


def identity(pieces: tuple[Piece, ...], arguments: tuple[str, ...]) -> str:
    """Hash of a slot's content and of its programs' arguments."""
    lines = sorted(f"{p.sha256} {p.mode} {p.path}" for p in pieces) + list(arguments)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _built_for(arch: str) -> Path:
    if arch == platform.machine():
        return native_folder()
    return Path(__file__).resolve().parents[2] / "build" / arch / "runtime_c"


def _how_to_build(arch: str) -> str:
    if arch == platform.machine():
        return "run `make runtime`, or name the folder with --runtime"
    return (f"make -C runtime_c CROSS={arch}-linux-gnu- BUILD=../build/{arch}/runtime_c, or name the folder that "
            f"has it "
            "with --runtime")


def _piece(file: Path, path: str, mode: str) -> Piece:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Piece(path, mode, digest, file.stat().st_size, file)


def _check_machine(file: Path, arch: str, host: str) -> None:
    """Raises DeployError for an ELF file of another machine; a script is not checked."""
    with file.open("rb") as stream:
        head = stream.read(20)
    machine = int.from_bytes(head[18:20], "little")
    if head[:4] == b"\x7fELF" and machine != MACHINES.get(arch):
        name = next((a for a, number in MACHINES.items() if number == machine), f"machine {machine}")
        raise DeployError(f"{file.name} is for {name}, {host} is {arch}", where=str(file), why="the processors differ",
                          fix=_how_to_build(arch) if file.suffix != ".so" or file.name == "libvlart.so" else
                          "build the bundle for a target with that processor", step="payload")
