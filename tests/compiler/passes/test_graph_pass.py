"""The pass that `graph_pass.py` shows to whoever writes the first one."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

import torch

from tests.compiler.passes.test_docstrings import as_documented, documented
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import Program, ProgramEditor, program_text
from vlacompile.compiler.passes import graph_pass
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.pass_manager import run_passes
from vlacompile.policy.policy import Policy, Source


def test_the_pass_of_the_introduction_does_what_it_says():
    written = textwrap.dedent(re.search(r"(?m)^    NEG = .*?(?=^1\. )", graph_pass.__doc__, re.DOTALL)[0])
    names = {"torch": torch, "dataclass": dataclass, "GraphPass": GraphPass, "Program": Program,
             "ProgramEditor": ProgramEditor, "PassResult": PassResult}
    exec(written, names)
    p = names["DropDoubleNegations"]()
    policy = Policy("example", lambda x: {"action": torch.relu(x.neg().neg())}, {"x": Source("observation")},
                    {"x": torch.randn(1, 4)})
    program = capture(policy)
    assert as_documented(program_text(program)) == documented(p, "Before")
    after, notes = run_passes(program, (p, p))
    assert as_documented(program_text(after)) == documented(p, "After")
    assert notes == ("DropDoubleNegations: dropped 1 pairs",)
