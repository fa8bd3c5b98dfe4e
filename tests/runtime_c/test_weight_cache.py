"""Packed weights that the next start maps: the same numbers, nothing of others, and never a start that fails."""

from __future__ import annotations

import ctypes as c
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from sample_large import Large
from vlart_ctypes import STRUCTS, Failure, Policy

from tests.runtime_c.running import BUILD, make, run_tool

Cache = STRUCTS["vlart_weight_cache_t"]


@pytest.fixture(scope="module")
def large() -> Large:
    return Large()


@pytest.fixture
def bundle(large, tmp_path) -> Path:
    return large.bundle.write(tmp_path / "large.vlab")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def started(lib, ort, bundle: Path, folder: Path | str | None, case: Large
            ) -> tuple[np.ndarray, tuple[int, int, int], str]:
    """(z, stages mapped, written and refused, why) of a start and a step."""
    cache = Cache(folder=os.fsencode(folder)) if folder is not None else None
    with Policy(lib, bundle).start(ort, weight_cache=c.addressof(cache) if cache is not None else None) as policy:
        policy.run(case.inputs())
        z = policy.read("z")
    np.testing.assert_allclose(z, case.reference(case.inputs())["z"], rtol=1e-4, atol=1e-4)
    return z, (cache.mapped, cache.written, cache.refused) if cache else (0, 0, 0), cache.why.decode() if cache else ""


def entry_of(folder: Path) -> Path:
    found = list(folder.iterdir())
    assert len(found) == 1, found
    return found[0]


def test_the_second_start_maps_what_the_first_packed_and_all_three_agree_bit_by_bit(lib, ort, large, bundle, folder):
    plain, _, _ = started(lib, ort, bundle, None, large)
    packed, first, _ = started(lib, ort, bundle, folder, large)
    mapped, second, why = started(lib, ort, bundle, folder, large)
    assert (first, second, why) == ((0, 1, 0), (1, 0, 0), "")  # the small stage is not worth an entry
    assert plain.tobytes() == packed.tobytes() == mapped.tobytes()
    assert folder.stat().st_mode & 0o777 == entry_of(folder).stat().st_mode & 0o777 == 0o700


