"""Run with libcut_disk.so preloaded: `power_cut_driver.py SHIM DIRECTORY WRITER`. Cuts power at every step of a writer
of files and looks at what is left. Prints how many cuts there were, how many left the old state and how many the new
one."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

from vlart.files.atomic import put_tree, write_file, write_tree

CUT, DONE = 77, 78  # how a child ends
OLD, NEW = b"old" * 500, b"new!" * 700


def naive(path: Path, data: bytes) -> None:
    """The control: in place."""
    path.write_bytes(data)


def renamed(path: Path, data: bytes) -> None:
    """The control that syncs nothing."""
    beside = path.with_name("beside")
    beside.write_bytes(data)
    beside.rename(path)


def tree(path: Path, data: bytes) -> None:
    beside = path.with_name("beside")
    shutil.rmtree(beside, ignore_errors=True)
    write_tree(beside, {"plan.bin": data, "stages/a.onnx": data[::-1]})
    put_tree(beside, path)


def content(path: Path) -> bytes | None:
    if path.is_dir():
        parts = [path / "plan.bin", path / "stages" / "a.onnx"]
        first, second = (p.read_bytes() if p.is_file() else b"" for p in parts)
        return first if second == first[::-1] else b"mixed"
    return path.read_bytes() if path.is_file() else None


WRITERS = {"file": write_file, "naive": naive, "renamed": renamed, "tree": tree}


def main(shim: str, directory: str, writer: str) -> None:
    library, write = ctypes.CDLL(shim), WRITERS[writer]
    library.cut_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_size_t]
    folder = Path(directory) / "watched"
    found = {"cuts": 0, "old": 0, "new": 0, "neither": 0, "finished": 0, "lost": 0}
    for variant in range(5):
        for prefix in (0, 1000) if writer == "tree" else (0, 1, 7, 1000, 10**6):
            finished, at = False, 0
            while not finished:
                at += 1
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                write(folder / "it", OLD)
                child = os.fork()
                if child == 0:
                    library.cut_arm(os.fsencode(folder), at, variant, prefix)
                    write(folder / "it", NEW)
                    library.cut_now()
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                assert code in (CUT, DONE), code
                finished = code == DONE
                left = content(folder / "it")
                kind = "old" if left == OLD else "new" if left == NEW else "neither"
                found[kind] += 1
                found["finished" if finished else "cuts"] += 1
                found["lost"] += finished and kind != "new"
                if not finished:  # and it goes on from there
                    write(folder / "it", NEW)
                    found["lost"] += content(folder / "it") != NEW
    print(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
