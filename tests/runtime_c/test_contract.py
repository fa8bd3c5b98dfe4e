"""The header, the symbols of the library, and the C programs under ASan and UBSan (what needs a null engine)."""

from __future__ import annotations

import re
import subprocess

import pytest
from header_structs import fields_of, header_structs
from sample_bundles import Flow, Reactive, Recall

from tests.runtime_c.running import BUILD, RUNTIME, make
from vlart.runtime import library


def test_library_has_no_globals_and_calls_nothing_forbidden(lib):
    """No mutable data, and in src/ neither allocation nor printing, locking or ending the process."""
    forbidden = {"malloc", "calloc", "realloc", "free", "printf", "fprintf", "puts", "abort", "exit", "qsort",
                 "getenv", "pthread_mutex_lock", "strerror"}
    objects = [*(BUILD / "obj/src").glob("*/*.o"), *(BUILD / "obj/backends").rglob("*.o")]
    assert len(objects) > 20
    for path in objects:
        sections = subprocess.run(["size", "-A", str(path)], capture_output=True, text=True, check=True).stdout
        sizes = dict(re.findall(r"^(\.data|\.bss)\s+(\d+)", sections, re.MULTILINE))
        assert sizes == {".data": "0", ".bss": "0"}, path.name
        undefined = subprocess.run(["nm", "-u", str(path)], capture_output=True, text=True, check=True).stdout
        locks = {"pthread_mutex_lock"} if path.name == "inbox.o" else set()  # writers of whole sets take turns
        assert not (forbidden - locks) & set(re.findall(r"U (\w+)", undefined)), path.name


def test_only_the_public_functions_are_exported(lib):
    table = subprocess.run(["nm", "-D", "--defined-only", str(BUILD / "libvlart.so")], capture_output=True,
                           text=True, check=True).stdout
    headers = "\n".join(p.read_text() for p in sorted((RUNTIME / "include/vlart").glob("vlart*.h")))
    declared = set(re.findall(r"^VLART_API[^;]*?(vlart_\w+)\(", headers, re.MULTILINE | re.DOTALL))
    assert set(re.findall(r" T (\w+)", table)) == declared


# {struct of vlart.h: the class of the runtime's ctypes that mirrors it}
MIRRORS = {"diag": library.Diag, "open_options": library.OpenOptions, "session_options": library.SessionOptions,
           "lane_info": library.LaneInfo, "stage_stats": library.StageStats, "session_totals": library.Totals,
           "queue_info": library.QueueInfo, "async_options": library.AsyncOptions, "async_info": library.AsyncInfo,
           "sensor_options": library.SensorOptions, "sensor_info": library.SensorInfo,
           "router_options": library.RouterOptions, "decision": library.RouterDecision,
           "router_info": library.RouterInfo, "tensor": library.Tensor, "action_info": library.ActionInfo,
           "thread_options": library.ThreadOptions, "camera_options": library.CameraOptions,
           "frame": library.CameraFrame, "recorder_options": library.RecorderOptions,
           "recorder_info": library.RecorderInfo, "log_info": library.LogInfo, "log_event": library.LogEvent,
           "weight_cache": library.WeightCache}


@pytest.mark.parametrize("name", MIRRORS)
def test_pythons_structs_are_the_headers(name):
    assert fields_of(MIRRORS[name]) == fields_of(header_structs()[f"vlart_{name}_t"])


COUNTED = ("test_session", "test_actions", "test_observations", "test_text", "test_router", "test_async",
           "test_sensors", "test_lanes", "test_pool", "test_backbones", "test_buckets", "test_week", "test_tensorrt",
           "test_camera", "test_recorder")


def test_every_tick_function_is_called_where_allocations_are_counted(sanitized):
    """[tick] and [task]: by a C program whose calls of malloc are counted, and that checks the count at the end."""
    headers = "\n".join(p.read_text() for p in sorted((RUNTIME / "include/vlart").glob("vlart*.h")))
    promised = set()
    for _comment, group in re.findall(r"/\* \[(?:tick|task)\](.*?)\*/(.*?)(?=/\*|\Z)", headers, re.DOTALL):
        promised |= set(re.findall(r"VLART_API[^;]*?(vlart_\w+)\(", group))
    assert len(promised) > 20 and {"vlart_session_step", "vlart_async_pop", "vlart_router_decide",
                                   "vlart_tokenizer_encode", "vlart_async_sensor"} <= promised
    called = "\n".join((RUNTIME / f"tests/{name}.c").read_text()
                       for name in (*COUNTED, "robot", "tape", "test_history"))
    missing = {name for name in promised if f"{name}(" not in called}
    assert not missing, f"[tick] functions that no program calls with malloc wrapped: {sorted(missing)}"
    for name in COUNTED:
        symbols = subprocess.run(["nm", sanitized / name], capture_output=True, text=True, check=True).stdout
        assert " T __wrap_malloc" in symbols, name
        assert re.search(r"CHECK\(.*allocations == ", (RUNTIME / f"tests/{name}.c").read_text()), name


