"""trtexec's options: that all which are rendered are among those that it parses, in each TensorRT that a JetPack has.

trtexec_options.json was taken from NVIDIA's sources at the commits that it names; where the sources are under
build/nvidia/ (see runtime_c/nvidia_double.py), it is compared with them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime_c.nvidia_double import HEADERS
from vlacompile.compiler.emit.tensorrt.build_recipe import board_of
from vlacompile.compiler.emit.tensorrt.trtexec import TRTEXEC, commands, trtexec
from vlacompile.files.toml import shipped
from vlacompile.hardware.target import load_target
from vlart.bundle.directory import read_bundle

KNOWN = json.loads(Path(__file__).with_name("trtexec_options.json").read_text(encoding="utf-8"))
VERSIONS = sorted(KNOWN["options"])
NUMBER, PATH = r"\d+", r"[\w./+-]+"
# What trtexec takes behind each option that is rendered; None: nothing, it is there or not.
VALUES = {"--onnx": PATH, "--saveEngine": PATH, "--stronglyTyped": None, "--noTF32": None, "--skipInference": None,
          "--builderOptimizationLevel": "[0-5]", "--maxAuxStreams": NUMBER, "--timingCacheFile": PATH,
          "--memPoolSize": rf"(workspace|tacticSharedMem):{NUMBER}"}  # a bare number: MiB (of tacticSharedMem, too)


def wrong(line: str, version: str) -> list[str]:
    """The words of a rendered command that this trtexec does not take."""
    program, *options = shlex.split(line)
    assert program == TRTEXEC
    found = []
    for option in options:
        name, equals, value = option.partition("=")
        wanted = VALUES.get(name, "")
        fits = not equals if wanted is None else re.fullmatch(wanted, value) is not None
        if name not in KNOWN["options"][version] or name not in VALUES or not fits:
            found.append(option)
    return found


def parsed_options(source: str) -> list[str]:
    """The names that trtexec's parser asks its command line for."""
    return sorted(set(re.findall(r'(?:getAndDel\w*|parseShapes\w*|getShapes\w*|get\w+)\(arguments,\s*"(--?\w+)"',
                                 source)))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    import vlacompile as vc
    from tests.samples import policies

    return read_bundle(vc.build(policies.flow(), target="orin-nano-8gb",
                                out=tmp_path_factory.mktemp("t") / "b.vlab").path).plan


@pytest.mark.parametrize("version", VERSIONS)
def test_every_option_that_is_rendered_is_one_of_trtexecs(plan, version):
    on = replace(plan, board=replace(plan.board, tensorrt=version))
    lines = commands(on)
    assert len(lines) == len(plan.stages) and not [w for line in lines for w in wrong(line, version)]
    # a negative control: an option of another tool, a unit that a value has not, and a switch with a value
    for bad in ("--fp32", "--memPoolSize=workspace:512MB", "--stronglyTyped=1"):
        assert wrong(f"{lines[0]} {bad}", version) == [bad]


def test_every_version_of_a_board_is_known():
    boards = [board_of(t) for n in shipped("targets") if (t := load_target(n)).board is not None]
    assert boards and {b.tensorrt for b in boards} <= set(VERSIONS)


def test_every_flag_of_the_record_is_rendered(plan):
    """A flag of a `build` record that has no option would be lost without a word."""
    stage = plan.stages[0]
    line = trtexec(plan, stage)
    for flag, option in (("strongly_typed", "--stronglyTyped"), ("no_tf32", "--noTF32")):
        assert flag in stage.build.flags and option in line
        without = replace(stage, build=replace(stage.build, flags=tuple(f for f in stage.build.flags if f != flag)))
        assert option not in trtexec(plan, without)
    eleven = replace(plan, board=replace(plan.board, tensorrt="11.0"))
    assert "--stronglyTyped" not in trtexec(eleven, stage)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_list_is_that_of_nvidias_sources(version):
    source = HEADERS / f"tensorrt-{version}" / "sampleOptions.cpp"
    if not source.is_file():
        pytest.skip(f"{source.name} of github.com/NVIDIA/TensorRT at {KNOWN['commits'][version]} is not here: make "
                    f"nvidia-headers")
    assert parsed_options(source.read_text(encoding="utf-8")) == KNOWN["options"][version]