def test_what_is_mapped_is_the_entry(lib, ort, large, bundle, folder):
    """A negative control of the test above: with an entry whose checksums were made right, its numbers are used."""
    started(lib, ort, bundle, folder, large)
    data = bytearray((entry_of(folder) / "weights.bin").read_bytes())
    record = bytearray((entry_of(folder) / "made-from").read_bytes())
    data[:] = bytes(len(data))
    record[-12:-8] = zlib.crc32(data).to_bytes(4, "little")
    record[-8:-4] = zlib.crc32(bytes(record[:-8])).to_bytes(4, "little")
    (entry_of(folder) / "weights.bin").write_bytes(data)
    (entry_of(folder) / "made-from").write_bytes(record)
    with pytest.raises(AssertionError, match="Mismatched elements"):
        started(lib, ort, bundle, folder, large)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit of the weights": lambda e: flip(e / "weights.bin", -5000),
    "a bit of the model": lambda e: flip(e / "model.onnx", 200),
    "a bit of the record": lambda e: flip(e / "made-from", 60),
    "the weights cut": lambda e: os.truncate(e / "weights.bin", 1000),
    "the record cut": lambda e: os.truncate(e / "made-from", 100),
    "no record": lambda e: (e / "made-from").unlink(),
    "no weights": lambda e: (e / "weights.bin").unlink(),
    "a link to the weights": lambda e: (e / "weights.bin").rename(e.parent.parent / "moved") and (
        e / "weights.bin").symlink_to(e.parent.parent / "moved"),
    "others may look into it": lambda e: e.chmod(0o755),
    "a file in its place": lambda e: (e.rename(e.parent.parent / "moved"), e.write_bytes(b"")),
    "a link in its place": lambda e: e.rename(e.parent.parent / "moved") and e.symlink_to(e.parent.parent / "moved"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_replaced(lib, ort, large, bundle, folder, damage):
    plain, _, _ = started(lib, ort, bundle, folder, large)
    DAMAGE[damage](entry_of(folder))
    again, counts, why = started(lib, ort, bundle, folder, large)
    assert counts == (0, 1, 0) and "damaged or made from something else" in why and again.tobytes() == plain.tobytes()
    assert started(lib, ort, bundle, folder, large)[1] == (1, 0, 0)


@pytest.mark.parametrize(("make", "why"), [
    (lambda f: f.mkdir(mode=0o755), "others may look into it"),
    (lambda f: (f.with_name("real").mkdir(mode=0o700), f.symlink_to(f.with_name("real"))), "cannot be opened"),
    (lambda f: f.write_bytes(b""), "cannot be opened"),
    (lambda f: (f.mkdir(mode=0o700), os.chown(f, 12345, -1)), "another user's"),
], ids=["mode", "link", "file", "owner"])
def test_a_folder_that_is_not_private_is_not_used(lib, ort, large, bundle, folder, make, why):
    if why == "another user's" and os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    make(folder)
    _, counts, said = started(lib, ort, bundle, folder, large)
    assert counts == (0, 0, 1) and why in said


def test_a_place_where_nothing_can_be_made_costs_the_cache_alone(lib, ort, large, bundle):
    for place in ("/proc/none/cache", ""):
        _, counts, why = started(lib, ort, bundle, place, large)
        assert counts == (0, 0, 1) and "cannot be opened" in why


def test_a_bundle_whose_files_do_not_say_where_weights_lie_is_packed_as_ever(lib, ort, tmp_path, folder):
    case = Large(named=False)
    assert started(lib, ort, case.bundle.write(tmp_path / "b.vlab"), folder, case)[1] == (0, 0, 0)


def forged(data: bytes, want: int) -> bytes:
    """4 bytes behind `data` with which its CRC-32 is `want`."""
    table = [0] * 256
    for i in range(256):
        x = i
        for _ in range(8):
            x = x >> 1 ^ (0xEDB88320 if x & 1 else 0)
        table[i] = x
    back = {x >> 24: i for i, x in enumerate(table)}
    state = want ^ 0xFFFFFFFF
    for _ in range(4):
        i = back[state >> 24]
        state = (state ^ table[i]) << 8 & 0xFFFFFFFF | i
    return (state ^ zlib.crc32(data) ^ 0xFFFFFFFF).to_bytes(4, "little")


def test_another_bundle_of_equal_checksums_is_told_apart(lib, ort, large, bundle, folder, tmp_path):
    """Whoever can make a bundle run once cannot put weights into the next one's start."""
    started(lib, ort, bundle, folder, large)
    body = Large(seed=5).bundle.weights[:-4]
    other = Large(seed=5, tail=forged(body, zlib.crc32(large.bundle.weights)))
    other.bundle.golden = large.bundle.golden
    path = other.bundle.write(tmp_path / "other.vlab")
    assert (path / "plan.bin").read_bytes() == (bundle / "plan.bin").read_bytes()
    _, counts, why = started(lib, ort, path, folder, other)
    assert counts == (0, 1, 0) and "made from something else" in why


def test_what_takes_the_place_of_weights_is_not_packed_and_not_kept(lib, ort, large, bundle, folder):
    cache = Cache(folder=os.fsencode(folder))
    with Policy(lib, bundle) as policy:
        (bundle / "other").write_bytes(bytes((bundle / "stages/weights.bin").stat().st_size))
        (bundle / "other").replace(bundle / "stages/weights.bin")
        policy.start(ort, weight_cache=c.addressof(cache))
        policy.run(large.inputs())
        np.testing.assert_allclose(policy.read("z"), large.reference(large.inputs())["z"], rtol=1e-4, atol=1e-4)
    assert (cache.mapped, cache.written) == (0, 0) and not [p for p in folder.iterdir() if p.name[0] != "."]


class Calls(c.Structure):
    _fields_ = [("calls", c.c_uint64), ("at", c.c_uint64), ("lasting", c.c_bool), ("live", c.c_int64),
                ("instead", c.CFUNCTYPE(None))]


@pytest.fixture(scope="module")
def counting(lib, ort) -> tuple[str, Calls]:
    """ONNX Runtime behind a library that counts its calls, and can fail."""
    path = BUILD / "libfailing_ort.so"
    make(f"BUILD={BUILD}", str(path))
    library = c.CDLL(str(path))
    library.failing_engine_state.restype = c.POINTER(Calls)
    library.failing_engine_load.restype = c.c_bool
    assert library.failing_engine_load(os.fsencode(ort))
    return str(path), library.failing_engine_state().contents


def told(state: Calls, at: int = 0, lasting: bool = False, instead=None) -> None:
    state.calls, state.at, state.lasting, state.live = 0, at, lasting, 0
    state.instead = instead or c.CFUNCTYPE(None)()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "and all after it"])
