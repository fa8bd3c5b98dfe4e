"""Writes the measured parts of the documentation: `python -m docs.render`, or `--check` to only compare.

Text between `<!-- render:NAME -->` and `<!-- end -->` is the output of the function of that name, made
from profiles/*.json, the results of the example, or the code itself. Numbers are never typed into prose.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs import (
    atlas,
    board_hour,
    board_model,
    boards,
    distributions,
    first_hours,
    newcomer,
    picture,
    policies,
    precision,
    recorded,
    reference,
    robot,
    runtimes,
)
from docs.figures import ROOT

PAGES = (ROOT / "README.md", ROOT / "examples" / "libero_goal" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"(<!-- render:([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

BLOCKS: dict[str, Callable[[], str]] = {
    "summary": policies.summary,
    "demo-light": lambda: policies.demo("light"),
    "demo-heavy": lambda: policies.demo("heavy"),
    "bench-light": lambda: policies.bench("light"),
    "bench-heavy": lambda: policies.bench("heavy"),
    "lerobot": policies.lerobot,
    "lerobot-tiny": lambda: policies.lerobot("-tiny"),
    "atlas": atlas.atlas,
    "plans": policies.plans,
    "checkpoints": policies.checkpoints,
    "gauntlet": policies.gauntlet,
    "random-policies": policies.random_policies,
    "builds": policies.builds,
    "ticks": robot.ticks,
    "fuzz": robot.fuzz,
    "flash-faults": robot.flash_faults,
    "size": robot.size,
    "start": robot.start,
    "sensors": robot.sensors,
    "cameras": robot.cameras,
    "distributions": distributions.distributions,
    "recorder": recorded.recorder,
    "cuts": recorded.cuts,
    "rtx": boards.rtx,
    "int8-attention": boards.int8_attention,
    "moments": boards.moments,
    "routing": robot.routing,
    "routed": robot.routed,
    "delays": robot.delays,
    "lanes": robot.lanes,
    "backbones": robot.backbones,
    "serve": robot.serve,
    "newest": robot.newest,
    "week": robot.week,
    "board-loops": robot.board_loops,
    "boards": boards.boards,
    "fit": boards.fit,
    "held-out": boards.held_out_rows,
    "board-policies": board_model.policies,
    "board-stages": board_model.stages,
    "board-per-token": board_model.per_token,
    "board-powers": board_model.powers,
    "board-modes": board_model.modes,
    "board-clocks": board_model.clocks,
    "board-ratios": board_model.boards,
    "board-measured": board_model.measured,
    "other-machines": board_model.other_machines,
    "precision-modes": precision.precision_modes,
    "precision-rotations": precision.precision_rotations,
    "precision-sized": precision.precision_sized,
    "precision-stages": precision.precision_stages,
    "setup": policies.setup,
    "libero-success": lambda: policies.libero("libero-success"),
    "libero-pairing": lambda: policies.libero("libero-pairing"),
    "libero-training": lambda: policies.libero("libero-training"),
    "verbs": reference.verbs,
    "exit-codes": reference.exit_codes,
    "statuses": reference.statuses,
    "topic-map": reference.topic_map,
    "ros2": robot.ros2,
    "versions": reference.versions,
    "tvm": runtimes.tvm,
    "runtimes": runtimes.runtimes,
    **first_hours.blocks(),
    **board_hour.blocks(),
    **{f"newcomer-{step.name}": partial(newcomer.block, step) for step in (newcomer.INSTALL, *newcomer.STEPS)},
}


def render(text: str) -> str:
    """A page's text with every block made anew."""
    return BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]]() + m[3], text)


def current() -> dict[Path, str]:
    """{file: its content as it should be}"""
    pages = {path: render(path.read_text(encoding="utf-8")) for path in PAGES}
    return pages | {picture.FILE: picture.svg(), atlas.PAGE: atlas.page()}


def stale() -> list[Path]:
    return [path for path, text in current().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main() -> None:
    for path, text in current().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if "--check" not in sys.argv:
        main()
    elif old := stale():
        sys.exit(f"not current: {', '.join(str(p.relative_to(ROOT)) for p in old)}; run `make docs`")
