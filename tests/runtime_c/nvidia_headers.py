"""Gets NVIDIA's public headers for the tests on doubles of its libraries: `make nvidia-headers`.

    python -m tests.runtime_c.nvidia_headers [--tensorrt GIT] [--parser GIT]

Sources at fixed commits by git, CUDA's headers from wheels of fixed versions; no more than headers and the one source
that names trtexec's options is kept. They lie under build/nvidia and are no part of this repository. GIT: a clone to
take instead of the address.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.runtime_c.nvidia_double import HEADERS, Software
from vlart.errors import SourceError

TENSORRT, PARSER = "https://github.com/NVIDIA/TensorRT", "https://github.com/onnx/onnx-tensorrt"


@dataclass(frozen=True)
class Wanted:
    """sources: (address, commit, {path there: folder or file here; a folder gives its content}). wheels: of CUDA."""

    software: Software
    sources: tuple[tuple[str, str, dict[str, str]], ...]
    wheels: tuple[str, ...]


_FILES = {"include": ".", "samples/common/sampleOptions.cpp": "sampleOptions.cpp"}
WANTED = (
    Wanted(Software("10.3", "12.6"),
           ((TENSORRT, "5b990f0a739d8faf962dfe54f4829942633c639c", _FILES),  # release/10.3
            (PARSER, "96e781103cfc4adf4a6bb557e94bac8e693f6f4c", {"NvOnnxParser.h": "NvOnnxParser.h"})),  # 10.1-GA
           ("nvidia-cuda-runtime-cu12==12.6.77", "nvidia-cuda-nvcc-cu12==12.6.77")),
    # release/10.16
    Wanted(Software("10.16", "13.2"), ((TENSORRT, "d0faf303ba766f20cd9fd8c413a112fc2e5a397b", _FILES),),
           ("nvidia-cuda-runtime==13.2.86", "nvidia-cuda-crt==13.2.86")),
)


def _ran(command: list[str], what: str, where: str) -> None:
    """Raises SourceError with what it says of it."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or ["it failed"]
        raise SourceError(f"{what} cannot be had", where=where, why=next((s for s in said if "fatal:" in s), said[-1]),
                          fix="check the network, or name a clone: "
                              "see python -m tests.runtime_c.nvidia_headers --help") from error


def sources(address: str, commit: str, files: dict[str, str], out: Path) -> None:
    """Of one commit, these files alone. Its name is its content's checksum, so a clone is as good as the address."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", folder]
        for command in (["init", "-q"], ["remote", "add", "origin", address],
                        ["fetch", "-q", "--depth", "1", "--filter=blob:none", "origin", commit],
                        ["checkout", "-q", commit, "--", *files]):
            _ran([*git, *command], f"commit {commit[:12]}", address)
        for there, here in files.items():
            path = Path(folder, there)
            if path.is_dir():
                shutil.copytree(path, out / here, dirs_exist_ok=True)
            else:
                shutil.copy(path, out / here)


def wheels(names: tuple[str, ...], out: Path) -> None:
    """What lies under a folder `include` in each."""
    with tempfile.TemporaryDirectory() as folder:
        _ran([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder, *names],
             ", ".join(names), "pip download")
        for path in sorted(Path(folder).iterdir()):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    _, inside, rest = name.partition("/include/")
                    if inside and rest and not name.endswith("/"):
                        target = out / "include" / rest
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(archive.read(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensorrt", metavar="GIT", default=TENSORRT)
    parser.add_argument("--parser", metavar="GIT", default=PARSER)
    arguments = parser.parse_args()
    instead = {TENSORRT: arguments.tensorrt, PARSER: arguments.parser}
    for wanted in WANTED:
        if not wanted.software.missing() and (wanted.software.headers / "sampleOptions.cpp").is_file():
            continue
        wanted.software.headers.mkdir(parents=True, exist_ok=True)
        try:
            for address, commit, files in wanted.sources:
                sources(instead[address], commit, files, wanted.software.headers)
            wheels(wanted.wheels, wanted.software.toolkit)
        except SourceError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        assert not wanted.software.missing(), wanted.software.missing()
    print(f"headers of TensorRT {' and '.join(w.software.tensorrt for w in WANTED)} under {HEADERS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
