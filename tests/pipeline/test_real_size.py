"""A policy of 3.5 B parameters is built with less memory than its weights would take twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlacompile.files.mapped import folder
from vlacompile.hardware.process_memory import available_bytes
from vlacompile.phases.phase import Phase

ROOT = Path(__file__).parents[2]
GB = 10**9
LARGEST_STAGE = 8 * GB  # of pi0 in fp32: the layers of its language model
LIMIT = GB + 2 * LARGEST_STAGE
DISK = 32 * GB


@pytest.mark.full
def test_pi0_is_built_within_its_memory():
    """prlimit's --data counts private memory that can be written, touched or not, and none of the mapped files: a limit
    of the address space would count those too, and a memory cgroup their pages in the cache, and needs rights."""
    free = os.statvfs(folder())
    if available_bytes() < LIMIT or free.f_bavail * free.f_frsize < DISK:
        pytest.skip(f"needs {LIMIT / GB:.0f} GB of memory and {DISK / GB:.0f} GB in {folder()}")
    build = [sys.executable, "-W", "ignore", "-m", "benchmarks.build", "--one", "zoo:pi0"]
    done = subprocess.run(["prlimit", f"--data={LIMIT}", *build], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["weight_bytes"] > 12 * GB and 1.5 * GB < found["largest_stage_bytes"] <= LARGEST_STAGE
    beyond = {p: of["anonymous_bytes"] - found["base_bytes"] for p, of in found["phases"].items()}
    assert {p: size for p, size in beyond.items() if p != Phase.PUBLISH and size > 3 * GB} == {}
    assert beyond[Phase.PUBLISH] < LIMIT