@pytest.mark.parametrize("mapped", [False, True], ids=["packed", "mapped"])
def test_an_engine_that_fails_at_any_call(lib, counting, large, bundle, folder, mapped, lasting):
    """Nothing of the engine's stays and nothing half made, and a start fails only where one without a cache would."""
    path, state = counting
    told(state)
    started(lib, path, bundle, folder, large)
    if mapped:
        told(state)
        started(lib, path, bundle, folder, large)
    calls, outcomes = state.calls, set()
    for at in range(1, calls + 1):
        if not mapped:
            shutil.rmtree(folder, ignore_errors=True)
        told(state, at, lasting)
        try:
            _, counts, why = started(lib, path, bundle, folder, large)
            assert sum(counts) == 1 and (mapped == (counts[0] == 1) or why), (at, counts, why)
            outcomes.add("started")
        except Failure as failure:
            assert failure.why == "told to fail", at
            outcomes.add("failed")
        assert state.live == 0, at
        assert not folder.exists() or not [p for p in folder.iterdir() if p.name[0] == "."], at
        told(state)
        assert started(lib, path, bundle, folder, large)[1] in ((1, 0, 0), (0, 1, 0))
    assert calls > 40 and outcomes == ({"failed"} if lasting else {"started", "failed"})


def test_weights_that_are_replaced_while_they_are_packed(lib, counting, large, bundle, folder):
    """At whatever call: the numbers are those that were checked, and no others are kept for the next start."""
    path, state = counting
    told(state)
    started(lib, path, bundle, folder, large)
    good, calls, kept = (entry_of(folder) / "weights.bin").read_bytes(), state.calls, 0
    weights = bundle / "stages/weights.bin"
    checked = weights.read_bytes()
    for at in range(1, calls + 1):
        shutil.rmtree(folder)
        (bundle / "other").write_bytes(bytes(len(checked)))
        told(state, at, instead=c.CFUNCTYPE(None)(lambda: (bundle / "other").replace(weights) and None))
        started(lib, path, bundle, folder, large)
        entries = [p for p in folder.iterdir() if (p / "made-from").exists()]
        assert all((p / "weights.bin").read_bytes() == good for p in entries), at
        kept += len(entries)
        weights.write_bytes(checked)
    assert 0 < kept < calls


def test_what_is_old_goes_and_what_is_not_the_caches_stays(lib, ort, large, bundle, folder):
    folder.mkdir(mode=0o700)
    names = {"0123abcd-0123abcd-7": False, ".new-12-345-678": False, "photos": True, ".ssh": True, ".new-photos": True,
             "0123abcd-0123abcd-": True, "0123abcd-0123abcd-7x": True}
    for name in names:
        (folder / name).mkdir(mode=0o700)
        (folder / name / "file").write_bytes(b"1")
        os.utime(folder / name, (time.time() - 31 * 24 * 3600,) * 2)
    (folder / "0123abcd-0123abcd-8").mkdir(mode=0o700)
    assert started(lib, ort, bundle, folder, large)[1] == (0, 1, 0)
    assert {name: (folder / name / "file").exists() for name in names} == names
    assert (folder / "0123abcd-0123abcd-8").exists()


