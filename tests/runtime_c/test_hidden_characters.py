"""What a terminal would act on, and what is not UTF-8, reaches no terminal and no JSON document: not from names, not
from paths, not from an engine's messages."""

from __future__ import annotations

import json
import os
import subprocess
import unicodedata

import numpy as np
import pytest
from onnx import helper
from sample_bundles import Bundle

from tests.runtime_c.running import BUILD

ROUNDS = 40
HIDDEN = {"escape": b"a\x1b[2Jb", "lines": b"a\nb\x00"[:3], "no UTF-8": b"a\xffb", "one byte of two": b"a\xc3",
          "control of Latin-1": b"a\xc2\x9b2Jb", "delete": b"a\x7fb",
          "right to left": "a\u202eb\u2066c\u200fd".encode(), "line of Unicode": "a\u2028b".encode(),
          "quote": b'a"b\\', "surrogate": b"a\xed\xa0\x80b"}


def assert_harmless(said: bytes) -> str:
    text = said.decode("utf-8")
    assert not any(acted_on(c) for c in text), ascii(text)
    return text


def acted_on(character: str) -> bool:
    """Controls, ends of lines but ours, half a surrogate pair, and what changes the direction of other text."""
    kind, direction = unicodedata.category(character), unicodedata.bidirectional(character)
    mark = kind == "Cf" and direction in ("L", "R", "AL")
    return character != "\n" and (kind in ("Cc", "Cs", "Zl", "Zp") or mark or direction in (
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_path_is_shown_not_acted_on(lib, tmp_path, hidden):
    path = os.fsencode(tmp_path) + b"/" + HIDDEN[hidden] + b".vlab"
    for tool, *arguments in (("vlart-run",), ("vlart-run", "--json"), ("vlart-dump",)):
        ran = subprocess.run([str(BUILD / tool).encode(), path, *arguments], capture_output=True, timeout=60,
                             check=False)
        assert ran.returncode == 1
        text = assert_harmless(ran.stdout + ran.stderr)
        if arguments:
            assert json.loads(ran.stdout)["status"] == "IO"
        else:
            assert "fix:" in text


def test_any_bytes_as_a_path_or_as_an_argument(lib, tmp_path):
    """Those that a path can have. What is wrong usage is told with the argument."""
    draw = np.random.default_rng(0)
    for _ in range(ROUNDS):
        name = draw.integers(1, 256, int(draw.integers(1, 60)), dtype=np.uint8).tobytes()
        path = os.fsencode(tmp_path) + b"/" + name
        for tool, status, *arguments in (("vlart-run", 1, path), ("vlart-dump", 1, path), ("vlart-build", 1, path),
                                         ("vlart-run", 2, b"--" + name), ("vlart-build", 2, b"--" + name),
                                         ("vlart-run", 2, path, b"--threads", name + b"x")):
            ran = subprocess.run([str(BUILD / tool).encode(), *arguments], capture_output=True, timeout=60, check=False)
            assert ran.returncode == status, ran.stderr
            assert_harmless(ran.stdout + ran.stderr)


def test_a_message_of_an_engine_is_shown_not_acted_on(lib, ort, tmp_path):
    """It quotes the names of the ONNX file."""
    bundle = Bundle("hostile")
    bundle.source("x", "f32", (1, 4), "tick")
    bundle.value("y", "f32", (1, 4))
    nodes = [helper.make_node("None\x1b[2Jsuch\x9b", ["x"], ["y"], name="\x1b]0;title\x07")]
    bundle.stage("only", nodes, (0,), [("x", "x", "whole")], [("y", "y", "whole")])
    bundle.frame("f", {}, {})
    root = bundle.write(tmp_path)
    for more in ((), ("--json",)):
        ran = subprocess.run([BUILD / "vlart-run", root, "--ort", ort, *more], capture_output=True, timeout=60,
                             check=False)
        assert ran.returncode == 1
        assert r"\x1b[2J" in assert_harmless(ran.stdout + ran.stderr).replace(r"\\", "\\")


@pytest.mark.parametrize("length", range(1000, 1023))
def test_a_line_that_is_cut_ends_with_a_whole_character(lib, tmp_path, length):
    path = os.fsencode(tmp_path) + b"/" + ("ü" * 100 + "/").encode() * 8 + b"a" * (length % 23)
    ran = subprocess.run([str(BUILD / "vlart-run").encode(), path], capture_output=True, timeout=60,
                             check=False)
    assert_harmless(ran.stderr)
