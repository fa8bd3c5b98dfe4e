"""Names of files say what is in them, and model families are named by the frontends and the zoo alone."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house.layers import ROOT
from tests.house.test_lengths import sources
from vlacompile.zoo.names import dashed, module_names

SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}
SURVEYED = sorted({dashed(m) for m in module_names()} - {"act"})  # which is a word, too
FAMILIES = re.compile(rf"smolvla|\bpi-?0[56]?\b|gr00t|\bgroot|openvla|paligemma|vq-?bet|\b({'|'.join(SURVEYED)})\b",
                      re.IGNORECASE)
# What others measured on boards, under the names that they gave it: the rows that the cost model is held against.
MEASURED = "vlacompile/profile/published.py"


def test_no_file_has_a_name_that_says_nothing():
    found = [name for name in sources() if SAY_NOTHING & {Path(part).stem for part in Path(name).parts}]
    assert not found, found


def test_no_model_family_is_named_outside_frontends_and_zoo():
    found = [f"{name}:{number}: {line.strip()}" for name in sources()
             if name.startswith(("vlacompile/", "vlart/", "runtime_c/")) and name != MEASURED
             and not name.startswith(("vlacompile/frontends/", "vlacompile/zoo/"))
             for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
             if FAMILIES.search(line)]
    assert not found, "\n".join(found)


def test_a_family_is_found():
    """The control."""
    for line in ("if name == 'smolvla':", "pi0.5's tokens", "# as pi0 does", "outputs/pi05", "GR00T N1.5",
                 "  vlacompile zoo nanovla"):
        assert FAMILIES.search(line), line
    for line in ("copi0t", "spin", "pi / 2", "math.pi", "pipe"):
        assert not FAMILIES.search(line), line
