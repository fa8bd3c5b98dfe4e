"""What a plan of a system at its real size found: recorded.json, which `python -m benchmarks.atlas` writes from
profiles/atlas and every installation has. Must not import PyTorch."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("recorded.json")


@dataclass(frozen=True)
class Recorded:
    """parameters: of the whole policy. loops: iterations of every loop. per_task: the stages that only a new
    instruction runs. cached: the part of a replan's modelled time that the same instruction saves, on the largest
    board; None where no latency is modelled."""

    parameters: int
    loops: tuple[int, ...]
    per_task: tuple[str, ...]
    cached: float | None


def recorded(name: str) -> Recorded | None:
    """None: it was not recorded."""
    found = _all(FILE).get(name)
    return None if found is None else Recorded(found["parameters"], tuple(found["loops"]), tuple(found["per_task"]),
                                               found["cached"])


@functools.cache
def _all(path: Path) -> dict[str, dict]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def summary_of(plan: Mapping) -> Recorded:
    """plan: the content of a file of profiles/atlas."""
    latency = list(plan["boards"].values())[-1]["latency"]
    return Recorded(
        plan["parameters"]["all"],
        tuple(sorted({s["iterations"] for s in plan["stages"] if s["iterations"] > 1}, reverse=True)),
        tuple(s["stage"] for s in plan["stages"] if s["speed"] == "task"),
        None if latency is None else round(1 - latency["same_instruction_ms"] / latency["new_instruction_ms"], 4))
