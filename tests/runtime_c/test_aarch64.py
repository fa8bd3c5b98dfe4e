"""libvlart for aarch64: it builds wherever the cross compiler is, and emulated it gives the golden vectors."""

from __future__ import annotations

import shutil
import struct

import pytest

from benchmarks import aarch64, emulator
from vlart.bundle.directory import GOLDEN_FILE
from vlart.errors import RuntimeFailure
from vlart.verify.frames import Expected, Frame, frames_bytes, read_frames
from vlart.verify.metrics import Metrics

COMPILER = f"{emulator.CROSS}gcc"
needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None,
                                    reason=f"{COMPILER} is missing: apt-get install {emulator.NEEDED[COMPILER]}")
needs_emulator = pytest.mark.skipif(bool(emulator.missing()),
                                    reason=f"apt-get install {' '.join(emulator.missing())}")
EM_AARCH64 = 183  # e_machine of an ELF header


@needs_compiler
def test_the_runtime_builds_for_aarch64(tmp_path):
    emulator.cross_compile(tmp_path, "all", "test-programs")
    for name in ("libvlart.so", "vlart-run", "vlart-dump", "test_session"):
        header = (tmp_path / name).read_bytes()[:20]
        assert header[:4] == b"\x7fELF" and struct.unpack_from("<H", header, 18)[0] == EM_AARCH64, name


@needs_compiler
def test_what_does_not_build_is_told(tmp_path):
    with pytest.raises(RuntimeFailure, match="does not build") as error:
        emulator.cross_compile(tmp_path, "WARN=-fno-such-flag")
    assert "fno-such-flag" in error.value.fix


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(emulator, "NEEDED", {"no-such-program": "no-such-package", "sh": "dash"})
    with pytest.raises(RuntimeFailure, match="cannot be emulated") as error:
        emulator.require()
    assert error.value.fix == "apt-get install no-such-package"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    made = emulator.emulator(tmp_path_factory.mktemp("aarch64"))
    made.make("all")
    return made


@pytest.fixture(scope="module")
def library():
    return emulator.engine_library()  # downloaded once into build/


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    return aarch64.bundles(tmp_path_factory.mktemp("bundles"), reuse=False)


@pytest.mark.full
@needs_emulator
def test_the_tests_in_c_pass_emulated(machine):
    machine.make("test", "MUTATIONS=500")


@pytest.mark.full
@needs_emulator
@pytest.mark.parametrize("mode", sorted(aarch64.MODES))
def test_the_shipped_policy_gives_its_golden_vectors(machine, library, bundles, mode):
    found = aarch64.compare(machine, library, bundles[mode])
    assert found["frames"] >= 6 and "action" in found["values"]
    assert not aarch64.breaches(mode, found)


@pytest.mark.full
@needs_emulator
def test_a_changed_expectation_fails(machine, library, bundles, tmp_path):
    """Negative control: one number of one frame, off by a thousandth of the largest."""
    frames = read_frames(bundles["fp32"] / GOLDEN_FILE)
    want = frames[-1].expects["action"].array.copy()
    want.flat[0] += 1e-3 * abs(want).max()
    frames[-1] = Frame(frames[-1].label, frames[-1].writes, {"action": Expected(want, Metrics(1e-5, 1e-5, 0.99999))})
    path = tmp_path / "frames.bin"
    path.write_bytes(frames_bytes(frames))
    assert machine.replay(bundles["fp32"], library, "--self-test", "--frames", path)["status"] == "SELF_TEST_FAILED"


@pytest.mark.full
@needs_emulator
def test_dump_prints_the_plan_that_was_compiled(machine, bundles):
    done = machine.run(machine.build / "vlart-dump", bundles["int8"])
    assert done.returncode == 0 and done.stdout == (bundles["int8"] / "plan.txt").read_text(encoding="utf-8")


@pytest.mark.full
@needs_emulator
@pytest.mark.parametrize("layer", aarch64.layers(), ids=lambda layer: layer.name.replace(" ", "-"))
def test_layers_in_integers_are_the_same_there(machine, library, tmp_path, layer):
    """Convolutions in int8 to the last bit, linears but for f32 scaling in another order; before 4-bit weights a number
    between two steps may go the other way, but a row that is quantised as a whole (the engine's other kernels, which
    libvlart turns off) would be ten times further. In fp16 the engine adds in fp16, with errors that grow with the root
    of a sum's length: the test fails where that changes, for better or worse."""
    for scheme in layer.schemes:
        got = aarch64.compare(machine, library, aarch64.build_layer(layer, scheme, tmp_path))["values"]["action"]
        apart = got["apart"]["rel_l2"]
        if scheme == "fp16":
            grown = 1.5e-4 * layer.long**0.5
            assert 0.3 * grown < apart < 1.5 * grown, (layer.name, apart)
        elif scheme == "int4":
            assert apart < 1e-3, (layer.name, got)
        elif "linear" in layer.name:
            assert apart < 1e-6 and got["emulated"]["rel_l2"] < 1e-6, (layer.name, got)
        else:
            assert got["emulated"]["max_abs"] == apart == 0, (layer.name, scheme, got)
