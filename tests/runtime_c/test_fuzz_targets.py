"""The targets of libFuzzer, built as OSS-Fuzz builds them (runtime_c/fuzz/build.sh), begin from their corpora."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.runtime_c.running import BUILD, RUNTIME, make

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="apt-get install clang")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("fuzz")
    make(f"BUILD={BUILD}", "samples")
    given = {"CC": "clang", "OUT": str(out), "PYTHON": sys.executable, "SAMPLES": str(BUILD / "samples"),
             "CFLAGS": "-O1 -g -fsanitize=fuzzer-no-link,address,undefined", "LIB_FUZZING_ENGINE": "-fsanitize=fuzzer"}
    subprocess.run([RUNTIME / "fuzz" / "build.sh"], env=os.environ | given, check=True)
    return out


@pytest.mark.full
@pytest.mark.parametrize("target", ["fuzz_open", "fuzz_signed"])
def test_a_target_runs_from_its_seeds(built, tmp_path, target):
    with zipfile.ZipFile(built / f"{target}_seed_corpus.zip") as seeds:
        seeds.extractall(tmp_path)
        count = len(seeds.namelist())
    done = subprocess.run([built / target, f"-runs={count + 500}", "-print_final_stats=1", tmp_path],
                          capture_output=True, text=True, errors="replace", check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert count >= 5 and int(re.findall(r"number_of_executed_units: (\d+)", done.stderr)[0]) >= count
    if target == "fuzz_signed":  # the seeds have bundles that pass, and others
        passed, tried = map(int, re.findall(r"(\d+) of (\d+) bundles passed", done.stderr)[0])
        assert 0 < passed < tried
