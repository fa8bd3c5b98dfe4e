"""What a build takes of the machine: memory beside mapped weights, room that is asked for before, nothing left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.samples import policies
from tests.samples.sized_policies import sized
from vlacompile.files import mapped
from vlacompile.hardware import process_memory
from vlacompile.hardware.target import load_target
from vlacompile.phases import build_needs
from vlacompile.phases.build_needs import Need, needs_of, require_room
from vlacompile.phases.phase import Phase
from vlacompile.recipe.recipe import load_recipe
from vlart.errors import ConfigError

ROOT = Path(__file__).parents[2]
SIZED = "tests.samples.sized_policies:{}"
HELD = 0.5  # of the weights' bytes in fp32 (238 MB), that a phase may have in its own memory
# The same while the engine runs, which orders the weights for its kernels; those in 16 bits it widens before.
PACKED = {"sixty_million": 1.5, "sixty_million_in_bf16": 2.2}


class Usage(NamedTuple):
    total: float
    used: float
    free: float


def measured(policy: str, before: str = "") -> dict:
    """The figures of benchmarks/build.py, of a process of its own."""
    code = (f"import json; {before}\nfrom benchmarks.build import measured\n"
            f"print(json.dumps(measured({SIZED.format(policy)!r})))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, check=True, cwd=ROOT,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout.splitlines()[-1])


def shares(figures: dict, weights: int) -> dict[str, float]:
    """{phase: memory beyond what the process had, as a share of the weights}"""
    return {phase: (of["anonymous_bytes"] - figures["base_bytes"]) / weights
            for phase, of in figures["phases"].items()}


@pytest.mark.parametrize("policy", PACKED)
def test_no_phase_holds_the_weights(policy):
    found = measured(policy)
    taken = shares(found, 4 * sum(p.numel() for p in sized(2).observe.parameters()))
    assert set(taken) == set(Phase)
    assert {p: s for p, s in taken.items() if s > (PACKED[policy] if p == Phase.PUBLISH else HELD)} == {}


def test_the_measure_sees_weights_that_are_held():
    found = measured("sixty_million", "import vlacompile.files.mapped as m; m.SMALLEST_BYTES = 1 << 40")
    taken = shares(found, found["weight_bytes"])
    assert min(taken[p] for p in (Phase.READ_INPUTS, Phase.CAPTURE, Phase.VERIFY_STAGING)) > 0.9
    assert taken[Phase.PUBLISH] > PACKED["sixty_million"]


def test_needs_follow_from_the_weights():
    policy, half, host = sized(2), sized(2, torch.bfloat16), load_target("host")
    count = sum(p.numel() for p in policy.observe.parameters())
    held = count - policy.observe.words.weight.numel()
    plain, int8 = (load_recipe(name, host).precision for name in (None, "int8"))
    read, find, publish = needs_of(policy, plain, host)
    assert (read.scratch_bytes, find.scratch_bytes) == (4 * count, 0)
    assert (publish.memory_bytes, publish.out_bytes) == (4 * held, 4 * count)
    read, find, publish = needs_of(half, plain, host)
    assert (read.scratch_bytes, find.scratch_bytes, publish.out_bytes) == (2 * count, 4 * count, 2 * count)
    assert needs_of(policy, int8, host)[-1].memory_bytes == held
    assert require_room(needs_of(policies.remember(), plain, host), Path("b.vlab")) == "", "nobody waits for it"


@pytest.mark.parametrize(("free", "what", "why"), [
    ({"memory": 1e9}, "the build needs 8.0 GB of memory", "1.0 GB are available"),
    ({"disk": 5e9}, "the build needs 14.0 GB of disk", "5.0 GB are free")])
def test_too_little_room_is_told_by_phase(monkeypatch, tmp_path, free, what, why):
    needs = (Need(Phase.READ_INPUTS, scratch_bytes=int(7e9)), Need(Phase.FIND_STAGES, scratch_bytes=int(14e9)),
             Need(Phase.PUBLISH, memory_bytes=int(8e9), out_bytes=int(4e9)))
    monkeypatch.setattr(build_needs, "available_bytes", lambda: free.get("memory", 64e9))
    monkeypatch.setattr(build_needs, "folder", lambda: Path("/proc"))  # another disk
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(1e12, 0, free.get("disk", 1e12)))
    with pytest.raises(ConfigError, match=what) as refused:
        require_room(needs, tmp_path / "b.vlab")
    assert why in refused.value.why and "find-stages: 14.0 GB of temporary files" in refused.value.why
    assert "publish: 8.0 GB of memory, 4.0 GB of bundle" in refused.value.why


def test_a_build_without_room_ends_before_it_is_traced(monkeypatch, tmp_path):
    from vlacompile import pipeline

    said = []
    monkeypatch.setattr(build_needs, "available_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match="needs 0.2 GB of memory") as refused:
        pipeline.build(SIZED.format("sixty_million"), out=tmp_path / "b.vlab", progress=said.append)
    assert refused.value.phase == Phase.READ_INPUTS and not any(line.startswith("capture") for line in said)


def test_a_limit_of_the_group_counts(tmp_path):
    for name, text in (("memory.max", "1000000"), ("memory.current", "700000"), ("memory.stat", "anon 1\nfile 200000")):
        (tmp_path / name).write_text(text)
    assert process_memory.available_bytes(tmp_path) == 500000
    (tmp_path / "memory.max").write_text("max")
    assert process_memory.available_bytes(tmp_path) > 1000000


@pytest.mark.parametrize(("number", "phase"), [(signal.SIGTERM, "verify-staging"), (signal.SIGINT, "assemble"),
                                               (signal.SIGKILL, "verify-staging"), (signal.SIGTERM, "publish")])
def test_an_interrupted_build_leaves_nothing(tmp_path, number, phase):
    for folder in ("out", "temporary"):
        (tmp_path / folder).mkdir()
    # a run in the background ignores SIGINT, and what it starts does too
    begin = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
             "from vlacompile.cli.main import main; sys.exit(main())")
    command = [sys.executable, "-c", begin, "build", SIZED.format("small"), "-o", tmp_path / "out" / "b.vlab"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE,
                          env=os.environ | {"TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1",
                                            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "of PyTorch")}) as child:
        seen = b""
        while phase.encode() not in seen:
            piece = os.read(child.stderr.fileno(), 4096)
            assert piece, seen
            seen += piece
        child.send_signal(number)
        child.communicate()
    assert child.returncode != 0
    assert not list((tmp_path / "out").iterdir())
    assert not [p for p in (tmp_path / "temporary").rglob("*") if p.is_file()]  # PyTorch makes a folder there


def test_small_weights_are_no_files(monkeypatch):
    monkeypatch.setattr(mapped, "folder", lambda: pytest.fail("a file for a small tensor"))
    assert not mapped.is_mapped(mapped.mapped(torch.zeros(100)))
