"""Regular expressions of an adapter's settings, matched with the names of layers within a time.

Python's matcher tries every way to divide a name among repetitions, which for an expression like (a+)+ takes longer
than anybody waits; it cannot be interrupted. So it runs in a process of its own, which can.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable

LONGEST_S = 10.0  # thousands of names take some milliseconds
_MATCH = ("import json, re, sys; pattern, names = json.load(sys.stdin); "
          "json.dump([n for n in names if re.fullmatch(pattern, n)], sys.stdout)")


class EndlessPatternError(Exception):
    """A pattern that was not matched with the names within the time that its message names."""


def matching(pattern: str, names: Iterable[str]) -> frozenset[str]:
    """The names that the pattern, which compiles, matches as a whole. Raises EndlessPatternError."""
    try:
        done = subprocess.run([sys.executable, "-I", "-S", "-c", _MATCH], input=json.dumps([pattern, list(names)]),
                              capture_output=True, text=True, check=True, timeout=LONGEST_S)
    except subprocess.TimeoutExpired as error:
        raise EndlessPatternError(f"within {error.timeout:g} s") from error
    return frozenset(json.loads(done.stdout))
