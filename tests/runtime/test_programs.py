"""The C programs as an installed package starts them: with the engine's library, wherever the options stand."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlart.runtime.library import onnxruntime_library
from vlart.runtime.programs import WITH_ENGINE, arguments

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", WITH_ENGINE)
def test_the_engine_is_named_unless_the_caller_names_one(name):
    own = ["--ort", str(onnxruntime_library())]
    words = (["a.vlab"], ["--repeat", "3"], ["--keep-engines"])
    for order in itertools.permutations(words):
        argv = list(itertools.chain(*order))
        assert arguments(name, argv) == [name, *argv, *own]
        assert arguments(name, ["--ort", "other.so", *argv]) == [name, "--ort", "other.so", *argv]
        assert arguments(name, [*argv, "--ort", "other.so"]) == [name, *argv, "--ort", "other.so"]
    for alone in ([], ["--help"], ["-h"], ["a.vlab", "--help"]):
        assert arguments(name, alone) == [name, *alone]
    assert arguments("vlart-dump", ["a.vlab"]) == ["vlart-dump", "a.vlab"]


@pytest.mark.parametrize("before", [(), ("--self-test",), ("--repeat", "2"), ("--json", "--threads", "1")], ids=str)
@pytest.mark.parametrize("after", [(), ("--self-test",), ("--warm-up", "1")], ids=str)
def test_options_stand_before_the_bundle_or_behind_it(late_fusion_bundle, before, after):
    program = "import sys; from vlart.runtime.programs import vlart_run; sys.exit(vlart_run())"
    ran = subprocess.run([sys.executable, "-c", program, *before, str(late_fusion_bundle.path), *after],
                         capture_output=True, text=True, timeout=60, check=False,
                         env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("{" if "--json" in before else "late_fusion for host")
