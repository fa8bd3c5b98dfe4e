"""The header, the symbols of the library, and the C programs under ASan and UBSan (what needs a null engine)."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.runtime_c.running import BUILD, RUNTIME
from vlacompile.bundle.header import c_header


def test_layout_header_is_current():
    assert (RUNTIME / "include/vlart/vlart_layout.h").read_text() == c_header()


def test_library_has_no_globals_and_calls_nothing_forbidden(lib):
    """No mutable data, and in src/ neither allocation nor printing, locking or ending the process."""
    forbidden = {"malloc", "calloc", "realloc", "free", "printf", "fprintf", "puts", "abort", "exit", "qsort",
                 "getenv", "pthread_mutex_lock", "strerror"}
    objects = [*(BUILD / "obj/src").glob("*.o"), *(BUILD / "obj/backends").glob("*/*.o")]
    assert len(objects) > 20
    for path in objects:
        sections = subprocess.run(["size", "-A", str(path)], capture_output=True, text=True, check=True).stdout
        sizes = dict(re.findall(r"^(\.data|\.bss)\s+(\d+)", sections, re.M))
        assert sizes == {".data": "0", ".bss": "0"}, path.name
        undefined = subprocess.run(["nm", "-u", str(path)], capture_output=True, text=True, check=True).stdout
        assert not forbidden & set(re.findall(r"U (\w+)", undefined)), path.name


def test_only_the_public_functions_are_exported(lib):
    table = subprocess.run(["nm", "-D", "--defined-only", str(BUILD / "libvlart.so")], capture_output=True,
                           text=True, check=True).stdout
    declared = set(re.findall(r"^VLART_API[^;]*?(vlart_\w+)\(", (RUNTIME / "include/vlart/vlart.h").read_text(),
                              re.M | re.S))
    assert set(re.findall(r" T (\w+)", table)) == declared


def test_header_compiles_as_cxx_and_pedantic_c(tmp_path):
    (tmp_path / "a.c").write_text('#include "vlart/vlart.h"\nint main(void) { return VLART_STATUS_OK; }\n')
    for language in (("c", "-std=c11"), ("c++", "-std=c++11")):
        subprocess.run(["gcc", "-x", language[0], language[1], "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                        "-fsyntax-only", f"-I{RUNTIME / 'include'}", str(tmp_path / "a.c")], check=True)


def test_c_units(sanitized):
    """`abi_v1` asserts the ABI of version 1 while it compiles."""
    subprocess.run([sanitized / "abi_v1"], check=True, timeout=60)
    subprocess.run([sanitized / "test_unit"], check=True, timeout=60)


def test_c_session(sanitized):
    subprocess.run([sanitized / "test_session", sanitized / "samples/reactive", sanitized / "samples/recall"], check=True,
                   timeout=60)
    subprocess.run([sanitized / "test_actions", sanitized / "samples"], check=True, timeout=60)


@pytest.mark.parametrize("file", ["reactive/plan.bin", "flow/plan.bin", "recall/plan.bin", "reactive/golden/golden.bin",
                                  "lookup/plan.bin", "pieces/plan.bin", "ensemble/plan.bin", "realtime/plan.bin"])
def test_damaged_files_do_no_harm(sanitized, file):
    """Every truncation, bit and word, with and without right checksums; what is accepted is run."""
    done = subprocess.run([sanitized / "fuzz_open", "--sweep", "-n", "5000", sanitized / "samples" / file],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    read, accepted, stepped = map(int, re.findall(r"\d+", done.stdout))
    assert read > 20000 and 0 < accepted < read
    assert stepped > 0 or "golden" in file