@pytest.mark.parametrize("header", sorted(p.name for p in (RUNTIME / "include/vlart").glob("*.h")))
def test_header_compiles_as_cxx_and_pedantic_c(tmp_path, header):
    (tmp_path / "a.c").write_text(f'#include "vlart/{header}"\n#include "vlart/vlart.h"\n'
                                  'int main(void) { return VLART_STATUS_OK; }\n')
    for language in (("c", "-std=c11"), ("c++", "-std=c++11")):
        subprocess.run(["gcc", "-x", language[0], language[1], "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                        "-fsyntax-only", f"-I{RUNTIME / 'include'}", str(tmp_path / "a.c")], check=True)


def test_c_units(sanitized):
    """`abi_v1` asserts the ABI of version 1 while it compiles."""
    subprocess.run([sanitized / "abi_v1"], check=True, timeout=60)
    subprocess.run([sanitized / "test_unit"], check=True, timeout=60)
    subprocess.run([sanitized / "test_camera"], check=True, timeout=60)


def test_c_session(sanitized):
    subprocess.run([sanitized / "test_session", sanitized / "samples/reactive",
                    sanitized / "samples/recall", sanitized / "samples/adding"], check=True,
                   timeout=60)
    subprocess.run([sanitized / "test_actions", sanitized / "samples"], check=True, timeout=60)
    subprocess.run([sanitized / "test_text", sanitized / "samples/spoken"], check=True, timeout=60)


def test_c_sensors(sanitized):
    subprocess.run([sanitized / "test_sensors", sanitized / "samples/guarded"], check=True, timeout=60)


def test_c_observations_and_threads(sanitized):
    subprocess.run([sanitized / "test_observations", sanitized / "samples"], check=True, timeout=120)
    subprocess.run([sanitized / "test_threads", sanitized / "samples/reactive"], check=True, timeout=60)


def test_c_stages_at_the_same_time(sanitized):
    subprocess.run([sanitized / "test_pool", sanitized / "samples/branches"], check=True, timeout=120)


def test_c_system_calls_fail_in_turn(sanitized):
    done = subprocess.run([sanitized / "test_system", sanitized / "samples", sanitized], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"(\d+) calls failed in turn", done.stdout)[1]) > 100


def named(case):
    """The same with weights that the engine maps by itself."""
    case.bundle.name_weights()
    return case


# {engine: (the library that fails, sample policies, calls at least)}; OpenVINO compiles a stage in 20 ms, every time.
FAILING = {"onnxruntime": ("libfailing_ort.so", (Reactive, lambda: Flow(3), Recall, lambda: named(Flow(3))), 700),
           "openvino": ("libfailing_openvino.so", (lambda: Flow(3),), 200)}


def test_c_engine_calls_fail_in_turn(lib, engine, tmp_path):
    """Every call of the engine's interface, by a library that stands before it."""
    name, policies, least = FAILING[engine.name]
    make(f"BUILD={BUILD}", str(BUILD / "test_engines"), str(BUILD / name))
    samples = [engine.write(p().bundle, tmp_path / str(i)) for i, p in enumerate(policies)]
    done = subprocess.run([BUILD / "test_engines", BUILD / name, engine.library, *samples], capture_output=True,
                          text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"(\d+) calls failed in turn", done.stdout)[1]) > least


def test_c_router(sanitized):
    """Power is cut at every step of a save."""
    subprocess.run([sanitized / "test_router", sanitized / "samples/routing/table.bin", sanitized], check=True,
                   timeout=300)


@pytest.mark.parametrize("file", ["reactive/plan.bin", "flow/plan.bin", "recall/plan.bin", "reactive/golden/golden.bin",
                                  "board/plan.bin", "guarded/plan.bin", "routing/state.bin", "lock.bin",
                                  "lookup/plan.bin", "pieces/plan.bin", "ensemble/plan.bin", "realtime/plan.bin",
                                  "limited_refuse/plan.bin", "ends/plan.bin",
                                  "routing/table.bin",
                                  "spoken/plan.bin", "word_piece.bin", "byte_pairs.bin"])
def test_damaged_files_do_no_harm(sanitized, file):
    """Every truncation, bit and word, with and without right checksums; what is accepted is run."""
    done = subprocess.run([sanitized / "fuzz_open", "-t", sanitized / "samples/word_piece.bin",
                           "-r", sanitized / "samples/routing/table.bin", "--sweep", "-n", "5000",
                           sanitized / "samples" / file],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    read, accepted, stepped = map(int, re.findall(r"\d+", done.stdout))
    assert read > 20 * (sanitized / "samples" / file).stat().st_size and 0 < accepted < read
    assert stepped > 0 or not file.endswith("plan.bin")


def test_the_corpus_does_no_harm(sanitized):
    """The inputs that the fuzzer began from, and those it once crashed with: benchmarks/fuzz.py."""
    corpus = sorted((RUNTIME / "tests/corpus").iterdir())
    assert len(corpus) > 100 and sum(p.stat().st_size for p in corpus) <= 300_000
    samples = sanitized / "samples"
    done = subprocess.run([sanitized / "fuzz_open", "-t", samples / "word_piece.bin", "-r",
                           samples / "routing/table.bin",
                           samples / "flow/plan.bin", *corpus], capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
    read, accepted, stepped = map(int, re.findall(r"\d+", done.stdout))
    assert read == len(corpus) + 1 and accepted > 15 and stepped > 5