def test_another_build_of_the_engine_packs_for_itself(lib, ort, large, bundle, folder, tmp_path):
    other = tmp_path / "libonnxruntime.so"
    shutil.copy(ort, other)
    started(lib, ort, bundle, folder, large)
    code = ("import sys; sys.path[:0] = sys.argv[5:]\nfrom vlart_ctypes import STRUCTS, Library, Policy\n"
            "from pathlib import Path\nimport ctypes as c\n"
            "cache = STRUCTS['vlart_weight_cache_t'](folder=sys.argv[4].encode())\n"
            "with Policy(Library(Path(sys.argv[1])), Path(sys.argv[2])).start(\n"
            "        sys.argv[3], weight_cache=c.addressof(cache)):\n"
            "    print(cache.mapped, cache.written, cache.refused)\n")
    for wanted in ("0 1 0", "1 0 0"):
        done = subprocess.run([sys.executable, "-c", code, BUILD / "libvlart.so", bundle, other, folder, *sys.path],
                              capture_output=True, text=True, check=False)
        assert done.stdout.strip() == wanted, done.stderr


def vlart_run(bundle: Path, ort: str, *more, build: Path = BUILD) -> subprocess.Popen:
    return subprocess.Popen([str(build / "vlart-run"), str(bundle), "--self-test", "--ort", ort, "--threads", "1",
                             *map(str, more)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_processes_that_start_at_once(lib, ort, bundle, folder):
    at_once = [vlart_run(bundle, ort, "--weight-cache", folder) for _ in range(4)]
    said = [p.communicate(timeout=300)[0] for p in at_once]
    assert all(p.returncode == 0 for p in at_once), said
    assert "1 stages mapped" in vlart_run(bundle, ort, "--weight-cache", folder).communicate(timeout=300)[0]
    entry_of(folder)  # nothing half written stays


def test_no_cache_for_a_bundle_that_must_be_signed(lib, bundle, folder):
    ran = run_tool("vlart-run", bundle, "--signers", "signers", "--weight-cache", folder)
    assert ran.returncode == 2 and "no signature binds the cache" in ran.stderr and not folder.exists()


def test_under_sanitizers(sanitized, ort, bundle, folder):
    for wanted in ("0 stages mapped, 1 written", "1 stages mapped, 0 written"):
        run = vlart_run(bundle, ort, "--weight-cache", folder, "--memory", 0, build=sanitized)
        said = run.communicate(timeout=300)[0]
        assert run.returncode == 0 and wanted in said, said


def test_a_start_needs_its_packed_weights_and_little_more(lib, ort, bundle, folder):
    """Pages of the bundle are given back while the engine packs: they are not there besides what it made of them."""
    code = ("import sys; sys.path[:0] = sys.argv[4:]\nfrom vlart_ctypes import Library, Policy\n"
            "from pathlib import Path\n"
            "def kib(key): return int(next(x for x in open('/proc/self/status') if x.startswith(key)).split()[1])\n"
            "lib = Library(Path(sys.argv[1])); before = kib('VmRSS:')\n"
            "open('/proc/self/clear_refs', 'w').write('5')\n"
            "with Policy(lib, Path(sys.argv[2])).start(sys.argv[3]):\n"
            "    print(kib('VmHWM:') - before, kib('VmRSS:') - before)\n")
    done = subprocess.run([sys.executable, "-c", code, str(BUILD / "libvlart.so"), str(bundle), ort, *sys.path],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak, after = map(int, re.fullmatch(r"(\d+) (\d+)\s*", done.stdout).groups())
    assert peak - after < 6 << 10  # KiB; of 12 MiB of weights
