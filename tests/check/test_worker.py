"""The compiler's process dies in the middle of a stage: a result for that stage, with words, and the others are
compiled."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import vlacompile as vc
from tests.samples import policies
from tests.samples.small_onnx import product
from vlacompile.check.compile import compile_stage
from vlacompile.check.tensorrt import check_bundle
from vlacompile.cli.main import main
from vlart.errors import EmitError

# What worker.py calls of tensorrt_rtx. Compiling the stage that is named in plan.json ends the process as it says: by a
# wild read, as a bad graph does to the real compiler, or by the kernel's SIGKILL, as where memory is short.
DOUBLE = """
import ctypes, json, os, signal
from pathlib import Path
from types import SimpleNamespace as _
__version__ = "double"
NetworkDefinitionCreationFlag, ComputeCapability = _(STRONGLY_TYPED=0), _(SM86=0)
ProfilingVerbosity, BuilderFlag = _(DETAILED=0), _(TF32=0)
class ILogger:
    def __init__(self): pass
class OnnxParser:
    num_errors = 0
    def __init__(self, network, log): self.network = network
    def parse_from_file(self, path):
        self.network.stage = Path(path).stem
        return True
class Builder:
    def __init__(self, log): self.log = log
    def create_network(self, flags): return _()
    def create_builder_config(self):
        return _(set_compute_capability=lambda c, i: True, clear_flag=lambda f: None)
    def build_serialized_network(self, network, config):
        plan = json.loads(Path(__file__).with_name("plan.json").read_text())
        if network.stage == plan["stage"]:
            ctypes.string_at(1) if plan["by"] == "SIGSEGV" else os.kill(os.getpid(), signal.SIGKILL)
        self.log.log(_(name="VERBOSE"), "Total Weights Memory: 1000 bytes")
        return bytearray(1000) and _(nbytes=1000)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> vc.Bundle:
    recipe = tmp_path_factory.mktemp("crash") / "every.toml"
    recipe.write_text('name = "every"\ndescription = "a stage each"\n[stages]\nmin_flops = 0\n')
    return vc.build(policies.late_fusion(), target="orin-nano-8gb", recipe=str(recipe), out=recipe.with_name("b.vlab"))


@pytest.fixture
def crashing(tmp_path, monkeypatch):
    """crashing(stage, signal name): this interpreter's tensorrt_rtx is the double."""
    (tmp_path / "tensorrt_rtx.py").write_text(DOUBLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    return lambda stage, by: (tmp_path / "plan.json").write_text(json.dumps({"stage": stage, "by": by}))


@pytest.mark.parametrize("by", ["SIGSEGV", "SIGKILL"])
def test_a_stage_that_kills_the_compiler_is_told_and_the_others_go_on(bundle, crashing, by, capsys):
    stages = [s.name for s in bundle.plan.stages]
    assert len(stages) > 2
    victim = stages[1]
    crashing(victim, by)
    report = check_bundle(bundle.path)
    found = {s.stage: s for s in report.stages}
    assert list(found) == stages and not report.passed
    assert found[victim].refusal["kind"] == "crashed" and by in found[victim].refusal["why"]
    assert all(s.refusal is None and s.engine_bytes == 1000 for n, s in found.items() if n != victim)
    with pytest.raises(EmitError, match=f'crashes on the stage "{victim}"') as caught:
        report.require()  # though the double's engines of the others are not as planned either
    assert by in caught.value.why and victim in caught.value.where and "another engine" in caught.value.fix
    assert main(["check", "--tensorrt", str(bundle.path)]) == EmitError.exit_code
    told = capsys.readouterr()
    assert "crashed" in told.out and all(n in told.out for n in stages)


def test_nothing_crashes_without_a_plant(bundle, crashing):
    """Negative control of the test above: the double itself compiles every stage."""
    crashing("no stage", "SIGSEGV")
    assert all(s.refusal is None for s in check_bundle(bundle.path).stages)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                    reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")
def test_the_real_compiler_killed_in_the_middle(tmp_path):
    """By SIGKILL, once its library is mapped and before it has written anything."""
    path, found = product(tmp_path / "m.onnx"), []
    work = threading.Thread(target=lambda: found.append(compile_stage(path)))
    work.start()
    until, killed = time.monotonic() + 120, 0
    while work.is_alive() and not killed and time.monotonic() < until:
        for child in _children(os.getpid()):
            if "libtensorrt_rtx" in _maps(child):
                os.kill(child, signal.SIGKILL)
                killed = child
    work.join()
    assert killed and found[0].refusal.kind == "crashed" and "SIGKILL" in found[0].refusal.why


def _children(pid: int) -> list[int]:
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it has ended
        return ""
